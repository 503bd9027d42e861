"""Generic Task Weighting inside a Trainer: counts a step's tokens by task, weights its loss, logs what each task did.

The Trainer's loop calls four times a step: `begin_step` with all micro-batches, `loss` for each, `end_step` after the
last. Numbers that concern the whole step are summed over processes, so that every process has the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from equipoise.errors import DataError, RecipeError
from equipoise.recipe import TaskWeighting
from equipoise.tasks.loss import IGNORED, step_weights, tasks_of_tokens, tokens_per_task, weighted_sums, weighted_tokens
from equipoise.tasks.weighters import Weighter, build_weighter

TASK = "task"  # the key or attribute of a sample that names its task
TASK_IDS = "task_ids"
Reduce = Callable[[torch.Tensor], torch.Tensor]


class TaskCollator:
    """Another collator's batch, with the task of each sample beside it as `task_ids` [B].

    Args:
        collator: gets the samples without their `task`.
        names: of the tasks; ids are places here.
    """

    def __init__(self, collator: Callable[[Any], Any], names: Sequence[str]):
        self.collator = collator
        self.names = {name: number for number, name in enumerate(names)}

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """As the other collator's call."""
        # A task that is evaluated and not trained on has no place; its samples' losses are never weighted.
        ids = [self.names.get(task_of(sample), -1) for sample in samples]
        bare = [{k: v for k, v in s.items() if k != TASK} if isinstance(s, Mapping) else s for s in samples]
        return {**self.collator(bare), TASK_IDS: torch.tensor(ids)}


def task_of(sample: Any) -> str:
    """The task of a sample: its key or attribute `task`.

    Raises:
        DataError: it has none.
    """
    task = sample.get(TASK) if isinstance(sample, Mapping) else getattr(sample, TASK, None)
    if not isinstance(task, str):
        raise DataError(
            f"a sample has no task (found {task!r:.60}); each needs a key or attribute `task` that names it"
        )
    return task


def tasks_of(dataset: Any) -> list[str]:
    """The names of a training set's tasks, in a fixed order.

    Args:
        dataset: one of ours, one of `datasets` with a column `task`, or a sequence of samples.

    Raises:
        DataError: samples without tasks.
    """
    if hasattr(dataset, "parts"):
        return list(dataset.parts)
    if TASK in (getattr(dataset, "column_names", None) or ()):
        return sorted(dataset.unique(TASK))
    return sorted({task_of(dataset[number]) for number in range(len(dataset))})


class TaskBalance:
    """Task weights along a run.

    Args:
        settings: how.
        names: N tasks.
        total_steps: optimizer steps of the run, where known.

    Raises:
        RecipeError: settings that cannot be.
    """

    def __init__(self, settings: TaskWeighting, names: Sequence[str], total_steps: int | None):
        self.names = tuple(names)
        self.weighter = build(settings, names, total_steps)
        count = len(self.names)
        self._weights_N = torch.ones(count, dtype=torch.float64)
        self._applied_N = torch.ones(count, dtype=torch.float64)
        self._tokens_N = torch.zeros(count, dtype=torch.long)
        self._losses_N = torch.zeros(count, dtype=torch.float64)

    def begin_step(self, batches: Sequence[Mapping[str, Any]], reduce: Reduce) -> torch.Tensor:
        """Count the step's tokens and settle its weights.

        Args:
            batches: all micro-batches of this process, with `labels` and `task_ids`.
            reduce: sums a tensor over processes.

        Returns:
            The loss's denominator, sum_i lambda_i T_i over all processes (eq. 2), a float64 scalar.
        """
        counts = [tokens_per_task(batch["labels"], batch[TASK_IDS], len(self.names)) for batch in batches]
        self._tokens_N = reduce(torch.stack(counts).sum(dim=0)).cpu()
        self._weights_N = torch.as_tensor(self.weighter.weights(self._tokens_N.numpy()))
        self._losses_N = torch.zeros(len(self.names), dtype=torch.float64)
        if not self._tokens_N.any():  # nothing is supervised: the numerator is 0 as well
            return torch.ones((), dtype=torch.float64)
        self._applied_N = step_weights(self._weights_N, self._tokens_N)
        return weighted_tokens(self._applied_N, self._tokens_N)

    def loss(
        self, logits_BTV: torch.Tensor, labels_BT: torch.Tensor, tasks_B: torch.Tensor, denominator: torch.Tensor
    ) -> torch.Tensor:
        """This micro-batch's share of the step's loss.

        Args:
            logits_BTV: may begin with positions for which there are no labels.
            labels_BT: -100 where nothing is supervised; not yet shifted.
            tasks_B: task ids.
            denominator: what `begin_step` gave.
        """
        logits_BTV, targets_BT = logits_BTV[:, -labels_BT.shape[1] : -1], labels_BT[:, 1:]
        mask_BT = targets_BT != IGNORED
        logits_KV = logits_BTV[mask_BT]
        logits_KV = logits_KV if logits_KV.dtype == torch.float64 else logits_KV.float()
        nll_K = torch.nn.functional.cross_entropy(logits_KV, targets_BT[mask_BT], reduction="none")
        sums = weighted_sums(nll_K, tasks_of_tokens(labels_BT, tasks_B), self._applied_N.to(labels_BT.device))
        self._losses_N = self._losses_N.to(sums.losses_N.device) + sums.losses_N
        return sums.numerator / denominator.to(sums.numerator)

    def end_step(self, reduce: Reduce) -> dict[str, float]:
        """Tell the weighter how the step went.

        Returns:
            What is worth logging: by task its mean loss a token where it was present, its tokens and its weight.
        """
        losses_N = reduce(self._losses_N).cpu() / self._tokens_N
        self.weighter.update(losses_N.numpy())
        record = {}
        for number, name in enumerate(self.names):
            loss = losses_N[number].item()
            if math.isfinite(loss):
                record[f"task_loss/{name}"] = loss
            record[f"task_tokens/{name}"] = int(self._tokens_N[number])
            record[f"task_weight/{name}"] = self._weights_N[number].item()
        return record

    def named(self, record: Mapping[str, float]) -> dict[str, float]:
        """A coordinator's record with tasks for its groups' numbers: `group_kappa/0` is `task_kappa/NAME`."""
        names = {f"group_kappa/{number}": f"task_kappa/{name}" for number, name in enumerate(self.names)}
        return {names.get(key, key): value for key, value in record.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on bit for bit."""
        return {"names": list(self.names), "weighter": self.weighter.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            RecipeError: it is of other tasks.
        """
        if tuple(state["names"]) != self.names:
            raise RecipeError(
                f"the checkpoint weights tasks {', '.join(state['names'])}; now they are {', '.join(self.names)}"
            )
        self.weighter.load_state_dict(state["weighter"])


def build(settings: TaskWeighting, names: Sequence[str], total_steps: int | None = None) -> Weighter:
    """The weighter that the settings name."""
    return build_weighter(
        settings.weighter,
        names,
        weights=settings.weights,
        seed=settings.seed,
        window=settings.window,
        temperature=settings.temperature,
        total_steps=total_steps,
    )
