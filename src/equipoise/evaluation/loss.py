"""Validation loss: the mean negative log-likelihood over all supervised tokens, whatever the batches and processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.modules.forward import inference, supervised
from equipoise.modules.processes import ALONE, Processes


def token_loss(
    model: nn.Module,
    collator: Collator,
    samples: Sequence[Sample],
    batch_size: int = 16,
    processes: Processes = ALONE,
) -> float:
    """Mean loss a token, in nats.

    Args:
        model: with a causal language model's forward.
        processes: which share the batches; all get the same loss, and that of one process.
    """
    firsts = range(0, len(samples), batch_size)
    mine: list[float] = []
    # Each makes as many forwards as the others: who has no batch left takes the last one again, and leaves it out.
    for turn in range(0, len(firsts), processes.count):
        number = turn + processes.number
        first = firsts[min(number, len(firsts) - 1)]
        total, tokens = batch_loss(model, collator, samples[first : first + batch_size])
        mine += (total, tokens) if number < len(firsts) else ()
    shares = [list(zip(numbers[::2], numbers[1::2])) for numbers in processes.gather(mine)]
    return mean_loss(shares[number % len(shares)][number // len(shares)] for number in range(len(firsts)))


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
