"""Generic Task Weighting: eq. 2 by brute force, and what a step's division into pieces must not change."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from equipoise.tasks.loss import step_weights, tasks_of_tokens, tokens_per_task, weighted_sums, weighted_tokens

WEIGHTS = torch.tensor([0.3, 1.9, 0.8], dtype=torch.float64)
TASKS = torch.tensor([1, 0, 1, 2, 0, 2, 1, 0])  # of the samples; task 2 has few tokens
VOCABULARY, LENGTH = 11, 9

labels_and_tasks = st.integers(1, 6).flatmap(
    lambda samples: st.tuples(
        st.lists(
            st.lists(st.sampled_from([-100, 0, 1, 5]), min_size=5, max_size=5), min_size=samples, max_size=samples
        ),
        st.lists(st.integers(0, 3), min_size=samples, max_size=samples),
    )
)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [B, T] with very unequal numbers of supervised tokens."""
    ids = torch.randint(VOCABULARY, (len(TASKS), LENGTH))
    labels = ids.clone()
    for sample, task in enumerate(TASKS.tolist()):
        labels[sample, : LENGTH - [8, 4, 1][task]] = -100
    return ids, labels


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY)).double()


def token_losses(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[K], in the order of `tasks_of_tokens`."""
    targets = labels[:, 1:]
    return cross_entropy(model(ids)[:, :-1][targets != -100], targets[targets != -100], reduction="none")


def gradients(model: nn.Module) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


def step_in_pieces(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], weights: torch.Tensor, sizes: list[int]):
    """A step as a trainer takes it; its loss and gradients."""
    ids, labels = batch
    tokens = sum(
        tokens_per_task(piece, tasks, len(weights)) for piece, tasks in zip(labels.split(sizes), TASKS.split(sizes))
    )
    ready = step_weights(weights, tokens)
    denominator = weighted_tokens(ready, tokens)
    total = 0.0
    for piece, given_labels, tasks in zip(ids.split(sizes), labels.split(sizes), TASKS.split(sizes)):
        sums = weighted_sums(token_losses(model, piece, given_labels), tasks_of_tokens(given_labels, tasks), ready)
        (sums.numerator / denominator).backward()
        total += (sums.numerator / denominator).item()
    return total, gradients(model)


def brute_force(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Eq. 2, token by token, from log-softmaxes."""
    ids, labels = batch
    numerator, denominator = torch.zeros((), dtype=torch.float64), 0.0
    for sample, task in enumerate(TASKS.tolist()):
        log_probabilities = model(ids[sample]).log_softmax(dim=-1)
        for position in range(1, LENGTH):
            token = labels[sample, position].item()
            if token != -100:
                numerator = numerator - weights[task] * log_probabilities[position - 1, token]
                denominator += weights[task]
    return numerator / denominator


# ---------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("sizes", [[8], [2, 2, 2, 2], [1, 3, 4], [1] * 8])
def test_equation_2_and_its_gradients_however_the_step_is_divided(model, batch, sizes):
    expected = brute_force(model, batch, WEIGHTS.tolist())
    expected.backward()
    expected_gradients = gradients(model)
    loss, found = step_in_pieces(model, batch, WEIGHTS, sizes)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(found, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("factor", [7.0, 1e-200, 1e200])
def test_scaling_all_weights_changes_nothing(model, batch, factor):
    loss, found = step_in_pieces(model, batch, WEIGHTS, [3, 5])
    scaled_loss, scaled = step_in_pieces(model, batch, factor * WEIGHTS, [3, 5])
    assert scaled_loss == pytest.approx(loss, rel=1e-14)
    for one, other in zip(found, scaled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-16)


def test_unequal_weights_do_change_the_gradients(model, batch):
    _, found = step_in_pieces(model, batch, WEIGHTS, [8])
    _, equal = step_in_pieces(model, batch, torch.ones(3, dtype=torch.float64), [8])
    assert not torch.allclose(found[0], equal[0], rtol=0.05)


def test_weights_of_1_give_the_ordinary_loss(model, batch):
    ids, labels = batch
    loss, found = step_in_pieces(model, batch, torch.ones(3, dtype=torch.float64), [8])
    expected = cross_entropy(model(ids)[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-15)
    for one, other in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-17)


def test_a_task_that_is_absent_changes_nothing(model, batch):
    ids, labels = batch
    rest = TASKS != 2
    sums = [
        weighted_sums(
            token_losses(model, ids[rest], labels[rest]),
            tasks_of_tokens(labels[rest], TASKS[rest]),
            torch.tensor([0.3, 1.9, weight], dtype=torch.float64),
        )
        for weight in (0.8, 1e9)
    ]
    assert sums[0].numerator.item() == sums[1].numerator.item()
    tokens = sums[0].tokens_N
    assert tokens.tolist() == [3 * 8, 3 * 4, 0]
    assert weighted_tokens(step_weights(WEIGHTS, tokens), tokens).item() == pytest.approx(24 * 0.3 / 1.9 + 12)


def test_sums_by_task_by_hand():
    nll = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = weighted_sums(nll, torch.tensor([2, 0, 2, 0]), torch.tensor([0.5, 100.0, 0.25], dtype=torch.float64))
    assert sums.numerator.item() == 0.25 * 1 + 0.5 * 2 + 0.25 * 4 + 0.5 * 8
    assert sums.losses_N.tolist() == [10.0, 0.0, 5.0]
    assert sums.tokens_N.tolist() == [2, 0, 2]
    assert not sums.losses_N.requires_grad
    assert sums.numerator.dtype == sums.losses_N.dtype == torch.float32
    assert not sums.tokens_N.is_floating_point()
    means = sums.losses_N / sums.tokens_N
    assert means[[0, 2]].tolist() == [5.0, 2.5]
    assert math.isnan(means[1])
    sums.numerator.backward()
    assert nll.grad.tolist() == [0.25, 0.5, 0.25, 0.5]


def test_no_gradient_flows_into_the_weights():
    weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert not weighted_sums(torch.ones(3), torch.tensor([0, 1, 1]), weights).numerator.requires_grad


def test_a_piece_without_tokens_adds_nothing_and_can_be_differentiated():
    nll = torch.ones(0, requires_grad=True)
    sums = weighted_sums(nll, torch.ones(0, dtype=torch.long), WEIGHTS)
    sums.numerator.backward()
    assert (sums.numerator.item(), sums.losses_N.tolist(), sums.tokens_N.tolist()) == (0, [0, 0, 0], [0, 0, 0])


def test_a_token_of_infinite_loss_stays_in_its_task():
    sums = weighted_sums(torch.tensor([math.inf, 1.0]), torch.tensor([0, 1]), WEIGHTS)
    assert sums.losses_N.tolist() == [math.inf, 1.0, 0.0]


# ---------------------------------------------------------------------------------------------- weights of a step


def test_weights_are_divided_by_the_largest_that_is_present():
    found = step_weights(torch.tensor([2.0, 100.0, 0.5], dtype=torch.float64), torch.tensor([3, 0, 1]))
    assert found.tolist() == [1.0, 0.0, 0.25]


def test_a_step_whose_only_tasks_have_next_to_no_weight_still_has_a_loss_in_float32():
    weights = torch.tensor([4.0, 1e-300, 2e-300], dtype=torch.float64)
    tokens = torch.tensor([0, 1, 1])
    ready = step_weights(weights, tokens)
    sums = weighted_sums(torch.tensor([3.0, 6.0]), torch.tensor([1, 2]), ready)
    assert (sums.numerator / weighted_tokens(ready, tokens)).item() == pytest.approx((3 + 2 * 6) / 3)


# ---------------------------------------------------------------------------------------------- counting tokens


def test_a_token_counts_when_its_label_after_the_shift_is_supervised():
    labels = torch.tensor([[5, -100, 7, 8], [-100, -100, -100, 0], [1, 2, 3, 4], [9, -100, -100, -100]])
    tasks = torch.tensor([1, 0, 1, 2])
    assert tokens_per_task(labels, tasks, 4).tolist() == [1, 2 + 3, 0, 0]
    assert tasks_of_tokens(labels, tasks).tolist() == [1, 1, 0, 1, 1, 1]


@given(given=labels_and_tasks)
def test_counts_are_those_of_the_tokens_one_by_one(given):
    labels, tasks = given
    expected = [task for row, task in zip(labels, tasks) for label in row[1:] if label != -100]
    labels_BT, tasks_B = torch.tensor(labels), torch.tensor(tasks)
    assert tasks_of_tokens(labels_BT, tasks_B).tolist() == expected
    counts = tokens_per_task(labels_BT, tasks_B, 4)
    assert counts.tolist() == [expected.count(task) for task in range(4)]
    sums = weighted_sums(torch.ones(len(expected)), tasks_of_tokens(labels_BT, tasks_B), torch.ones(4))
    assert sums.tokens_N.tolist() == counts.tolist()
    assert sums.losses_N.tolist() == counts.tolist()
