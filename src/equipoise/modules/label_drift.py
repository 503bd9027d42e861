"""Drift from gradients by sample: what the training backward already says about the step that follows it.

With g_b the gradient of the loss of sample b and delta a module's step, -g_b . delta is to first order how much that
step, alone, raises the log-probability of the sample's labels: D_b, a sum over its tokens. Each token is then looked at
as a choice between its label, of probability p, and the rest. The gap between their logits, which a small step moves
nearly linearly while probabilities saturate, moves by G_b = D_b / sqrt(sum over tokens of (1 - p)^2), and the drift is

    d_b = mean over tokens of KL( Bernoulli(p) || Bernoulli(sigmoid(logit(p) + G_b)) ).

That is exact for one token that two answers share; looking at the label alone makes a KL smaller, never larger, and so
it does to both sides of kappa. `Drifts.gap` says how large the step was. Gradients are those of the training forward,
so dropout is on as it was there. `equipoise bench fidelity` holds the estimate against the exact drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from equipoise.modules.drift import floor
from equipoise.modules.forward import GROUPS
from equipoise.modules.partition import LLM, Partition
from equipoise.modules.per_sample import PerSampleGradients, Recorded
from equipoise.modules.processes import add_gradients
from equipoise.modules.snapshot import Values, extrapolate, holding
from equipoise.modules.tally import Drifts, Tally

#: Above this root mean square of gaps (natural log of odds) a step is too large to be seen from its beginning alone.
LARGEST_GAP = 2.0


def bernoulli_kl(logit: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
    """KL( Bernoulli(sigmoid(logit)) || Bernoulli(sigmoid(logit + gap)) ), elementwise, in nats.

    Written as sum p (expm1(d) - d), d = log q - log p, as in `drift.kl_divergence`, so that small gaps do not cancel.

    Args:
        logit, gap: float64.
    """
    total = torch.zeros_like(logit)
    for sign in (1, -1):  # the label, and whatever is not the label
        log_p = logsigmoid(sign * logit)
        delta = logsigmoid(sign * (logit + gap)) - log_p
        total += log_p.exp() * (torch.expm1(delta) - delta)
    return total


def measure(recorder: PerSampleGradients, division: Partition, before: Values, amplification: float = 1.0) -> Drifts:
    """Estimate the drift of every module's last update, on the samples whose gradients were recorded before it.

    A forward of the encoder for each of its modules that learns, up to the LLM; none of the LLM.

    Args:
        recorder: of the batch that made the update; its model holds theta_{t+1}.
        division: its modules.
        before: theta_t of every trainable parameter.
        amplification: of the encoder's steps, whose effect on the embeddings could drown in 16 bits' rounding.
    """
    after = extrapolate(dict(division.parameters()), before, amplification)
    changes = {
        name: recorder.along(_llm_step(division, before))
        if name == LLM
        else _encoder_change(recorder, division, name, before, after, 1.0 / amplification)
        for name in division.trainable
    }
    return _drifts(recorder, changes)


def look_back(
    recorder: PerSampleGradients, division: Partition, previous: Values, with_gradients: bool = True
) -> tuple[Drifts, dict[str, Values]]:
    """Drifts of the previous update on the current batch and their gradients (eq. 10-11), as `drift.look_back`'s.

    The gradient of a sample's drift is the gradient of its log-probability times a number. So those of all samples cost
    one weighted sum for the LLM, and for each module of the encoder one backward through the forward that the drift
    takes anyway: through the encoder as it was before the step, which to first order is the same.

    Args:
        recorder: of the current batch; its model holds theta_t.
        division: its modules.
        previous: theta_{t-1} of every trainable parameter.
        with_gradients: off where the drifts alone are wanted.
    """
    gradients: dict[str, Values] = {name: {} for name in division.trainable}
    now = {name: parameter.detach() for name, parameter in division.parameters()}
    changes = {}
    for name in division.trainable:
        if name == LLM:
            changes[name] = recorder.along(_llm_step(division, previous))
            if with_gradients:
                gradients[name] = recorder.combined(_coefficients(recorder, changes[name]))
        else:
            sums = gradients[name] if with_gradients else None
            changes[name] = _encoder_change(recorder, division, name, now, previous, -1.0, sums)
    if with_gradients:
        for name, module in division.trainable.items():
            gradients[name] = add_gradients(recorder.processes, gradients[name], module.trainable)
    return _drifts(recorder, changes, past=True), gradients


def _llm_step(division: Partition, before: Values) -> Values:
    names, parameters = zip(*division.trainable[LLM].trainable.items(), strict=True)
    moved = torch._foreach_sub([p.detach() for p in parameters], [before[name] for name in names])
    return dict(zip(names, moved, strict=True))


def _encoder_change(
    recorder: PerSampleGradients,
    division: Partition,
    name: str,
    rest: Values,
    moved: Values,
    scale: float,
    sums: Values | None = None,
) -> torch.Tensor:
    """[S], how each recorded sample's loss changes with the step of one module of the encoder alone.

    Args:
        name: of the module.
        rest, moved: of the encoder's modules, where the gradients were taken and where a step leads.
        scale: what the changes are multiplied by.
        sums: the gradients of the mean drift are put here, where given.
    """
    own = division.trainable[name].trainable
    others = {n: p for other, m in division.trainable.items() if other != LLM for n, p in m.trainable.items()}
    values = {n: (moved if n in own else rest)[n] for n in others}
    found = []
    for part in recorder.parts:
        gradients_STD = part.embedding_gradients_STD
        if part.embeddings_STD is None or gradients_STD is None:
            found.append(part.loss_weights_S.new_zeros(part.rows.stop - part.rows.start))
            continue
        # What was put in the parameters' place must still be there when the backward reads it.
        with torch.set_grad_enabled(sums is not None), holding(others, values):
            embeddings_STD = recorder.embeddings(part)
            difference = embeddings_STD.detach() - part.embeddings_STD
            products = gradients_STD.to(_precise(difference)) * difference.to(_precise(difference))
            found.append(products.sum(dim=(1, 2)) * scale)
            if sums is None:
                continue
            weights_S = _coefficients_of(part, found[-1], recorder.supervised).to(gradients_STD.dtype)
            pulled = torch.autograd.grad(
                embeddings_STD, list(own.values()), gradients_STD * weights_S[:, None, None], allow_unused=True
            )
        for weight, gradient in zip(own, pulled, strict=True):
            if gradient is not None:
                sums[weight] = sums[weight] + gradient if weight in sums else gradient
    return torch.cat(found) if found else torch.zeros(0)


@dataclass
class _Choices:
    """The supervised tokens as choices between the label and the rest.

    Attributes:
        logits_K: of the label's probability.
        gap_S: by how much a step moves the logits of each sample.
        gap_by_change_S: d gap / d (change of the sample's loss).
    """

    logits_K: torch.Tensor
    gap_S: torch.Tensor
    gap_by_change_S: torch.Tensor


def _choices(part: Recorded, change_S: torch.Tensor) -> _Choices:
    # On the CPU, for not every device has float64. A log-probability of 0 is one that rounding hides.
    log_p = part.log_probs_K.cpu().double().clamp(max=-1e-16)
    log_doubt = torch.log(-torch.expm1(log_p))
    bottom_S = part.loss_weights_S.cpu().double() * _by_sample(part, (2 * log_doubt).exp()).sqrt()
    gap_by_change_S = torch.where(bottom_S > 0, -1.0 / torch.where(bottom_S > 0, bottom_S, 1.0), 0.0)
    return _Choices(log_p - log_doubt, gap_by_change_S * change_S.cpu().double(), gap_by_change_S)


def _by_sample(part: Recorded, values_K: torch.Tensor) -> torch.Tensor:
    """[S], sums over each sample's supervised tokens."""
    sums = values_K.new_zeros(part.rows.stop - part.rows.start)
    return sums.index_add(0, part.samples_K.to(values_K.device), values_K)


def _drifts(recorder: PerSampleGradients, changes: Mapping[str, torch.Tensor], past: bool = False) -> Drifts:
    """Mean drifts; `past`: of a step that led to where the gradients were taken, not of one from there."""
    tally = Tally(changes)
    for part in recorder.parts:
        tokens_S = _tokens(part)
        present = (tokens_S > 0).nonzero().squeeze(-1).tolist()
        tally.see(len(present), floor(part.log_probs_K.dtype))
        groups: list[int] = part.inputs[GROUPS].tolist() if GROUPS in part.inputs else []
        for name, change in changes.items():
            choices = _choices(part, change[part.rows])
            gap_K = choices.gap_S[part.samples_K.cpu()]
            before_K = choices.logits_K - gap_K if past else choices.logits_K
            divergence_K = bernoulli_kl(before_K, gap_K)
            tally.squares[name] += choices.gap_S.square().sum().item()
            means = (_by_sample(part, divergence_K) / tokens_S.clamp(min=1)).tolist()
            tally.sums[name] += sum(means)
            for sample in present if groups else ():
                row = sample if part.chosen is None else int(part.chosen[sample])
                tally.see_group(int(groups[row]), name, means[sample])
    return tally.over(recorder.processes).drifts()


def _coefficients(recorder: PerSampleGradients, change_S: torch.Tensor) -> torch.Tensor:
    """[S], `_coefficients_of` all that was recorded."""
    parts = [_coefficients_of(part, change_S[part.rows], recorder.supervised) for part in recorder.parts]
    return torch.cat(parts) if parts else change_S


def _coefficients_of(part: Recorded, change_S: torch.Tensor, samples: int) -> torch.Tensor:
    """[S], what multiplies each sample's recorded loss gradient in the gradient of the mean drift of so many samples.

    A choice's drift has the derivative p - q along its gap, q the chance before the step; and the gap, that of the
    sample's loss times a number.
    """
    choices = _choices(part, change_S)
    gap_K = choices.gap_S[part.samples_K.cpu()]
    moved_K = torch.sigmoid(choices.logits_K) - torch.sigmoid(choices.logits_K - gap_K)
    mean_S = _by_sample(part, moved_K) / _tokens(part).clamp(min=1)
    return (mean_S * choices.gap_by_change_S / samples).to(change_S)


def _tokens(part: Recorded) -> torch.Tensor:
    """[S], how many tokens of each sample are supervised."""
    return _by_sample(part, torch.ones_like(part.log_probs_K, device="cpu"))


def _precise(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
