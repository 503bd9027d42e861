"""experiments/representations.py: probes and CKA against closed forms, features against a forward, tiny runs."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

from equipoise.data.collate import Collator
from equipoise.models import loading
from equipoise.recipe import Model
from equipoise.training.run import train
from models import zoo
from models.zoo import samples
from training import _checkpoint as tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def representations(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("representations")


@pytest.fixture(scope="module")
def measures(representations: ModuleType) -> ModuleType:
    return sys.modules["experiments.representation_measures"]


@pytest.fixture(scope="module")
def inside(representations: ModuleType) -> ModuleType:
    return sys.modules["experiments.representation_features"]


# ------------------------------------------------------------------ probes


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
def test_the_probe_finds_the_closed_form(measures, margin):
    """Two classes at -1 and 1: weights are -w and w where l2 = 1 / (w (1 + exp(2w)))."""
    l2 = 1 / (margin * (1 + math.exp(2 * margin)))
    features = torch.tensor([[-1.0], [1.0]]).repeat(5, 1)
    weights, bias = measures.fit(features, torch.tensor([0, 1]).repeat(5), 2, l2)
    torch.testing.assert_close(weights, torch.tensor([[-margin], [margin]]).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(bias[0], bias[1], rtol=0, atol=1e-6)


def test_without_a_signal_the_probe_answers_by_frequency(measures):
    _, bias = measures.fit(torch.zeros(10, 3), torch.tensor([0] * 7 + [1] * 3), 2, 1.0)
    assert bias.softmax(0)[0].item() == pytest.approx(0.7, abs=1e-6)


def blobs(measures: ModuleType, count: int, noise: float, seed: int, shift: float = 0.0):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 3
    centres = 1000 + torch.eye(3, 12)[classes] * torch.tensor([1.0, 50.0, 2.0])[classes][:, None]  # of any scale
    features = centres + noise * torch.randn(count, 12, generator=generator)
    return measures.Split(features, ["abc"[number] for number in classes])


def test_a_probe_reads_what_is_there_and_nothing_else(measures):
    train, validation, test = (blobs(measures, 60, 0.05, seed) for seed in range(3))
    assert measures.probe(train, validation, test)["accuracy"] == 1
    shuffled = measures.Split(train.features[torch.randperm(60)], train.labels)
    assert measures.probe(shuffled, validation, test)["accuracy"] < 0.7


def test_the_penalty_is_chosen_on_the_validation_part(measures):
    train, validation, test = (blobs(measures, 30, noise, seed) for noise, seed in ((3.0, 0), (3.0, 1), (3.0, 2)))
    losses = {}
    mean, deviation = train.features.double().mean(0), train.features.double().std(0)
    numbers = torch.arange(30) % 3
    for l2 in measures.L2:
        weights, bias = measures.fit((train.features - mean) / deviation, numbers, 3, l2)
        logits = (validation.features.double() - mean) / deviation @ weights.T + bias
        losses[l2] = torch.nn.functional.cross_entropy(logits, numbers).item()
    assert measures.probe(train, validation, test)["l2"] == min(losses, key=losses.__getitem__) != measures.L2[0]


def test_a_class_that_was_not_trained_on_is_wrong(measures):
    train, validation = blobs(measures, 30, 0.05, 0), blobs(measures, 30, 0.05, 1)
    test = measures.Split(validation.features, ["abd"["abc".index(label)] for label in validation.labels])
    assert measures.probe(train, test, test)["accuracy"] == pytest.approx(2 / 3)


# ------------------------------------------------------------------ CKA


def test_cka_of_single_features_is_their_correlation_squared(measures):
    one, other = torch.randn(20, 1), torch.randn(20, 1)
    correlation = torch.corrcoef(torch.cat([one, other], dim=1).T)[0, 1].item()
    assert measures.cka(one, other) == pytest.approx(correlation**2, abs=1e-6)


@pytest.mark.parametrize("kind", ["cka", "debiased_cka"])
def test_cka_sees_neither_turns_nor_shifts_nor_scales(measures, kind):
    features = torch.randn(30, 5).double()
    turn, _ = torch.linalg.qr(torch.randn(5, 5).double())
    other = torch.randn(30, 8).double()
    measure = getattr(measures, kind)
    assert measure(features, 3 * features @ turn + 7) == pytest.approx(1)
    assert measure(features, other) == pytest.approx(measure(5 * features @ turn - 2, other))
    assert measure(features, other) == pytest.approx(measure(other, features))


def test_cka_of_features_without_a_common_direction_is_zero(measures):
    one, other = torch.tensor([[1.0], [1], [-1], [-1]]), torch.tensor([[1.0], [-1], [1], [-1]])
    assert measures.cka(one, other) == pytest.approx(0, abs=1e-12)


def test_unrelated_noise_has_no_debiased_cka(measures):
    pairs = [(torch.randn(20, 60), torch.randn(20, 60)) for _ in range(60)]
    assert sum(measures.cka(*pair) for pair in pairs) / 60 > 0.7  # near 60 / (20 + 60)
    assert sum(measures.debiased_cka(*pair) for pair in pairs) / 60 == pytest.approx(0, abs=0.02)


def test_hsic_is_its_u_statistic(measures):
    """The mean over all ordered quadruples of samples of k12 (l12 + l34 - 2 l13) (Gretton et al. 2005, Song 2012)."""
    one, other = torch.randn(6, 2).double(), torch.randn(6, 3).double()
    k, m = one @ one.T, other @ other.T
    quadruples = list(itertools.permutations(range(6), 4))

    def brute(k: torch.Tensor, m: torch.Tensor) -> float:
        return sum(k[a, b] * (m[a, b] + m[c, d] - 2 * m[a, c]) for a, b, c, d in quadruples).item() / len(quadruples)

    expected = brute(k, m) / (brute(k, k) * brute(m, m)) ** 0.5
    assert measures.debiased_cka(one, other) == pytest.approx(expected)


# ------------------------------------------------------------------ features


@pytest.mark.parametrize(
    ("family", "place"), [("llava", "projector"), ("salmonn", "qformer"), ("flamingo", "cross_attention")]
)
def test_features_are_those_of_each_sample_alone(inside, family, place, tmp_path):
    settings = Model(path=str(zoo.make(family, tmp_path / "zoo")))
    model = loading.load(settings).eval()
    collator = Collator(loading.load_processor(settings))
    media = samples.write(tmp_path / "media")
    rows = [samples.sample(family, media, number, "what is it" + " so" * number, "red") for number in range(3)]
    together = inside.features(model, collator, rows, 3, lambda _: None)
    assert list(together) == [place, "llm 1/3", "llm 2/3", "llm"]
    alone = [inside.features(model, collator, [row], 1, lambda _: None) for row in rows]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.cat([one[name] for one in alone]), rtol=1e-4, atol=1e-4)
    hidden = model(**collator.prompts(rows[:1]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(together["llm"][:1], hidden[-1][:, -1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together["llm 2/3"][:1], hidden[1][:, -1], rtol=1e-4, atol=1e-4)  # of two layers
    assert together[place].std(dim=0).max() > 1e-3
    if place != "cross_attention":  # which says nothing of a row without an image
        blind = samples.sample(family, media, None, "who", "blue")
        with pytest.raises(ValueError, match="found 3 outputs of 4 samples"):
            inside.features(model, collator, [*rows, blind], 4, lambda _: None)


# ------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def comparison(checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with a seed each and one of them with another, as `equipoise compare` leaves them."""
    folder = tmp_path_factory.mktemp("comparison")
    for name, rate, seed in (("constant@0-a1", 0.003, 0), ("constant@1-b2", 0.003, 1), ("fast@0-c3", 0.03, 0)):
        recipe = tiny.recipe(checkpoint, dataset, {"schedule": "constant"}, learning_rate=rate, seed=seed, max_steps=2)
        train(recipe, folder / "nodes" / name, Console(file=io.StringIO()))
    (folder / "nodes" / "stopped@0-d4").mkdir()
    return folder


@pytest.fixture(scope="module")
def looked(representations: ModuleType, comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looked")
    representations.main([str(comparison), "--out", str(folder)])
    return folder


def test_a_comparison_is_looked_into(looked):
    found = json.loads((looked / "representations.json").read_text())
    assert found["models"] == ["untuned", "constant@0", "constant@1", "fast@0"]
    assert found["places"] == ["projector", "llm 1/3", "llm 2/3", "llm"]
    assert (found["classes"], found["samples"]["validation"]) == (2, 6)
    for place in found["places"]:
        matrix = found["cka"][place]["plain"]
        assert [matrix[number][number] for number in range(4)] == pytest.approx([1] * 4)
        assert all(0 <= found["probes"][name][place]["accuracy"] <= 1 for name in found["models"])
    drift = found["cka"]["llm"]["plain"]
    assert 1 > drift[0][1] > drift[0][3]  # the faster went further from the untuned model
    rows = {(row["place"], row["method"]): row for row in found["summary"]}
    constant = rows["llm", "constant"]
    assert constant["runs"] == 2
    of_llm = found["cka"]["llm"]["debiased"]
    assert constant["cka_untuned"] == pytest.approx((of_llm[0][1] + of_llm[0][2]) / 2)
    assert constant["cka_seeds"] == pytest.approx(of_llm[1][2])
    assert constant["cka_methods"] == pytest.approx(of_llm[1][3])  # of the same seed
    assert rows["llm", "fast"]["cka_seeds"] is None


def test_features_are_not_computed_twice(representations, comparison, looked, monkeypatch, capsys):
    command = [str(comparison), "--out", str(looked)]
    text = (looked / "representations.json").read_text()
    monkeypatch.setattr(representations, "features", lambda *_: pytest.fail("computed again"))
    representations.main(command)
    assert (looked / "representations.json").read_text() == text
    assert capsys.readouterr().out.count("| `fast` |") == 4
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        representations.main([*command, "--test", "5"])


def test_the_figure_has_a_line_a_method(looked):
    found = json.loads((looked / "representations.json").read_text())
    figures = importlib.import_module("experiments.representation_figures")
    drawn = figures.figure(found["summary"], found["majority"])
    assert [trace.name for trace in drawn.data] == ["untuned", "constant", "fast"] * 2
    for trace in drawn.data[:3]:
        assert list(trace.x) == found["places"]
    assert list(drawn.data[4].y) == [row["cka_untuned"] for row in found["summary"] if row["method"] == "constant"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--task", "shapes"], "--task: found 'shapes'; the recipe has colours"),
        (["again"], "found runs twice: constant@0, constant@1, fast@0"),
    ],
)
def test_mistakes_are_one_line(representations, comparison, tmp_path, arguments, reason):
    paths = [str(comparison)] * (2 if arguments == ["again"] else 1)
    with pytest.raises(SystemExit) as caught:
        representations.main([*paths, "--out", str(tmp_path), *(one for one in arguments if one != "again")])
    assert caught.value.code == reason


def test_nothing_finished(representations, tmp_path):
    with pytest.raises(SystemExit, match="found no finished run"):
        representations.main([str(tmp_path), "--out", str(tmp_path / "out")])
