"""Gradients by sample against autograd on one sample at a time, and what rules them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from equipoise.modules.forward import GROUPS, RandomState, inference, supervised
from equipoise.modules.partition import LLM, Partition, partition
from equipoise.modules.per_sample import PerSampleGradients
from equipoise.training.supervised_logits import SupervisedPlaces, head_of

Loss = Callable[[nn.Module, tiny.Batch], torch.Tensor]


def model_loss(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
    return model(**batch).loss / len(tiny.STEP)


def record(
    model: nn.Module,
    division: Partition,
    batches: list[tiny.Batch],
    samples: int = 6,
    loss: Loss = model_loss,
) -> PerSampleGradients:
    """Train on the batches, up to the optimizer's step."""
    recorder = PerSampleGradients(model, division, samples, seed=0)
    for batch in batches:
        recorder.observe(batch, RandomState(), step=0)
        loss(model, batch).backward()
    recorder.finish()
    return recorder


def losses_of_samples(model: nn.Module, batch: tiny.Batch) -> list[torch.Tensor]:
    """What each sample adds to `model_loss`, each from a forward of its own, dropout off."""
    tokens = (batch["labels"][:, 1:] != -100).sum()
    losses = []
    with inference(model), torch.enable_grad():
        for row in range(len(batch["labels"])):
            said = supervised(model, {name: value[row : row + 1] for name, value in batch.items()})
            of_labels = said.log_probs_KV.gather(-1, said.labels_K[:, None])
            losses.append(-of_labels.sum() / tokens / len(tiny.STEP))
    return losses


def test_they_are_those_of_one_sample_at_a_time_and_sum_to_the_gradient() -> None:
    model, batches = tiny.lora_llava(dropout=0.0), tiny.llava_step()
    division = partition(model)
    recorder = record(model, division, batches)
    weights = division.trainable[LLM].trainable
    found = {name: torch.cat([part.gradients[name] for part in recorder.parts]) for name in weights}
    for name, weight in weights.items():
        torch.testing.assert_close(found[name].sum(dim=0).view_as(weight), weight.grad, rtol=1e-9, atol=1e-13)
    expected = [
        torch.autograd.grad(loss, list(weights.values()))
        for batch in batches
        for loss in losses_of_samples(model, batch)
    ]
    for number, gradients in enumerate(expected):
        for name, gradient in zip(weights, gradients, strict=True):
            torch.testing.assert_close(
                found[name][number], gradient.flatten(), rtol=1e-4, atol=1e-8
            )  # transformers' loss is of float32


def test_along_and_combined_are_sums_of_them() -> None:
    model = tiny.lora_llava()
    division = partition(model)
    recorder = record(model, division, tiny.llava_step())
    weights = division.trainable[LLM].trainable
    generator = torch.Generator().manual_seed(3)
    step = {n: torch.randn(w.shape, generator=generator, dtype=w.dtype) for n, w in weights.items()}
    coefficients = torch.randn(6, generator=generator, dtype=torch.float64)
    each = {name: torch.cat([part.gradients[name] for part in recorder.parts]) for name in weights}
    change = sum((each[name] * step[name].flatten()).sum(dim=1) for name in weights)
    torch.testing.assert_close(recorder.along(step), change)
    for name, found in recorder.combined(coefficients).items():
        torch.testing.assert_close(found, (coefficients[:, None] * each[name]).sum(dim=0).view_as(found))


def test_labels_and_their_weights_in_the_loss() -> None:
    model, batches = tiny.lora_llava(dropout=0.0), tiny.llava_step()
    recorder = record(model, partition(model), batches)
    for part, batch in zip(recorder.parts, batches, strict=True):
        with inference(model):
            said = supervised(model, batch)
        log_probs = said.log_probs_KV.gather(-1, said.labels_K[:, None]).squeeze(-1)
        torch.testing.assert_close(part.log_probs_K, log_probs)
        assert torch.equal(part.samples_K, said.samples_K)
        tokens = len(said.labels_K) * len(tiny.STEP)
        torch.testing.assert_close(part.loss_weights_S, torch.full_like(part.loss_weights_S, 1 / tokens))


def test_weights_of_samples_are_told_apart() -> None:
    """A loss that weights samples (tasks) is not taken for steeper or flatter gradients."""
    model, batch = tiny.lora_llava(dropout=0.0), tiny.llava_batch((3, 1, 5))
    wanted = torch.tensor([0.25, 0.0, 2.0], dtype=torch.float64)

    def weighted(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        each = nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return (wanted[:, None] * each).sum()

    recorder = record(model, partition(model), [batch], loss=weighted)
    torch.testing.assert_close(recorder.parts[0].loss_weights_S, wanted)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_some_samples_of_a_batch(samples: int) -> None:
    model, batch = tiny.lora_llava(dropout=0.0), {**tiny.llava_batch((3, 1, 5, 2)), GROUPS: torch.arange(4)}
    inputs = {name: value for name, value in batch.items() if name != GROUPS}
    division = partition(model)

    def loss(model: nn.Module, _: tiny.Batch) -> torch.Tensor:
        return model(**inputs).loss

    [whole] = record(model, division, [batch], samples=4, loss=loss).parts
    [some] = record(model, division, [batch], samples=samples, loss=loss).parts
    assert some.chosen is not None
    rows = some.chosen.tolist()
    assert len(rows) == samples
    for name, gradients in some.gradients.items():
        assert torch.equal(gradients, whole.gradients[name][rows])
    assert torch.equal(some.embedding_gradients_STD, whole.embedding_gradients_STD[rows])
    assert torch.equal(some.embeddings_STD, whole.embeddings_STD[rows])
    torch.testing.assert_close(some.loss_weights_S, whole.loss_weights_S[rows])
    places = torch.isin(whole.samples_K, some.chosen)
    assert torch.equal(some.log_probs_K, whole.log_probs_K[places])
    assert [rows[sample] for sample in some.samples_K.tolist()] == whole.samples_K[places].tolist()


def test_the_bound_holds_over_micro_batches() -> None:
    model = tiny.lora_llava()
    recorder = record(model, partition(model), tiny.llava_step(), samples=5)
    assert [part.rows for part in recorder.parts] == [slice(0, 3), slice(3, 4), slice(4, 5)]
    assert recorder.parts[2].chosen is not None


def test_the_embeddings_come_again_under_the_dropout_of_training() -> None:
    model = tiny.lora_llava(dropout=0.1)
    projector = model.get_base_model().model.multi_modal_projector
    projector.act = nn.Sequential(projector.act, nn.Dropout(0.5))
    model.train()
    recorder = record(model, partition(model), tiny.llava_step())
    before = torch.get_rng_state()
    with torch.no_grad():
        for part in recorder.parts:
            assert torch.equal(recorder.embeddings(part), part.embeddings_STD)
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_cut_to_supervised_places_say_the_same() -> None:
    model, batches = tiny.lora_llava(dropout=0.0), tiny.llava_step()
    division = partition(model)

    def cut(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
        places = SupervisedPlaces(batch["labels"])
        with places.kept(head_of(model)):
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        return nn.functional.cross_entropy(logits[0, :-1], places.labels[0, 1:]) / len(tiny.STEP)

    whole, recorder = record(model, division, batches), record(model, division, batches, loss=cut)
    assert recorder.reason is None
    for one, other in zip(whole.parts, recorder.parts, strict=True):
        torch.testing.assert_close(one.log_probs_K, other.log_probs_K)
        torch.testing.assert_close(one.loss_weights_S, other.loss_weights_S)
        torch.testing.assert_close(one.gradients, other.gradients)


def test_activation_checkpointing_says_the_same() -> None:
    model, batches = tiny.lora_llava(dropout=0.0), tiny.llava_step()
    division = partition(model)
    plain = record(model, division, batches)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    recorder = record(model, division, batches)
    assert recorder.reason is None
    for one, other in zip(plain.parts, recorder.parts, strict=True):
        torch.testing.assert_close(one.gradients, other.gradients)


def test_a_batch_that_supervises_nothing_takes_no_room() -> None:
    model, batches = tiny.lora_llava(), tiny.llava_step()
    batches[1]["labels"] = torch.full_like(batches[1]["labels"], -100)

    def loss(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
        return model(**batch).loss.nan_to_num()

    recorder = record(model, partition(model), batches, loss=loss)
    assert recorder.reason is None
    assert [part.rows for part in recorder.parts] == [slice(0, 3), slice(3, 5)]


def test_nothing_stays_on_the_model() -> None:
    model, batches = tiny.lora_llava(), tiny.llava_step()
    model(**batches[0])  # transformers leaves hooks of its own at the first forward

    def traces() -> list[Any]:
        return [(dict(m._forward_hooks), dict(m._forward_pre_hooks), set(vars(m))) for m in model.modules()]

    before = traces()
    recorder = record(model, partition(model), batches)
    assert traces() == before
    recorder.forget()
    assert recorder.parts == []


# ---------------------------------------------------------------------------------------------- obstacles


def smoothed(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), label_smoothing=0.3)


def without_the_head(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
    base: Any = model.get_base_model()
    hidden = base.model(**{name: value for name, value in batch.items() if name != "labels"}).last_hidden_state
    logits = (hidden @ base.lm_head.weight.t())[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (smoothed, "the loss is not the negative log-likelihood of what the LM head says"),
        (without_the_head, "the logits of the LM head were not seen"),
    ],
)
def test_losses_that_rule_them_out(loss: Loss, reason: str) -> None:
    model = tiny.lora_llava()
    model.get_base_model().lm_head.weight.data *= 10  # smoothed labels matter where the model is sure of some
    recorder = record(model, partition(model), tiny.llava_step(), loss=loss)
    assert recorder.reason == reason
    assert recorder.parts == []


def test_an_overflow_at_first_leaves_the_loss_unjudged() -> None:
    model, batches = tiny.lora_llava(), tiny.llava_step()
    model.get_base_model().lm_head.weight.data *= 10
    division = partition(model)
    recorder = record(model, division, batches[:1], loss=lambda m, b: smoothed(m, b) * torch.inf)
    assert not recorder.trusted
    recorder.forget()
    recorder.observe(batches[0], RandomState(), step=1)
    smoothed(model, batches[0]).backward()
    recorder.finish()
    assert recorder.reason == "the loss is not the negative log-likelihood of what the LM head says"


def test_models_that_rule_them_out() -> None:
    full = tiny.full_llava()
    reason = PerSampleGradients(full, partition(full), 6, 0).reason
    assert reason is not None
    assert "is not the weight of a plain linear layer" in reason
    model, division = tiny.toy()
    assert PerSampleGradients(model, division, 6, 0).reason == (
        "the model has no decoder or no output head that transformers knows"
    )
    lora = tiny.lora_llava()
    reason = PerSampleGradients(lora, partition(lora), 1000, 0).reason
    assert reason is not None
    assert reason.startswith("1000 gradients of the LLM's 3,328 trainable numbers")
    patterns = {"encoder": r"multi_modal_projector|layers\.0\."}
    assert PerSampleGradients(lora, partition(lora, patterns), 6, 0).reason == "module encoder lies inside the LLM"
