"""CoMMIT's regulariser (eq. 10-11): each module ascends the gradient of its own drift.

The drifts and their gradients come from `equipoise.modules.drift.look_back`; here they enter the gradients that the
optimizer will see: grad L - weight * grad d, per module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from equipoise.modules.partition import Partition, norm_of
from equipoise.modules.shards import local
from equipoise.modules.snapshot import Values

#: Longest gradient that is added; beyond, float32 would not hold its numbers.
LARGEST = 1e30


def apply_regulariser(
    division: Partition,
    drift_gradients: dict[str, Values],
    weight: float = 1.0,
    cap: float | None = 1.0,
    loss_scale: float = 1.0,
    loss_norms: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Subtract each module's drift gradient from its loss gradient, in place.

    Ascent on a KL is unbounded, so a drift gradient longer than `cap` times the loss gradient is shortened to that.

    Args:
        division: the modules; their parameters' `grad` holds the whole step's loss gradient, not yet clipped.
        drift_gradients: for each module, the gradient of its drift by parameter name.
        weight: 1 in the paper.
        cap: largest ||grad d|| / ||grad L|| per module; None for no cap, as in the paper.
        loss_scale: what a gradient scaler multiplied the loss by; drift gradients are not scaled yet.
        loss_norms: of the modules' gradients as they stand, where they are known.

    Returns:
        ||grad d|| of each module before the cap. A module whose gradient is not finite, or would not be, is left alone.
    """
    norms = {}
    for name, module in division.trainable.items():
        gradients = drift_gradients.get(name, {})
        if not gradients:
            continue
        norms[name] = norm_of(gradients.values())
        loss_norm = loss_norms[name] if loss_norms is not None else module.grad_norm()
        if not (math.isfinite(norms[name]) and math.isfinite(loss_norm)):
            continue
        scale = loss_scale
        if cap is not None and norms[name] > 0:
            scale = min(loss_scale, cap * loss_norm / norms[name])
        if not weight * scale * norms[name] < LARGEST:
            continue
        pairs = [(module.trainable[of].grad, gradient) for of, gradient in gradients.items()]
        known = [(local(grad), local(gradient).to(grad.dtype)) for grad, gradient in pairs if grad is not None]
        if known:
            torch._foreach_add_(*map(list, zip(*known, strict=True)), alpha=-weight * scale)
    return norms
