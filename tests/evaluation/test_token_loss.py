"""Validation loss: the mean over all supervised tokens, whatever the batches, and no trace on the model."""

from __future__ import annotations

import pytest
import torch

from equipoise.data.readers import easy_vqa
from equipoise.data.sample import Sample, Turn
from equipoise.evaluation.loss import token_loss


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """With and without an image, of unequal length, one with two answers."""
    questions = list(easy_vqa.read("vqa", "validation"))
    captions = list(easy_vqa.read("caption", "validation", kind="caption"))
    talk = (Turn("user", "Hi"), Turn("assistant", "Hello there, friend"), Turn("user", "Bye"), Turn("assistant", "Bye"))
    return [questions[0], captions[0], Sample("talk", "talk", talk), questions[5]]


@pytest.fixture(scope="module")
def expected(model, collator, samples) -> tuple[float, float]:
    """The mean over tokens, and the mean of the samples' means, from one plain forward a sample."""
    losses = []
    for sample in samples:
        batch = collator([sample])
        with torch.no_grad():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0].double()
        targets = batch["labels"][0]
        places = [place for place in range(1, len(targets)) if targets[place] != -100]
        losses.append([-logits[place - 1].log_softmax(-1)[targets[place]].item() for place in places])
    tokens = [loss for of_sample in losses for loss in of_sample]
    return sum(tokens) / len(tokens), sum(sum(loss) / len(loss) for loss in losses) / len(losses)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_it_is_the_mean_over_tokens_whatever_the_batches(model, collator, samples, expected, batch_size):
    by_token, by_sample = expected
    assert abs(by_token - by_sample) > 0.01, "these samples do not tell the two means apart"
    assert token_loss(model, collator, samples, batch_size) == pytest.approx(by_token, rel=1e-5)


def test_it_leaves_train_flags_and_random_state(model, collator, samples):
    model.train()
    try:
        flags = {name: module.training for name, module in model.named_modules()}
        state = torch.get_rng_state()
        first = token_loss(model, collator, samples[:1])
        assert {name: module.training for name, module in model.named_modules()} == flags
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        model.eval()
    assert token_loss(model, collator, samples[:1]) == first
