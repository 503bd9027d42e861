"""CoTBal's weights for a share of one final run: what it leaves, killed and gone on with, and whether it ranks rightly.

Here a stretch is made for each task; test_budget_gradients.py has the other mode.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from balancing._twins import SAMPLES, TASKS, TESTED, loaded, make_node, node, settings
from equipoise.balancing.run import Balancing, balance
from equipoise.evaluation.forced import read_answers
from equipoise.models import loading
from equipoise.recipe_reading import parse_recipe
from equipoise.tasks.contribution import balance_tasks
from equipoise.training.run_directory import RunDirectory

Command = Callable[..., dict[str, Any]]
BUDGET = 0.8


@pytest.fixture(scope="module")
def content(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The recipe as plain data; few enough answers that they are read after a stretch of each task."""
    plain = settings(checkpoint, tmp_path_factory.mktemp("twins"), TESTED, mini_fraction=0.25, budget=BUDGET)
    plain["train"] |= {"save_steps": 7}
    return plain


@pytest.fixture(scope="module")
def found(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Balancing:
    """Never interrupted."""
    folder = tmp_path_factory.mktemp("budget") / "out"
    return balance(parse_recipe(content, "twins"), folder, Console(file=io.StringIO()))


@pytest.fixture
def file(content: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_twins_help_each_other_and_the_opposed_harms_both(found):
    balanced = loaded(found.balance_file)
    c = {giver: dict(zip(TASKS, row)) for giver, row in zip(TASKS, balanced["contributions"])}
    assert min(c["one"]["twin"], c["twin"]["one"]) > 0.3
    for twin in ("one", "twin"):
        assert c["opposed"][twin] < 0
        assert c[twin]["opposed"] < 0
    weights = balanced["weights"]
    # Twins help; what is opposed is helped by nobody.
    assert weights["one2all"]["opposed"] == min(weights["one2all"].values())
    assert weights["all2one"]["opposed"] == max(weights["all2one"].values())


def test_what_it_leaves(found):
    balanced = loaded(found.balance_file)
    assert balanced["probes"] == "budget"
    assert balanced["settings"]["budget"] == BUDGET
    assert balanced["nodes"] == {"budget": node(found).name}
    assert list(balanced["scores"]) == ["mini", "one+mini", "twin+mini", "opposed+mini"]
    assert balanced["weights"] == balance_tasks(balanced["scores"], on_degenerate="zero").as_dict()["weights"]
    assert found.final.recipe().balance.tasks.weights == balanced["weights"]["cotbal"]
    assert {path.name.rpartition("-")[0] for path in found.nodes.iterdir()} == {"budget", "cotbal"}
    left = {path.name for path in node(found).iterdir()}
    assert not left & {"model", "checkpoints", "warm.pt"}


def test_the_promise_is_kept_and_seen(found):
    costs = loaded(found.costs_file)["nodes"]
    assert costs["budget"]["scoring"] > 0
    kept = loaded(node(found) / "scores-budget.json")
    itinerary = kept["itinerary"]
    trained = sum(
        sum(line[f"task_tokens/{task}"] > 0 for task in TASKS) > 0 for line in RunDirectory(node(found)).metrics()
    )
    read = sum(len(answers) for part in (node(found) / "read").iterdir() for answers in loaded(part).values())
    step = itinerary["together"]
    final = 2 * len(TASKS) * SAMPLES + 0.5 * len(TASKS) * TESTED
    assert trained * step + 0.5 * read <= BUDGET * final
    assert itinerary["cost"] == pytest.approx((trained * step + 0.5 * read) / final)


def test_each_stretch_begins_where_the_warm_start_ended(content, tmp_path):
    """With a rate of 0 after it, all stretches read what the warm start left."""
    calm = {**content, "train": {**content["train"], "learning_rate": 0.0}}
    made = make_node(calm, tmp_path)
    parts = [loaded(path) for path in (made / "read").iterdir()]
    assert len(parts) == 4
    assert all(part == parts[0] for part in parts)
    balanced = balance_tasks(loaded(made / "scores-budget.json")["runs"], on_degenerate="zero")
    assert set(balanced.weights["cotbal"].tolist()) == {1.0}
    assert balanced.undefined_contributions == TASKS


def test_a_stretch_reads_what_a_run_of_it_alone_would(found, content, tmp_path, monkeypatch):
    """Its steps after the warm start's are those of the same run without the stretches between."""
    from equipoise.balancing import stretches

    usual = stretches.Itinerary.draws
    plan = loaded(node(found) / "scores-budget.json")["itinerary"]
    alone = stretches.Itinerary(**{**plan, "own": {"opposed": plan["own"]["opposed"]}})
    recipe = RunDirectory(node(found)).recipe()
    train = recipe.train.model_copy(update={"max_steps": alone.steps - alone.shared})
    first, step = alone.warm * alone.together, alone.together

    def without_mini(self: Any, seed: int) -> list[tuple[str, int]]:
        whole = usual(stretches.Itinerary(**plan), seed)
        return whole[:first] + whole[-step * (alone.shared + alone.own["opposed"]) :]

    ends = {alone.warm: "", train.max_steps: "opposed+mini"}
    monkeypatch.setattr(stretches.Itinerary, "draws", without_mini)
    monkeypatch.setattr(stretches.Itinerary, "ends", property(lambda _: ends))
    monkeypatch.setattr(
        stretches.Itinerary, "stretches", property(lambda _: {"opposed+mini": train.max_steps - alone.warm})
    )
    monkeypatch.setattr(stretches, "full_scores", lambda read, *_: read)
    recipe = recipe.model_copy(update={"train": train})
    stretches.run_stretches(recipe, alone, tmp_path / "alone", Console(file=io.StringIO()), "alone")
    read = loaded(tmp_path / "alone" / "read" / "opposed+mini.json")
    assert read == loaded(node(found) / "read" / "opposed+mini.json")


#: In the order in which they come: an event, a part of the path, the how many-th such event.
MOMENTS = [
    ("os.rename", "warm.pt", 1),
    ("os.mkdir", "checkpoint-21", 1),  # within a stretch
    ("os.rename", "read/twin+mini.json", 1),
    ("os.rename", "scores-budget.json", 1),
    ("shutil.rmtree", "checkpoints", 1),
]


def test_killed_again_and_again(command: Command, file: Path, tmp_path: Path, found: Balancing):
    arguments = ("balance", file, "--out", tmp_path / "out")
    for moment in MOMENTS:
        died = command(*arguments, kill=moment)
        assert died["status"] == -signal.SIGKILL, (moment, died["printed"])
    ended = command(*arguments)
    assert ended["status"] == 0, ended["printed"]
    made = Balancing(tmp_path / "out")
    for name in ("balance.json", "results.json"):
        assert (made.path / name).read_bytes() == (found.path / name).read_bytes()
    for name in ("metrics.jsonl", "scores-budget.json", "read/opposed+mini.json"):
        assert (node(made) / name).read_bytes() == (node(found) / name).read_bytes()
    left, undisturbed = ({str(path.relative_to(node(m))) for path in node(m).rglob("*")} for m in (made, found))
    assert left == undisturbed


def test_the_option_is_over_the_recipe_and_the_dry_run_shows_what_it_buys(
    command: Command, file: Path, tmp_path: Path, found: Balancing
):
    shown = command("balance", file, "--budget", "0.5", "--out", tmp_path / "out", "--dry-run")
    assert shown["status"] == 0
    assert "budget: " in shown["printed"]
    costs = float(re.search(r"With these it costs ([0-9.]+) final runs", " ".join(shown["printed"].split()))[1])
    assert 0.45 < costs <= 0.5
    assert not (tmp_path / "out").exists()
    shutil.copytree(found.path, tmp_path / "copy")
    again = command("balance", file, "--budget", BUDGET, "--out", tmp_path / "copy")
    assert "budget: already done" in again["printed"]
    small = command("balance", file, "--budget", "0.001", "--out", tmp_path / "out")
    assert small["status"] == 2
    assert "equipoise: balance.cotbal.budget: found 0.001; two steps of 2 samples" in small["printed"]
    assert len(small["printed"].splitlines()) == 1


def test_the_report_says_that_scores_are_estimates(command: Command, found: Balancing):
    page = (found.path / "report.html") if (found.path / "report.html").is_file() else None
    if page is None:
        ended = command("report", found.path)
        assert ended["status"] == 0, ended["printed"]
        page = found.path / "report.html"
    assert "estimated" in page.read_text(encoding="utf-8")


# ------------------------------------------------------------------ reading answers


def test_readings_are_the_probabilities_of_whole_answers(found, content):
    recipe = found.final.recipe()
    model = loading.load_tuned(recipe.model, found.final.model)
    collator = loading.load_collator(recipe, loading.load_processor(recipe.model))
    from equipoise.data.tasks import read_task

    samples = [read_task(task, "validation", 0)[0] for task in recipe.tasks]
    readings = read_answers(model, collator, samples, batch_size=2)
    for sample, reading in zip(samples, readings, strict=True):
        batch = collator([sample])
        with torch.no_grad():
            logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[0, :-1].double()
        labels = batch["labels"][0, 1:]
        places = (labels != -100).nonzero().squeeze(1).tolist()
        expected = sum(float(logits[p].log_softmax(-1)[labels[p]]) for p in places)
        assert reading.log_prob == pytest.approx(expected, abs=1e-4)
        assert reading.probability == pytest.approx(math.exp(expected), rel=1e-3)
        assert reading.tokens == len(places)
        assert reading.hits == sum(int(logits[p].argmax()) == int(labels[p]) for p in places)
