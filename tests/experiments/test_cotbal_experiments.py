"""experiments/cotbal.py: what is read out of finished balances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cotbal(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("cotbal")


def _write(folder: Path, weights: list[float], test: dict[str, float], delta_i: dict[str, float]) -> None:
    folder.mkdir()
    same = {"a": 1.0, "b": 2.0, "c": 3.0}
    vectors = dict.fromkeys(("one2all", "all2one", "contribution", "difficulty"), same)
    vectors["cotbal"] = dict(zip("abc", weights, strict=True))
    balance = {"tasks": ["a", "b", "c"], "weights": vectors, "nodes": {"mini": "mini-1"}}
    (folder / "balance.json").write_text(json.dumps(balance))
    scores = {method: {"a": {"exact_match": value}} for method, value in test.items()}
    deltas = {method: {"delta_i": value, "delta_e": 0.0} for method, value in delta_i.items()}
    (folder / "results.json").write_text(json.dumps({"test": scores, "deltas": deltas}))


def test_summary(cotbal: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path / "0", [0.5, 1.0, 1.5], {"stl": 0.4, "cotbal": 0.6, "ew": 0.5}, {"cotbal": 50.0, "ew": 25.0})
    _write(tmp_path / "1", [0.6, 1.4, 1.0], {"stl": 0.4, "cotbal": 0.7, "ew": 0.55}, {"cotbal": 75.0, "ew": 37.5})
    deltas = cotbal.improvements(cotbal.found(tmp_path, "results.json"), "Table 2")
    assert deltas.differences["cotbal", "Delta I %"][0].mean == 31.25
    text = cotbal.summary(tmp_path)
    assert text.index("`ew`") < text.index("`cotbal`")
    assert "| against `ew` | a (exact_match) |" in text
    assert "| `cotbal` | +0.125 [" in text
    assert "| cotbal | 0.500 | 0.500 | 0.500 |" in text
    assert "| one2all | 1.000 | 1.000 | 1.000 |" in text


def test_ablations_have_tables_of_their_own(cotbal: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path / "0", [0.5, 1.0, 1.5], {"cotbal": 0.6, "ew": 0.5, "tla": 0.4}, {})
    found = {"cotbal": 0.7, "ew": 0.55, "tla": 0.5, "cotbal-T1": 0.75}
    _write(tmp_path / "1", [0.5, 1.0, 1.5], found, {method: 100 * score for method, score in found.items()})
    text = cotbal.summary(tmp_path)
    whole, parts = text[: text.index("Tables 3 and 4")], text[text.index("Tables 3 and 4") :]
    assert "`tla`" in whole
    assert "`tla`" not in parts
    assert "cotbal-T1" in parts
    assert "cotbal-T1" not in whole
    # of the seed that has the ablation alone
    assert "| `cotbal` | +0.150 |" in parts
    assert "| `cotbal-T1` | +20.000 | 0.000 |" in parts
    assert "| seeds | 1 |" in parts
    assert "| seeds | 1 to 2 |" not in parts


def test_nothing_is_finished(cotbal: ModuleType, tmp_path: Path) -> None:
    assert cotbal.summary(tmp_path) == f"{cotbal.HEAD}\n"


def test_what_a_seed_gave_is_recorded(cotbal: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def balance(command: list[str], check: bool) -> None:
        folder = Path(command[command.index("--out") + 1])
        _write(folder, [0.5, 1.0, 1.5], {"ew": 0.5}, {"ew": 25.0})
        (folder / "costs.json").write_text("{}")
        predictions = folder / "nodes" / "mini-1" / "predictions"
        predictions.mkdir(parents=True)
        for task in "abc":
            (predictions / f"{task}.jsonl").write_text('{"id": "0", "score": 0.123456789}\n{"id": "1", "score": 1.0}\n')
        commands.append(command)

    before = {"test": {"tla": {"a": {"exact_match": 0.2}}, "ew": {"a": {"exact_match": 0.1}}}, "deltas": {}}
    (tmp_path / "kept" / "3").mkdir(parents=True)
    (tmp_path / "kept" / "3" / "results.json").write_text(json.dumps(before))
    monkeypatch.setattr(cotbal.subprocess, "run", balance)
    monkeypatch.setattr(cotbal, "RECORDED", tmp_path / "kept")
    cotbal.run(tmp_path, [3, 4], "stl,ew", ablations=False, slots=1)
    found = sorted(str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*.*"))
    assert found == [f"{seed}/{name}" for seed in (3, 4) for name in sorted((*cotbal.FILES, cotbal.ANSWERS))]
    results = json.loads((tmp_path / "kept" / "3" / "results.json").read_text())
    assert results["test"] == {"tla": {"a": {"exact_match": 0.2}}, "ew": {"a": {"exact_match": 0.5}}}
    assert results["deltas"] == {"ew": {"delta_i": 25.0, "delta_e": 0.0}}
    answers = json.loads((tmp_path / "kept" / "3" / cotbal.ANSWERS).read_text())
    assert answers == {"mini": {task: [0.12346, 1.0] for task in "abc"}}
    assert [next(word for word in command if "seed" in word) for command in commands] == [
        "train.seed=3",
        "train.seed=4",
    ]
    assert "| seed 4 | 0.500 | 1.000 | 1.500 |" in cotbal.summary(tmp_path / "kept")
