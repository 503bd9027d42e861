"""Validation loss: the mean negative log-likelihood over all supervised tokens, whatever the batches and processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.modules.forward import inference, supervised


def token_loss(model: nn.Module, collator: Collator, samples: Sequence[Sample], batch_size: int = 16) -> float:
    """Mean loss a token, in nats.

    Args:
        model: with a causal language model's forward.
    """
    firsts = range(0, len(samples), batch_size)
    return mean_loss(batch_loss(model, collator, samples[first : first + batch_size]) for first in firsts)


def batch_loss(model: nn.Module, collator: Collator, samples: Sequence[Sample]) -> tuple[float, int]:
    """The loss of one batch: its sum in nats and its number of tokens."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in collator(samples).items()}
    with inference(model):
        predicted = supervised(model, inputs)
        total = torch.nn.functional.cross_entropy(predicted.logits_KV, predicted.labels_K, reduction="sum")
    return total.item(), predicted.labels_K.numel()


def mean_loss(losses: Iterable[Sequence[float]]) -> float:
    """The mean over all tokens of the batches' sums and numbers of tokens, added up in the batches' order.

    Returns:
        nan where no token is supervised.
    """
    totals, tokens = zip(*losses, strict=True)
    return sum(totals) / sum(tokens) if any(tokens) else math.nan
