"""Drifts and their gradients by the definition: deep copies, full logits, sum p (log p - log q), sample by sample.

Uses nothing of equipoise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

Batch = dict[str, Any]


def moved(model: nn.Module, values: Mapping[str, torch.Tensor], names: Iterable[str]) -> nn.Module:
    """A deep copy of the model in which the named parameters have other values."""
    twin = copy.deepcopy(model)
    parameters = dict(twin.named_parameters())
    with torch.no_grad():
        for name in names:
            parameters[name].copy_(values[name])
    return twin


def log_probs_of_samples(model: nn.Module, batch: Batch) -> list[torch.Tensor]:
    """For each sample with supervised tokens, [K, V] log-probabilities of its next tokens."""
    logits_BTV = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    samples = []
    for logits_TV, labels_T in zip(logits_BTV, batch["labels"]):
        predicting = [t for t in range(len(labels_T) - 1) if labels_T[t + 1] != -100]
        if predicting:
            samples.append(logits_TV[predicting].log_softmax(-1))
    return samples


def mean_kl(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> torch.Tensor:
    """KL(old || new), the mean over samples of the mean over a sample's tokens."""
    return torch.stack([(p.exp() * (p - q)).sum(-1).mean() for p, q in zip(old, new, strict=True)]).mean()


def drift(
    before: nn.Module, after: Mapping[str, torch.Tensor], names: Iterable[str], batches: Sequence[Batch]
) -> float:
    """KL(P(before) || P(before with the named parameters at `after`)), dropout off."""
    old, new = copy.deepcopy(before).eval(), moved(before, after, names).eval()
    with torch.no_grad():
        pairs = [(log_probs_of_samples(old, batch), log_probs_of_samples(new, batch)) for batch in batches]
    return mean_kl([p for ps, _ in pairs for p in ps], [q for _, qs in pairs for q in qs]).item()


def look_back(
    model: nn.Module,
    previous: Mapping[str, torch.Tensor],
    names: Sequence[str],
    batches: Sequence[Batch],
    rng_states: Sequence[torch.Tensor],
) -> tuple[float, dict[str, torch.Tensor]]:
    """KL(P(named parameters at `previous`) || P(now)) with the training forward's dropout, and its gradient."""
    now, then = copy.deepcopy(model), moved(model, previous, names)
    old, new = [], []
    for batch, state in zip(batches, rng_states, strict=True):
        torch.set_rng_state(state)
        old += [p.detach() for p in log_probs_of_samples(then, batch)]
        torch.set_rng_state(state)
        new += log_probs_of_samples(now, batch)
    divergence = mean_kl(old, new)
    parameters = dict(now.named_parameters())
    found = torch.autograd.grad(divergence, [parameters[name] for name in names], allow_unused=True)
    return divergence.item(), {name: gradient for name, gradient in zip(names, found) if gradient is not None}
