"""What `equipoise balance` prints of contributions and weights."""

import io

from rich.console import Console

from equipoise.balancing.tables import print_balance
from equipoise.tasks.contribution import balance_tasks


def printed(gain: float) -> str:
    scores = {
        "mini": {"a": 0.5, "b": 0.5},
        "a+mini": {"a": 0.75, "b": 0.625},
        "b+mini": {"a": 0.5, "b": 0.5 + gain},
    }
    console = Console(file=io.StringIO(), width=500)
    print_balance(balance_tasks(scores), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_contributions_that_leave_the_other_task_nothing_are_said():
    assert "all weight by one2all goes to a, all by all2one goes to a: contributions to b" in printed(gain=1 / 128)
    assert "all weight" not in printed(gain=0.25)
