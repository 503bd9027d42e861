"""The paper's theory, evaluated along a run; nothing here is assumed to hold.

The paper proves its bounds in a metric space, and KL is no metric, so each inequality is computed and its outcome
logged. `equipoise.report` shows the share of steps on which it holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from equipoise.modules.partition import LLM
from equipoise.modules.tally import Drifts


def convergence_factor(kappa: float, previous: float | None) -> float | None:
    """lambda_t of Theorem A.3, from kappa~_t and kappa~_{t-1}.

    (kappa~_t + 1) / (kappa~_{t-1} + 1) where kappa~_t > 1, (1/kappa~_t + 1) / (1/kappa~_{t-1} + 1) where it is below.
    The paper claims lambda > 1 throughout training. It cannot: that would let the imbalance grow for ever; and its
    eq. 14 and eq. 27 disagree on where lambda stands in the bound.

    Returns:
        lambda_t; None before the second measurement, and at kappa~_t = 1, where the paper defines none.
    """
    if previous is None or kappa == 1:
        return None
    if kappa < 1:
        kappa, previous = 1 / kappa, 1 / previous
    return (kappa + 1) / (previous + 1)


def learning_steps(drifts: Drifts) -> dict[str, float]:
    """H of each module (eq. 7): how large the logits are after its update alone, for the input it works on.

    H_t^S = ||logits(P_{X_t, S_{t+1}})|| / (||I^X|| + ||S_t(I^S)||) for a feature encoder, with the prompt's text
    embeddings for I^X, and H_t^X = ||logits(P_{X_{t+1}, S_t})|| / ||I^S|| for the LLM, with the raw modality input.
    Frobenius norms over the measured samples and, for logits, the supervised positions. Empty where the model hides
    its embeddings.
    """
    terms = drifts.theory
    if terms is None or terms.inputs is None:
        return {}
    for_encoder = math.sqrt(terms.inputs.text) + math.sqrt(terms.inputs.encoded)
    for_llm = math.sqrt(terms.inputs.raw)
    sizes = {name: for_llm if name == LLM else for_encoder for name in terms.logits}
    return {name: math.sqrt(square) / sizes[name] for name, square in terms.logits.items() if sizes[name] > 0}


def gradient_bounds(drifts: Drifts, reference: str) -> dict[str, float]:
    """Right-hand sides of Theorem 4.2 (eq. 6): (kappa+1) H^S for the LLM, (1/kappa+1) H^X for the reference encoder."""
    steps = learning_steps(drifts)
    if LLM not in steps or reference not in steps:
        return {}
    kappa = drifts.by_module[LLM] / drifts.by_module[reference]
    return {LLM: (kappa + 1) * steps[reference], reference: (1 / kappa + 1) * steps[LLM]}


def report(
    drifts: Drifts, reference: str, grad_norms: Mapping[str, float], gamma: float
) -> tuple[dict[str, float], float]:
    """Flatten one measurement's theory into log entries.

    Args:
        drifts: a measurement with theory terms.
        reference: the module S.
        grad_norms: ||G_t|| of each module's loss gradient.
        gamma: the largest |L_t - L_{t+1}| / d(P_{t+1} || P_t) so far, the smallest gamma that eq. 15 allows.

    Returns:
        Entries named `theory/...` and the new gamma. Inequalities are logged as 1 where they hold, 0 where not.
    """
    terms = drifts.theory
    if terms is None:
        return {}, gamma
    entries = {f"theory/H/{name}": value for name, value in learning_steps(drifts).items()}
    for name, bound in gradient_bounds(drifts, reference).items():
        entries[f"theory/gradient_bound/{name}"] = bound
        entries[f"theory/gradient_bound_holds/{name}"] = float(grad_norms[name] <= bound)
    if terms.reversed_joint > drifts.floor:
        ratio = abs(terms.loss_before - terms.loss_after) / terms.reversed_joint
        gamma = max(gamma, ratio) if math.isfinite(ratio) else gamma  # the largest so far would be that for ever
        entries["theory/lipschitz_ratio"] = ratio
        entries["theory/lipschitz_gamma"] = gamma
        separate = sum(terms.reversed_by_module.values())
        entries["theory/joint_drift"] = terms.reversed_joint
        entries["theory/triangle_holds"] = float(terms.reversed_joint <= separate)
    return entries, gamma
