"""Drift: how far one module's own update moved what the model predicts (CoMMIT eq. 3-4).

With theta_t before an optimizer step and theta_{t+1} after it, the drift of module m is

    d_m = KL( P(theta_t)  ||  P(theta_t with module m at theta_{t+1}) ),

per sample the mean over its supervised tokens, then the mean over samples. The paper's eq. 3-4 print the subscripts
swapped; this reading agrees with its eq. 5. `measure` computes it after a step, with dropout off; `look_back` before
one, for the previous step's update, which is what the regulariser needs (METHODS: look-back).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from equipoise.modules.forward import (
    GROUPS,
    Embeddings,
    InputNorms,
    RandomState,
    Supervised,
    inference,
    replaying,
    supervised,
)
from equipoise.modules.partition import Partition
from equipoise.modules.snapshot import Values, extrapolate, holding

Batch = dict[str, Any]


def kl_divergence(old_KV: torch.Tensor, new_KV: torch.Tensor) -> torch.Tensor:
    """KL(old || new) at each position, from log-probabilities.

    Computed as sum p * (expm1(delta) - delta) with delta = log q - log p, which equals sum p * (log p - log q) because
    both sum to one, but has no negative term and so does not cancel when the step is small.

    Args:
        old_KV, new_KV: [K, V], log-probabilities.

    Returns:
        [K], in nats, >= 0.
    """
    delta_KV = new_KV - old_KV
    impossible_KV = old_KV.isneginf()
    if impossible_KV.any():  # a masked token: what it adds is the limit of the term, its new probability
        delta_KV = delta_KV.masked_fill(impossible_KV, 0.0)
        gained_K = new_KV.exp().masked_fill(~impossible_KV, 0.0).sum(dim=-1)
        return _sum_of_terms(old_KV, delta_KV) + gained_K
    return _sum_of_terms(old_KV, delta_KV)


def _sum_of_terms(old_KV: torch.Tensor, delta_KV: torch.Tensor) -> torch.Tensor:
    sum_K = (old_KV.exp() * (torch.expm1(delta_KV) - delta_KV)).sum(dim=-1)
    odd_K = ~sum_K.detach().isfinite()
    if odd_K.any():  # where a token comes from nowhere, expm1 overflows and p * expm1(delta), which is q - p, does not
        old_KV, delta_KV = old_KV[odd_K], delta_KV[odd_K]
        sum_K = sum_K.index_put((odd_K,), ((old_KV + delta_KV).exp() - old_KV.exp() * (1 + delta_KV)).sum(dim=-1))
    return sum_K


def floor(dtype: torch.dtype) -> float:
    """The drift below which nothing but rounding is seen: log-probabilities off by 8 units in the last place.

    Half the square of 8 epsilon, for a KL is half the mean square of a small change: 4.5e-13 in float32, 1.6e-30 in
    float64. Lower precisions are computed from float32 logits and share its floor.
    """
    return 0.5 * (8 * torch.finfo(dtype if dtype == torch.float64 else torch.float32).eps) ** 2


@dataclass
class Drifts:
    """What one measurement found.

    Attributes:
        by_module: d_m in nats, for each module that learns.
        samples: over how many samples it is a mean.
        floor: drifts below it are rounding.
        amplification: the multiple of the step that was measured (drifts are given back divided by its square).
        theory: what `equipoise.modules.theory` needs, if it was asked for.
        by_group: for each group of samples that the batches tell apart, the drifts on its samples alone.
        gap: where drifts were estimated from gradients, the largest root mean square over samples by which a module's
            step moved logits; 0 where they were measured by forwards.
    """

    by_module: dict[str, float]
    samples: int
    floor: float
    amplification: float = 1.0
    theory: TheoryTerms | None = None
    by_group: dict[int, dict[str, float]] = field(default_factory=dict)
    gap: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether every drift is finite and above the floor."""
        return self.samples > 0 and all(math.isfinite(d) and d > self.floor for d in self.by_module.values())


@dataclass
class TheoryTerms:
    """Norms, losses and reversed drifts of one measurement, for eq. 7, 15 and 16.

    Attributes:
        logits: squared Frobenius norm of the logits with that module's update alone.
        inputs: squared norms of what went in; None if the model hides its embeddings.
        loss_before, loss_after: mean loss (eq. 2) on the measured samples before and after the whole step.
        reversed_by_module, reversed_joint: KL(new || old), the direction that eq. 15-16 print.
    """

    logits: dict[str, float] = field(default_factory=dict)
    inputs: InputNorms | None = None
    loss_before: float = 0.0
    loss_after: float = 0.0
    reversed_by_module: dict[str, float] = field(default_factory=dict)
    reversed_joint: float = 0.0


def measure(
    model: nn.Module,
    division: Partition,
    before: Values,
    batches: Sequence[Batch],
    amplification: float = 1.0,
    theory: bool = False,
) -> Drifts:
    """Measure the drift of every module's last update, on the model as it stands after the step.

    One forward a batch for P_t, one for each module, one more for `theory`. Parameters, gradients, buffers, flags and
    random states are left as found, also when a forward raises.

    Args:
        model: holds theta_{t+1}.
        division: its modules.
        before: theta_t of every trainable parameter.
        batches: the micro-batches of the step (or samples of them), each with `labels`, and `GROUPS` where drifts are
            wanted by group too.
        amplification: c measures theta_t + c * (theta_{t+1} - theta_t) and divides by c squared. A KL is quadratic in
            a small step, so the ratio of drifts is unchanged while both rise above low-precision rounding.
        theory: also collect the terms of eq. 7, 15 and 16.
    """
    modules = division.trainable
    everything = dict(division.parameters())
    after = extrapolate(everything, before, amplification)
    sums = dict.fromkeys(modules, 0.0)
    terms = TheoryTerms(logits=dict.fromkeys(modules, 0.0), reversed_by_module=dict.fromkeys(modules, 0.0))
    embeddings = Embeddings(model if theory else nn.Module())
    samples, lowest, seen = 0, 0.0, 0
    groups = _GroupMeans()
    with inference(model), holding(everything, before):
        for batch in batches:
            with embeddings.watching():
                old = supervised(model, batch)
            if old.supervised_samples == 0:
                continue
            samples += old.supervised_samples
            lowest = floor(old.logits_KV.dtype)
            old_KV = old.log_probs_KV
            for name, module in modules.items():
                with holding(module.trainable, after):
                    new = supervised(model, batch)
                new_KV = new.log_probs_KV
                divergence_K = kl_divergence(old_KV, new_KV)
                sums[name] += old.sum_of_sample_means(divergence_K).item()
                groups.add(name, batch, old, divergence_K)
                if theory:
                    terms.logits[name] += new.logits_KV.square().sum().item()
                    reverse = kl_divergence(new_KV, old_KV)
                    terms.reversed_by_module[name] += old.sum_of_sample_means(reverse).item()
            if theory:
                with holding(everything, after):
                    new = supervised(model, batch)
                _add_joint_terms(terms, old, old_KV, new.log_probs_KV)
                norms = embeddings.norms(batch)
                if norms is None or (terms.inputs is None and seen > 0):
                    terms.inputs = None  # one batch that hides its embeddings leaves the sum without meaning
                else:
                    terms.inputs = norms if terms.inputs is None else _plus(terms.inputs, norms)
                seen += 1
    square = amplification**2
    drifts = {name: total / max(samples, 1) / square for name, total in sums.items()}
    if theory and samples:
        _average(terms, samples)
    found = terms if theory and samples else None
    return Drifts(drifts, samples, lowest / square, amplification, found, groups.means(square))


class _GroupMeans:
    """Drifts by group of samples, summed over batches."""

    def __init__(self) -> None:
        self._sums: dict[int, dict[str, list[float]]] = {}

    def add(self, module: str, batch: Batch, old: Supervised, divergence_K: torch.Tensor) -> None:
        """Add a module's divergences on one batch; nothing where the batch does not tell groups apart."""
        if GROUPS not in batch:
            return
        means_B = old.sample_means(divergence_K).tolist()
        for sample in old.samples_K.unique().tolist():
            group = int(batch[GROUPS][sample])
            self._sums.setdefault(group, {}).setdefault(module, []).append(means_B[sample])

    def means(self, square: float) -> dict[int, dict[str, float]]:
        """By group and module the mean over samples, for a step amplified by the root of `square`."""
        return {
            group: {module: math.fsum(values) / len(values) / square for module, values in modules.items()}
            for group, modules in self._sums.items()
        }


def look_back(
    model: nn.Module,
    division: Partition,
    previous: Values,
    batches: Sequence[Batch],
    states: Sequence[RandomState],
    with_gradients: bool = True,
) -> tuple[Drifts, dict[str, Values]]:
    """Drifts of the previous update on the current batch, and their gradients (eq. 10-11).

    d_m = KL( P(theta_t with module m at theta_{t-1})  ||  P(theta_t) ); the first argument has no gradient, and the
    gradient of d_m reaches module m alone. Reference and current forward share the dropout masks of the training
    forward. eq. 10 has the other module at t-1; keeping it at t differs to second order and lets one set of forwards
    serve every module.

    Args:
        model: holds theta_t; train/eval flags as in the training forward.
        previous: theta_{t-1} of every trainable parameter.
        batches: the micro-batches of the step, whole.
        states: random states before each micro-batch's training forward.
        with_gradients: off where the drifts alone are wanted, which saves a backward pass a module.

    Returns:
        The drifts (means over the step's samples), and for each module the gradient of its drift by parameter name.
    """
    modules = division.trainable
    sums = dict.fromkeys(modules, 0.0)
    gradients: dict[str, Values] = {name: {} for name in modules}
    samples, lowest = 0, 0.0
    for batch, state in zip(batches, states, strict=True):
        references: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for name, module in modules.items():
                with holding(module.trainable, previous), replaying(model, state):
                    references[name] = supervised(model, batch).log_probs_KV
        with replaying(model, state), torch.set_grad_enabled(with_gradients):
            current = supervised(model, batch)
        if current.supervised_samples == 0:
            continue
        samples += current.supervised_samples
        lowest = floor(current.logits_KV.dtype)
        current_KV = current.log_probs_KV
        for index, (name, module) in enumerate(modules.items()):
            drift = current.sum_of_sample_means(kl_divergence(references[name], current_KV))
            sums[name] += drift.item()
            if not with_gradients:
                continue
            found = torch.autograd.grad(
                drift, list(module.trainable.values()), retain_graph=index + 1 < len(modules), allow_unused=True
            )
            _accumulate(gradients[name], dict(zip(module.trainable, found, strict=True)))
        del current, current_KV, drift
    count = max(samples, 1)
    for values in gradients.values():
        for gradient in values.values():
            gradient /= count
    return Drifts({name: total / count for name, total in sums.items()}, samples, lowest), gradients


def _accumulate(sums: Values, gradients: dict[str, torch.Tensor | None]) -> None:
    for name, gradient in gradients.items():
        if gradient is not None:
            sums[name] = sums[name].add_(gradient) if name in sums else gradient.clone()


def _add_joint_terms(terms: TheoryTerms, old: Supervised, old_KV: torch.Tensor, new_KV: torch.Tensor) -> None:
    labels_K1 = old.labels_K.unsqueeze(-1)
    terms.loss_before -= old.sum_of_sample_means(old_KV.gather(-1, labels_K1).squeeze(-1)).item()
    terms.loss_after -= old.sum_of_sample_means(new_KV.gather(-1, labels_K1).squeeze(-1)).item()
    terms.reversed_joint += old.sum_of_sample_means(kl_divergence(new_KV, old_KV)).item()


def _average(terms: TheoryTerms, samples: int) -> None:
    terms.loss_before /= samples
    terms.loss_after /= samples
    terms.reversed_joint /= samples
    terms.reversed_by_module = {name: total / samples for name, total in terms.reversed_by_module.items()}


def _plus(one: InputNorms, other: InputNorms) -> InputNorms:
    return InputNorms(one.text + other.text, one.encoded + other.encoded, one.raw + other.raw)
