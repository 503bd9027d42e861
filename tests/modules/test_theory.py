"""The paper's theory along a run: formulas by hand, and the norms of eq. 7, 15, 16 against a direct computation."""

from __future__ import annotations

import copy
import math

import bruteforce
import pytest
import torch

import tiny
from equipoise.modules.drift import Drifts, TheoryTerms, measure
from equipoise.modules.forward import InputNorms
from equipoise.modules.partition import partition
from equipoise.modules.snapshot import snapshot
from equipoise.modules.theory import convergence_factor, gradient_bounds, learning_steps, report


@pytest.mark.parametrize(
    ("kappa", "previous", "expected"),
    [(3.0, 1.0, 2.0), (3.0, 7.0, 0.5), (0.25, 1.0, 2.5), (0.25, 4.0, 4.0), (2.0, 0.5, 2.0), (1.0, 5.0, None)],
)
def test_convergence_factor_on_both_sides_of_one(kappa, previous, expected):
    assert convergence_factor(kappa, previous) == expected


# ---------------------------------------------------------------------------------------------- by hand


def by_hand(joint: float = 0.5, reversed_llm: float = 0.3, inputs: InputNorms | None = None) -> Drifts:
    """kappa = 4; ||text|| = 3, ||encoded|| = 2, ||raw|| = 5; ||logits|| 10 (encoder alone) and 20 (LLM alone)."""
    terms = TheoryTerms(
        logits={"encoder": 100.0, "llm": 400.0},
        inputs=inputs or InputNorms(text=9.0, encoded=4.0, raw=25.0),
        loss_before=2.0,
        loss_after=1.75,
        reversed_by_module={"encoder": 0.1, "llm": reversed_llm},
        reversed_joint=joint,
    )
    return Drifts({"encoder": 0.1, "llm": 0.4}, samples=1, floor=1e-12, theory=terms)


def test_learning_steps_follow_equation_7():
    assert learning_steps(by_hand()) == {"encoder": 10 / (3 + 2), "llm": 20 / 5}


def test_gradient_bounds_follow_equation_6():
    assert gradient_bounds(by_hand(), "encoder") == pytest.approx({"llm": 5 * 2.0, "encoder": 1.25 * 4.0})


def test_bounds_are_logged_as_holding_or_not():
    entries, _ = report(by_hand(), "encoder", {"llm": 9.9, "encoder": 5.1}, gamma=0.0)
    assert entries["theory/gradient_bound_holds/llm"] == 1.0
    assert entries["theory/gradient_bound_holds/encoder"] == 0.0


def test_equation_15_fits_the_smallest_gamma_so_far():
    norms = {"llm": 1.0, "encoder": 1.0}
    entries, gamma = report(by_hand(), "encoder", norms, gamma=0.1)
    assert (entries["theory/lipschitz_ratio"], entries["theory/lipschitz_gamma"], gamma) == (0.5, 0.5, 0.5)
    entries, gamma = report(by_hand(), "encoder", norms, gamma=0.8)
    assert (entries["theory/lipschitz_ratio"], entries["theory/lipschitz_gamma"], gamma) == (0.5, 0.8, 0.8)


@pytest.mark.parametrize(("joint", "holds"), [(0.5, 0.0), (0.39, 1.0)])
def test_equation_16_is_judged_and_not_assumed(joint, holds):
    entries, _ = report(by_hand(joint), "encoder", {"llm": 1.0, "encoder": 1.0}, 0.0)
    assert entries["theory/joint_drift"] == joint
    assert entries["theory/triangle_holds"] == holds


def test_a_joint_drift_of_rounding_says_nothing():
    entries, gamma = report(by_hand(joint=1e-13), "encoder", {"llm": 1.0, "encoder": 1.0}, 0.2)
    assert gamma == 0.2
    assert not any("lipschitz" in name or "triangle" in name for name in entries)


def test_without_theory_nothing_is_reported():
    assert report(Drifts({"encoder": 1.0, "llm": 1.0}, 1, 0.0), "encoder", {}, 0.3) == ({}, 0.3)
    assert learning_steps(Drifts({"encoder": 1.0, "llm": 1.0}, 1, 0.0)) == {}


# ---------------------------------------------------------------------------------------------- on a tiny LLaVA


def squared_norms(model: torch.nn.Module, batches: list[tiny.Batch]) -> tuple[float, float, float]:
    """||text embeddings||^2 of the prompts, ||S(I)||^2, ||I||^2, from the model's own parts."""
    text = encoded = raw = 0.0
    features: list[torch.Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_hook(lambda _, __, output: features.append(output))
    for batch in batches:
        model(**{name: value for name, value in batch.items() if name != "labels"})
        prompt = (batch["labels"] == -100) & (batch["attention_mask"] == 1) & (batch["input_ids"] != tiny.IMAGE_TOKEN)
        text += model.get_input_embeddings()(batch["input_ids"])[prompt].square().sum().item()
        encoded += features.pop().square().sum().item()
        raw += batch["pixel_values"].square().sum().item()
    hook.remove()
    return text, encoded, raw


def squared_logits(model: torch.nn.Module, batches: list[tiny.Batch]) -> float:
    found = 0.0
    for batch in batches:
        logits_BTV = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        found += logits_BTV[:, :-1][batch["labels"][:, 1:] != -100].square().sum().item()
    return found


def loss(samples: list[torch.Tensor], labels: list[list[int]]) -> float:
    means = [-p[range(len(tokens)), tokens].mean() for p, tokens in zip(samples, labels, strict=True)]
    return torch.stack(means).mean().item()


@torch.no_grad()
def test_measured_terms_equal_a_direct_computation():
    model, batches = tiny.full_llava(), tiny.llava_step()
    division = partition(model)
    before, values = copy.deepcopy(model).eval(), snapshot(dict(division.parameters()))
    with torch.enable_grad():
        tiny.train_step(model, torch.optim.AdamW(model.parameters(), lr=3e-3), batches)
    after = {name: parameter.detach() for name, parameter in model.named_parameters()}

    drifts = measure(model, division, values, batches, theory=True)

    text, encoded, raw = squared_norms(before, batches)
    alone = {name: bruteforce.moved(before, after, tiny.names_of(model, name)) for name in ("encoder", "llm")}
    h_encoder = math.sqrt(squared_logits(alone["encoder"], batches)) / (math.sqrt(text) + math.sqrt(encoded))
    h_llm = math.sqrt(squared_logits(alone["llm"], batches)) / math.sqrt(raw)
    assert learning_steps(drifts) == pytest.approx({"encoder": h_encoder, "llm": h_llm}, rel=1e-6)
    kappa = drifts.by_module["llm"] / drifts.by_module["encoder"]
    expected_bounds = {"llm": (kappa + 1) * h_encoder, "encoder": (1 / kappa + 1) * h_llm}
    assert gradient_bounds(drifts, "encoder") == pytest.approx(expected_bounds, rel=1e-6)

    def samples(twin: torch.nn.Module) -> list[torch.Tensor]:
        return [sample for batch in batches for sample in bruteforce.log_probs_of_samples(twin, batch)]

    now, old = samples(copy.deepcopy(model).eval()), samples(before)
    terms = drifts.theory
    assert terms is not None
    assert terms.reversed_joint == pytest.approx(bruteforce.mean_kl(now, old).item(), rel=1e-9)
    for name, twin in alone.items():
        expected = bruteforce.mean_kl(samples(twin), old).item()
        assert terms.reversed_by_module[name] == pytest.approx(expected, rel=1e-9)
    labels = [[int(t) for t in row[1:] if t != -100] for batch in batches for row in batch["labels"]]
    assert terms.loss_before == pytest.approx(loss(old, labels), rel=1e-12)
    assert terms.loss_after == pytest.approx(loss(now, labels), rel=1e-12)


def test_embeddings_are_seen_through_peft():
    model, batches = tiny.lora_llava(), tiny.llava_step()
    division = partition(model)
    drifts = measure(model, division, snapshot(dict(division.parameters())), batches, theory=True)
    with torch.no_grad():
        text, encoded, raw = squared_norms(copy.deepcopy(model).eval().get_base_model(), batches)
    assert drifts.theory is not None
    found = drifts.theory.inputs
    assert found is not None
    assert (found.text, found.encoded, found.raw) == pytest.approx((text, encoded, raw), rel=1e-6)


def test_no_hook_is_left_behind():
    model = tiny.full_llava()
    division = partition(model)
    hooks = [dict(module._forward_pre_hooks) for module in model.modules()]
    measure(model, division, snapshot(dict(division.parameters())), tiny.llava_step(), theory=True)
    assert [dict(module._forward_pre_hooks) for module in model.modules()] == hooks


def test_a_model_that_hides_its_embeddings_has_no_learning_steps():
    model, division = tiny.toy()
    batches = tiny.toy_step(0)
    values = snapshot(dict(division.parameters()))
    tiny.train_step(model, torch.optim.AdamW(model.parameters(), lr=1e-2), batches)
    drifts = measure(model, division, values, batches, theory=True)
    assert learning_steps(drifts) == gradient_bounds(drifts, "projector") == {}
    assert drifts.theory is not None
    assert drifts.theory.reversed_joint > 0
