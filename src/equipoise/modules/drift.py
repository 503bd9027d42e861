"""Drift: how far one module's own update moved what the model predicts (CoMMIT eq. 3-4).

With theta_t before an optimizer step and theta_{t+1} after it, the drift of module m is

    d_m = KL( P(theta_t)  ||  P(theta_t with module m at theta_{t+1}) ),

per sample the mean over its supervised tokens, then the mean over samples. The paper's eq. 3-4 print the subscripts
swapped; this reading agrees with its eq. 5. `measure` computes it after a step, with dropout off; `look_back` before
one, for the previous step's update, which is what the regulariser needs (METHODS: look-back).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from equipoise.modules.forward import (
    GROUPS,
    Embeddings,
    RandomState,
    Supervised,
    inference,
    replaying,
    supervised,
)
from equipoise.modules.partition import Partition
from equipoise.modules.processes import ALONE, Processes, add_gradients
from equipoise.modules.shards import gradients_of
from equipoise.modules.snapshot import Values, extrapolate, holding
from equipoise.modules.tally import Drifts, Tally, TheoryTerms

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


def measure(
    model: nn.Module,
    division: Partition,
    before: Values,
    batches: Sequence[Batch],
    amplification: float = 1.0,
    theory: bool = False,
    processes: Processes = ALONE,
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
        processes: which measure together, each on batches of its own.
    """
    modules = division.trainable
    everything = dict(division.parameters())
    after = extrapolate(everything, before, amplification)
    tally = Tally(modules, theory)
    embeddings = Embeddings(model if theory else nn.Module())
    now = after if amplification == 1.0 else None
    with inference(model), holding(everything, before, copies=now):
        for batch in batches:
            # A batch that supervises nothing adds nothing; its forwards are made all the same, for processes that
            # share the weights must make equally many.
            with embeddings.watching():
                old = supervised(model, batch)
            tally.see(old.supervised_samples, floor(old.logits_KV.dtype))
            old_KV = old.log_probs_KV
            for name, module in modules.items():
                with holding(module.trainable, after, copies=before):
                    new = supervised(model, batch)
                new_KV = new.log_probs_KV
                divergence_K = kl_divergence(old_KV, new_KV)
                tally.sums[name] += old.sum_of_sample_means(divergence_K).item()
                _add_groups(tally, name, batch, old, divergence_K)
                if tally.theory is not None:
                    tally.theory.logits[name] += new.logits_KV.square().sum().item()
                    reverse = kl_divergence(new_KV, old_KV)
                    tally.theory.reversed_by_module[name] += old.sum_of_sample_means(reverse).item()
            if tally.theory is not None:
                with holding(everything, after, copies=before):
                    new = supervised(model, batch)
                _add_joint_terms(tally.theory, old, old_KV, new.log_probs_KV)
                norms = embeddings.norms(batch)
                if old.supervised_samples:
                    tally.see_inputs(norms)
    return tally.over(processes).drifts(amplification)


def _add_groups(tally: Tally, module: str, batch: Batch, old: Supervised, divergence_K: torch.Tensor) -> None:
    """Add a module's divergences on one batch by group; nothing where the batch does not tell groups apart."""
    if GROUPS not in batch:
        return
    means_B = old.sample_means(divergence_K).tolist()
    for sample in old.samples_K.unique().tolist():
        tally.see_group(int(batch[GROUPS][sample]), module, means_B[sample])


def look_back(
    model: nn.Module,
    division: Partition,
    previous: Values,
    batches: Sequence[Batch],
    states: Sequence[RandomState],
    with_gradients: bool = True,
    processes: Processes = ALONE,
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
        processes: which look back together, each on batches of its own.

    Returns:
        The drifts (means over the step's samples), and for each module the gradient of its drift by parameter name.
    """
    modules = division.trainable
    tally = Tally(modules)
    gradients: dict[str, Values] = {name: {} for name in modules}
    for batch, state in zip(batches, states, strict=True):
        references: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for name, module in modules.items():
                with holding(module.trainable, previous), replaying(model, state):
                    references[name] = supervised(model, batch).log_probs_KV
        with replaying(model, state), torch.set_grad_enabled(with_gradients):
            current = supervised(model, batch)
        tally.see(current.supervised_samples, floor(current.logits_KV.dtype))
        current_KV = current.log_probs_KV
        for index, (name, module) in enumerate(modules.items()):
            drift = current.sum_of_sample_means(kl_divergence(references[name], current_KV))
            tally.sums[name] += drift.item()
            if not with_gradients:
                continue
            found = gradients_of(drift, module.trainable, division.parameters(), model, index + 1 < len(modules))
            _accumulate(gradients[name], found)
        del current, current_KV, drift
    tally = tally.over(processes)
    if with_gradients:
        for name, module in modules.items():
            gradients[name] = add_gradients(processes, gradients[name], module.trainable)
            for gradient in gradients[name].values():
                gradient /= max(tally.samples, 1)
    return tally.drifts(), gradients


def _accumulate(sums: Values, gradients: dict[str, torch.Tensor | None]) -> None:
    for name, gradient in gradients.items():
        if gradient is not None:
            sums[name] = sums[name].add_(gradient) if name in sums else gradient.clone()


def _add_joint_terms(terms: TheoryTerms, old: Supervised, old_KV: torch.Tensor, new_KV: torch.Tensor) -> None:
    labels_K1 = old.labels_K.unsqueeze(-1)
    terms.loss_before -= old.sum_of_sample_means(old_KV.gather(-1, labels_K1).squeeze(-1)).item()
    terms.loss_after -= old.sum_of_sample_means(new_KV.gather(-1, labels_K1).squeeze(-1)).item()
    terms.reversed_joint += old.sum_of_sample_means(kl_divergence(new_KV, old_KV)).item()
