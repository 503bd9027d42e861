"""The runs' summary on a terminal: what the report's first tables say, in one."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from equipoise.report.numbers import number
from equipoise.report.view import view_all
from equipoise.training.run_directory import RunDirectory


def print_summary(runs: Sequence[RunDirectory], console: Console) -> None:
    """Print a row a run: validation loss, scores and their controls, kappa, what balancing cost."""
    views = view_all(runs)
    tasks = list(dict.fromkeys(task for view in views for task in view.tasks))
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("run", no_wrap=True)
    columns = [column for task in tasks for column in (task, "majority", "shuffled")]
    for column in ("loss", *columns, "kappa", "std", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for view in views:
        row = [view.label, _shown(view.validation_loss, 4)]
        for task in tasks:
            found = view.tasks.get(task, {})
            row += [_shown(number(found.get(key)), 3) for key in ("value", "majority", "shuffled_inputs")]
        row += [_shown(view.verdict.kappa, 2), _shown(view.verdict.std_log_kappa, 2)]
        row.append("-" if view.step_ratio is None else f"{view.step_ratio:.2f}x")
        table.add_row(*row)
    console.print(table)
    console.print(
        "loss: validation, nats a token; kappa: geometric mean after a quarter of the measurements; std: of log "
        "kappa; time: of all steps, over the same without balancing",
        highlight=False,
    )


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
