"""Validation loss: the mean negative log-likelihood over all supervised tokens, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.modules.forward import inference, supervised


def token_loss(
    model: nn.Module,
    collator: Collator,
    samples: Sequence[Sample],
    batch_size: int = 16,
    advance: Callable[[int], None] = lambda _: None,
) -> float:
    """Mean loss a token, in nats.

    Args:
        model: with a causal language model's forward.
        advance: called with the number of samples that each batch finished.
    """
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    with inference(model):
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            inputs = {name: value.to(device) for name, value in collator(batch).items()}
            predicted = supervised(model, inputs)
            total += torch.nn.functional.cross_entropy(predicted.logits_KV, predicted.labels_K, reduction="sum").item()
            tokens += predicted.labels_K.numel()
            advance(len(batch))
    return total / tokens
