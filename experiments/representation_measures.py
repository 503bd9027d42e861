"""What a set of features tells: linear probes and linear CKA. No models, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

L2 = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Split:
    """Features [N, D] and each sample's class."""

    features: torch.Tensor
    labels: Sequence[str]


def fit(features_ND: torch.Tensor, classes_N: torch.Tensor, count: int, l2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression: minimises the mean cross entropy plus l2 / 2 times the squared weights.

    The bias is not penalised. The problem is convex; it is solved by L-BFGS in float64.

    Returns:
        Weights [count, D] and bias [count].
    """
    features = features_ND.double()
    weights = torch.zeros(count, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=300, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(features, weights, bias), classes_N) + l2 / 2 * weights.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach(), bias.detach()


def probe(train: Split, validation: Split, test: Split, l2s: Sequence[float] = L2) -> dict[str, float]:
    """How well a linear classifier of the features does on the test part.

    Features are standardised by the training part. The penalty is the one with the lowest cross entropy on the
    validation part. A sample of a class that the training part lacks counts as wrong, and chooses no penalty.

    Returns:
        `accuracy` on the test part, the chosen `l2`, and `validation`, the accuracy there.
    """
    names = sorted(set(train.labels))
    numbers = {name: number for number, name in enumerate(names)}
    mean, deviation = train.features.double().mean(dim=0), train.features.double().std(dim=0).clamp_min(1e-8)

    def scaled(split: Split) -> torch.Tensor:
        return (split.features.double() - mean) / deviation

    def numbered(split: Split) -> torch.Tensor:
        return torch.tensor([numbers.get(label, -1) for label in split.labels])

    fitted = {}
    for l2 in l2s:
        weights, bias = fit(scaled(train), numbered(train), len(names), l2)
        classes = numbered(validation)
        known = classes >= 0
        fitted[l2] = (
            F.cross_entropy(F.linear(scaled(validation)[known], weights, bias), classes[known]),
            weights,
            bias,
        )
    best = min(fitted, key=lambda l2: float(fitted[l2][0]))
    _, weights, bias = fitted[best]

    def accuracy(split: Split) -> float:
        return float((F.linear(scaled(split), weights, bias).argmax(dim=1) == numbered(split)).double().mean())

    return {"accuracy": accuracy(test), "l2": best, "validation": accuracy(validation)}


def cka(one_ND: torch.Tensor, other_NE: torch.Tensor) -> float:
    """Linear CKA of two features of the same samples (Kornblith et al., ICML 2019), from 0 to 1.

    It is biased towards 1 where there are fewer samples than dimensions: unrelated noise of D dimensions has about
    D / (N + D). See `debiased_cka`.
    """
    one, other = (_centred(features) for features in (one_ND, other_NE))
    return float((one * other).sum() / (one.norm() * other.norm()))


def debiased_cka(one_ND: torch.Tensor, other_NE: torch.Tensor) -> float:
    """Linear CKA by unbiased estimates of HSIC (Song et al. 2012, as Nguyen et al., ICLR 2021 use it).

    Unrelated features have 0 on average, whatever their dimensions; it may be slightly negative. Four samples or more.
    """
    one, other = (_gram(features).fill_diagonal_(0) for features in (one_ND, other_NE))
    return _hsic(one, other) / (_hsic(one, one) * _hsic(other, other)) ** 0.5


def _gram(features_ND: torch.Tensor) -> torch.Tensor:
    # Taking the mean away changes neither estimate, and keeps large common parts out of the rounding.
    features = features_ND.double() - features_ND.double().mean(dim=0)
    return features @ features.T


def _centred(features_ND: torch.Tensor) -> torch.Tensor:
    return _gram(features_ND)  # of centred features it is centred


def _hsic(one: torch.Tensor, other: torch.Tensor) -> float:
    """Unbiased, of Gram matrices whose diagonals are zero."""
    n = len(one)
    both = (one * other).sum() + one.sum() * other.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * one.sum(0) @ other.sum(0)
    return float(both / (n * (n - 3)))
