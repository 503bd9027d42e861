r"""Generic Task Weighting (CoTBal, eq. 2): a mean over the tokens of an optimizer step in which tasks have weights.

$$ L = \frac{\sum_i \lambda_i \, \text{NLL}_i}{\sum_i \lambda_i T_i} $$

$\text{NLL}_i$ is the sum of the negative log-likelihoods of task i's tokens and $T_i$ their number, both over **all**
micro-batches and ranks of the step. So that a step cut into pieces has the gradients of the whole: count the tokens of
all pieces first (`tokens_per_task`, summed over ranks), ask for the weights (`step_weights`) and the denominator
(`weighted_tokens`), and divide each piece's `weighted_sums(...).numerator` by that one denominator. Where ranks'
gradients are averaged and not added, as DDP does, multiply by their number.

Names end in their shapes: B samples, T positions, K supervised tokens, N tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

IGNORED = -100


class WeightedSums(NamedTuple):
    """Sums over some of a step's tokens; those of the step are the sums of these over its pieces.

    Attributes:
        numerator: sum_i lambda_i NLL_i, a scalar with its gradient.
        losses_N: NLL_i, without gradient. Summed over the step, losses_N / tokens_N are the mean losses that weighters
            take, nan where a task is absent.
        tokens_N: T_i, integers.
    """

    numerator: torch.Tensor
    losses_N: torch.Tensor
    tokens_N: torch.Tensor


def weighted_sums(nll_K: torch.Tensor, tasks_K: torch.Tensor, weights_N: torch.Tensor) -> WeightedSums:
    """Sum the losses of some tokens, by task and weighted.

    Args:
        nll_K: negative log-likelihood of each supervised token; K may be 0.
        tasks_K: the task of each, integers below N.
        weights_N: lambda; no gradient flows into it.
    """
    weights_K = weights_N.detach().to(nll_K)[tasks_K]
    of_task_KN = tasks_K[:, None] == torch.arange(len(weights_N), device=tasks_K.device)
    # Masked sums and not index_add, whose order of additions is not fixed on GPUs: the weighters act on these.
    losses_N = torch.where(of_task_KN, nll_K.detach()[:, None], 0.0).sum(dim=0)
    return WeightedSums((weights_K * nll_K).sum(), losses_N, of_task_KN.sum(dim=0))


def step_weights(weights_N: torch.Tensor, tokens_N: torch.Tensor) -> torch.Tensor:
    """The weights of one step as the loss takes them: divided by the largest among the tasks that are present.

    Eq. 2 does not see a common factor; float32 would, where all tasks of a step have weights that it rounds to 0.

    Args:
        weights_N: lambda, positive, in float64.
        tokens_N: T_i of the whole step; not all 0.

    Returns:
        [N]; 0 for tasks that are absent.
    """
    present_N = torch.where(tokens_N > 0, weights_N, 0.0)
    return present_N / present_N.max()


def weighted_tokens(weights_N: torch.Tensor, tokens_N: torch.Tensor) -> torch.Tensor:
    """The denominator of eq. 2, sum_i lambda_i T_i, a scalar.

    Args:
        weights_N: lambda, the same as in the numerators.
        tokens_N: T_i of the whole step.
    """
    return (weights_N * tokens_N).sum()


def tasks_of_tokens(labels_BT: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
    """The task of each supervised token, [K], sample by sample in the order of positions.

    A token is supervised when its label after the causal shift is not -100: the first label of a sample is never
    predicted.

    Args:
        labels_BT: -100 where nothing is supervised; not yet shifted.
        tasks: the task of each sample, [B]; or of each token, [B, T], where a row holds several samples.
    """
    mask_BT = labels_BT[:, 1:] != IGNORED
    tasks_BT = tasks[:, None].expand_as(mask_BT) if tasks.dim() == 1 else tasks[:, 1:]
    return tasks_BT[mask_BT]


def tokens_per_task(labels_BT: torch.Tensor, tasks: torch.Tensor, count: int) -> torch.Tensor:
    """T_i of a batch: its supervised tokens by task, [N] integers.

    Args:
        labels_BT, tasks: as for `tasks_of_tokens`.
        count: N.
    """
    tasks_K = tasks_of_tokens(labels_BT, tasks)
    return (tasks_K[:, None] == torch.arange(count, device=tasks_K.device)).sum(dim=0)
