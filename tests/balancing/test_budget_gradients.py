"""A budget too small for a stretch of each task: contributions come from gradients, to the same bytes after a stop."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from balancing._twins import TASKS, loaded, make_node, settings
from equipoise.balancing import stretches
from equipoise.tasks.contribution import balance_tasks
from equipoise.tasks.itinerary import Itinerary
from equipoise.training.run_directory import RunDirectory

Command = Callable[..., dict[str, Any]]
#: So many validation answers of each task that they cannot be read after a stretch of each.
ANSWERS = 24


@pytest.fixture(scope="module")
def content(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The recipe as plain data."""
    plain = settings(checkpoint, tmp_path_factory.mktemp("twins"), ANSWERS, mini_fraction=0.14, budget=1.0)
    plain["train"] |= {"save_steps": 5, "learning_rate": 0.02}
    return plain


@pytest.fixture(scope="module")
def undisturbed(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the budget's run."""
    return make_node(content, tmp_path_factory.mktemp("budget"))


def itinerary_of(node: Path) -> Itinerary:
    return Itinerary(**loaded(node / "scores-budget.json")["itinerary"])


def test_twins_have_the_same_gradients_and_the_opposed_the_contrary(undisturbed: Path) -> None:
    assert {path.name for path in (undisturbed / "read").iterdir()} == {"mini.json", "all.json", "gradients.json"}
    products = loaded(undisturbed / "read" / "gradients.json")
    for taker in TASKS:
        np.testing.assert_allclose(products["one"][taker], products["twin"][taker], rtol=1e-4)
    found = balance_tasks(loaded(undisturbed / "scores-budget.json")["runs"])
    c = {giver: dict(zip(TASKS, row, strict=True)) for giver, row in zip(TASKS, found.contributions, strict=True)}
    assert c["one"]["twin"] == pytest.approx(1.0, abs=1e-4)
    assert c["twin"]["one"] == pytest.approx(1.0, abs=1e-4)
    for twin in ("one", "twin"):
        assert c["opposed"][twin] < 0
        assert c[twin]["opposed"] < 0


def test_training_goes_on_as_if_no_gradient_had_been_taken(undisturbed: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(stretches, "full_scores", lambda read, *_: read)
    without = replace(itinerary_of(undisturbed), compared=0)
    console = Console(file=io.StringIO())
    stretches.run_stretches(RunDirectory(undisturbed).recipe(), without, tmp_path / "node", console, "without")
    for name in ("metrics.jsonl", "read/all.json"):
        assert (tmp_path / "node" / name).read_bytes() == (undisturbed / name).read_bytes()
    assert not (tmp_path / "node" / "read" / "gradients.json").exists()


class Seen(Exception):
    pass


def test_a_gradient_is_that_of_the_mean_loss_of_a_token(content: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    slopes = []

    def checked(trainer: stretches.StretchTrainer) -> Any:
        parameters = [parameter for _, parameter in trainer.division.parameters()]
        before = parameters_to_vector(parameters).detach()
        one, opposed = trainer._answers["one"], trainer._answers["opposed"]
        for samples in ([*one[:2], *opposed[:3]], one[:1]):  # more than a batch, and less
            gradient = trainer._gradient(samples)
            losses = []
            for shift in (0.01, -0.01):
                vector_to_parameters(before + shift * gradient / gradient.norm(), parameters)
                with torch.no_grad():
                    losses.append(float(trainer.model.eval()(**trainer._collator(samples)).loss))
            vector_to_parameters(before, parameters)
            slopes.append(((losses[0] - losses[1]) / 0.02, float(gradient.norm())))
        raise Seen

    monkeypatch.setattr(stretches.StretchTrainer, "_products", checked)
    with pytest.raises(Seen):
        make_node(content, tmp_path)
    assert len(slopes) == 2
    for slope, norm in slopes:
        assert slope == pytest.approx(norm, rel=0.02)


#: In the order in which they come: an event, a part of the path, the how many-th such event; or steps, then SIGTERM.
Stop = tuple[str, str, int] | int
FEW: list[Stop] = [("os.rename", "read/gradients.json", 1), 14, ("os.rename", "/balance.json", 1)]
MANY: list[Stop] = [
    FEW[0],
    ("os.mkdir", "checkpoint-10", 1),  # `mini` is read, its gradients are taken, the step is not kept
    14,
    ("os.rename", "read/all.json", 1),
    ("os.rename", "seconds/all.json", 1),
    ("os.rename", "done.json", 1),
    FEW[-1],
]


@pytest.mark.parametrize("stops", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_killed_and_stopped_again_and_again(
    command: Command, content: dict[str, Any], tmp_path: Path, undisturbed: Path, stops: list[Stop]
) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    for stop in stops:
        if isinstance(stop, int):
            ended = command("balance", file, "--out", out, signal_after=[str(out), stop, signal.SIGTERM])
            assert ended["status"] == 0, ended["printed"]
            assert "stopped" in ended["printed"]
        else:
            died = command("balance", file, "--out", out, kill=stop)
            assert died["status"] == -signal.SIGKILL, (stop, died["printed"])
    [made] = out.glob("nodes/budget-*")
    assert made.name == undisturbed.name
    for name in ("metrics.jsonl", "scores-budget.json", "read/mini.json", "read/all.json", "read/gradients.json"):
        assert (made / name).read_bytes() == (undisturbed / name).read_bytes()
    assert {str(path.relative_to(made)) for path in made.rglob("*")} == {
        str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*")
    }
