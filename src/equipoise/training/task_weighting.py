"""Generic Task Weighting inside a Trainer: counts a step's tokens by task, weights its loss, logs what each task did.

The Trainer's loop calls `begin_step` with all micro-batches of a step; for each, inside `training_on`, `loss` (or
`weigh`, where a fused head gives no logits); `end_step` after the last. Numbers that concern the whole step are summed
over processes, so that every process has the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer

from equipoise.errors import DataError, RecipeError
from equipoise.recipe import TaskWeighting
from equipoise.tasks.loss import IGNORED, step_weights, tasks_of_tokens, tokens_per_task, weighted_sums, weighted_tokens
from equipoise.tasks.weighters import Weighter, build_weighter
from equipoise.training.fused_head import is_sft

TASK = "task"  # the key or attribute of a sample that names its task
TASK_IDS = "task_ids"
Reduce = Callable[[torch.Tensor], torch.Tensor]


class TaskCollator:
    """Another collator's batch, with its tasks beside it as `task_ids`: [B], or [1, T] where samples share one row.

    Args:
        collator: gets the samples without their `task`.
        names: of the tasks; ids are places here.
    """

    def __init__(self, collator: Callable[[Any], Any], names: Sequence[str]):
        self.collator = collator
        self.names = {name: number for number, name in enumerate(names)}

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """As the other collator's call.

        Raises:
            DataError: rows of which it cannot be told which samples they are.
        """
        # What is evaluated and not trained on may have another task or none; its losses are never weighted.
        ids_B = torch.tensor([self.names.get(_task(sample), -1) for sample in samples])
        bare = [{k: v for k, v in s.items() if k != TASK} if isinstance(s, Mapping) else s for s in samples]
        batch = self.collator(bare)
        labels = batch.get("labels")
        if labels is None or len(labels) == len(samples):
            return {**batch, TASK_IDS: ids_B}
        return {**batch, TASK_IDS: _along_the_row(ids_B, bare, labels)}


def _along_the_row(ids_B: torch.Tensor, samples: Sequence[Any], labels: torch.Tensor) -> torch.Tensor:
    """[1, T]: the task of each token where a collator without padding laid all samples end to end; -1 behind them."""
    lengths = [len(s["input_ids"]) for s in samples if isinstance(s, Mapping) and "input_ids" in s]
    if len(labels) != 1 or len(lengths) != len(samples) or sum(lengths) > labels.shape[1]:
        raise DataError(
            f"task weights: the collator made {len(labels)} rows {tuple(labels.shape)} of {len(samples)} samples; "
            "allowed are a row for each, or all of them end to end in one"
        )
    ids_1T = torch.full_like(labels, -1)
    ids_1T[0, : sum(lengths)] = ids_B.repeat_interleave(torch.tensor(lengths))
    return ids_1T


def _task(sample: Any) -> Any:
    return sample.get(TASK) if isinstance(sample, Mapping) else getattr(sample, TASK, None)


def task_of(sample: Any) -> str:
    """The task of a sample: its key or attribute `task`.

    Raises:
        DataError: it has none.
    """
    return _named(_task(sample))


def _named(task: Any) -> str:
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
        DataError: samples without tasks, or that are streamed.
    """
    if hasattr(dataset, "parts"):
        return list(dataset.parts)
    if not hasattr(dataset, "__len__"):
        raise DataError(
            f"found a streamed training set ({type(dataset).__name__}); all its tasks must be known before training: "
            "give one that has a length"
        )
    if TASK in (getattr(dataset, "column_names", None) or ()):
        return sorted(_named(task) for task in dataset.unique(TASK))
    return sorted({task_of(dataset[number]) for number in range(len(dataset))})


def require_weightable(trainer: Trainer) -> None:
    """Check that a Trainer's settings leave tasks to weight.

    Raises:
        RecipeError: they do not.
    """
    parallel = trainer.accelerator.parallelism_config
    if parallel is not None and parallel.non_data_parallel_size > 1:
        raise RecipeError(
            f"found {parallel.non_data_parallel_size} processes to a batch (tensor, context or sequence parallelism); "
            "task weights are counted over processes that each have batches of their own"
        )
    settings: Any = trainer.args
    if is_sft(trainer) and settings.packing:
        raise RecipeError(
            "found packing=True, which puts samples of several tasks into one row and drops their column `task`; "
            "task weights need packing=False (padding_free=True is allowed)"
        )
    if is_sft(trainer) and settings.loss_type != "nll":
        raise RecipeError(
            f"found loss_type={settings.loss_type!r}; tasks are weighted in the negative log-likelihood: "
            "set loss_type='nll'"
        )


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
        self._tasks: torch.Tensor | None = None
        self._used = False

    @property
    def trains(self) -> bool:
        """Whether a loss that is computed now trains."""
        return self._tasks is not None and torch.is_grad_enabled()

    @property
    def tokens(self) -> torch.Tensor:
        """[N], the supervised tokens of the step by task, over all processes."""
        return self._tokens_N

    def begin_step(self, batches: Sequence[Mapping[str, Any]], reduce: Reduce) -> torch.Tensor:
        """Count the step's tokens and settle its weights.

        Args:
            batches: all micro-batches of this process, with `labels` and `task_ids`.
            reduce: sums a tensor over processes.

        Returns:
            The loss's denominator, sum_i lambda_i T_i over all processes (eq. 2), a float64 scalar.

        Raises:
            DataError: a batch without labels, or a sample without a task.
        """
        counts = [self._count(batch) for batch in batches]
        tokens = reduce(torch.stack(counts).sum(dim=0)).cpu()
        self._tokens_N = tokens[:-1]
        if tokens[-1]:
            raise DataError(
                f"a sample has no task, or one that training began without; allowed: {', '.join(self.names)}"
            )
        self._weights_N = torch.as_tensor(self.weighter.weights(self._tokens_N.numpy()))
        self._losses_N = torch.zeros(len(self.names), dtype=torch.float64)
        if not self._tokens_N.any():  # nothing is supervised: the numerator is 0 as well
            return torch.ones((), dtype=torch.float64)
        self._applied_N = step_weights(self._weights_N, self._tokens_N)
        return weighted_tokens(self._applied_N, self._tokens_N)

    @contextmanager
    def training_on(self, tasks: torch.Tensor | None) -> Iterator[None]:
        """Inside, a Trainer trains on one micro-batch, and so calls `loss` or `weigh`.

        Args:
            tasks: its task ids, [B]; or [B, T] where a row holds several samples.

        Raises:
            RecipeError: it called neither.
        """
        self._tasks, self._used = tasks, False
        try:
            yield
        finally:
            self._tasks = None
        if not self._used:
            raise RecipeError(
                "this Trainer's compute_loss uses no compute_loss_func, so that task weights would do nothing; allowed "
                "are the compute_loss of transformers' Trainer and, from trl 1.16 on, of SFTTrainer"
            )

    def lay_out(self, rows_N: torch.Tensor, columns_N: torch.Tensor) -> None:
        """This micro-batch's labels come in one row from now on, [1, N + 1]; the first supervises nothing.

        Args:
            rows_N, columns_N: the samples and positions whose next labels follow.
        """
        if self._tasks is not None:
            by_sample = self._tasks.dim() == 1
            tasks_N = self._tasks[rows_N] if by_sample else self._tasks[rows_N, columns_N + 1]
            self._tasks = torch.nn.functional.pad(tasks_N, (1, 0), value=-1)[None]

    def loss(self, logits_BTV: torch.Tensor, labels_BT: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
        """This micro-batch's share of the step's loss.

        Args:
            logits_BTV: may begin with positions for which there are no labels.
            labels_BT: -100 where nothing is supervised; not yet shifted.
            denominator: what `begin_step` gave.
        """
        logits_BTV, targets_BT = logits_BTV[:, -labels_BT.shape[1] : -1], labels_BT[:, 1:]
        mask_BT = targets_BT != IGNORED
        logits_KV = logits_BTV[mask_BT]
        logits_KV = logits_KV if logits_KV.dtype == torch.float64 else logits_KV.float()
        nll_K = torch.nn.functional.cross_entropy(logits_KV, targets_BT[mask_BT], reduction="none")
        numerator, _ = self._add(nll_K, labels_BT)
        return numerator / denominator.to(numerator)

    def weigh(self, log_probs_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
        """This micro-batch's log-probabilities, multiplied by the weights of their tasks.

        Their negated sum, over the denominator that `begin_step` gave, is what `loss` gives.

        Args:
            log_probs_BT: [B, T-1], of each next label; may begin with positions for which there are no labels.
            labels_BT: -100 where nothing is supervised; not yet shifted.
        """
        mask_BT = labels_BT[:, 1:] != IGNORED
        log_probs_BT = log_probs_BT[:, -mask_BT.shape[1] :]
        _, tasks_K = self._add(-log_probs_BT[mask_BT], labels_BT)
        weights_BT = torch.zeros_like(log_probs_BT)
        weights_BT[mask_BT] = self._applied_N.to(log_probs_BT)[tasks_K]
        return weights_BT * log_probs_BT

    def _add(self, nll_K: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add to the step's losses by task; returns their weighted sum, and the task of each."""
        assert self._tasks is not None
        self._used = True
        tasks_K = tasks_of_tokens(labels_BT, self._tasks)
        sums = weighted_sums(nll_K, tasks_K, self._applied_N.to(labels_BT.device))
        self._losses_N = self._losses_N.to(sums.losses_N.device) + sums.losses_N
        return sums.numerator, tasks_K

    def _count(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """[N + 1]: T_i of a micro-batch, and last the tokens of samples whose task is none of these."""
        if "labels" not in batch or TASK_IDS not in batch:
            raise DataError(f"task weights need batches with labels and {TASK_IDS}; found {', '.join(batch)}")
        tasks, none = batch[TASK_IDS], len(self.names)
        return tokens_per_task(batch["labels"], torch.where(tasks < 0, none, tasks), none + 1)

    def end_step(self, reduce: Reduce, made: bool = True) -> dict[str, float]:
        """Tell the weighter how the step went.

        Args:
            reduce: sums a tensor over processes.
            made: whether the optimizer made it; of one that it did not, no loss is taken note of.

        Returns:
            What is worth logging: by task its mean loss a token where it was present, its tokens and its weight.
        """
        losses_N = reduce(self._losses_N).cpu() / self._tokens_N
        self.weighter.update((losses_N if made else torch.full_like(losses_N, math.nan)).numpy())
        record = {}
        for number, name in enumerate(self.names):
            loss = losses_N[number].item()
            if self._tokens_N[number]:
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
