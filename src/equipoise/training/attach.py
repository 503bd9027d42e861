"""attach(): the overrides of `BalancedTrainer` for a Trainer that somebody else built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from transformers import Trainer

from equipoise.errors import PartitionError
from equipoise.recipe import Coordination, TaskWeighting
from equipoise.training.fast_paths import fast_paths
from equipoise.training.trainer import BalanceMixin

AnyTrainer = TypeVar("AnyTrainer", bound=Trainer)


def attach(
    trainer: AnyTrainer,
    coordination: Coordination | None = None,
    *,
    modules: Mapping[str, str] | None = None,
    learning_rates: Mapping[str, float] | None = None,
    tasks: TaskWeighting | None = None,
    supervised_logits: bool = True,
    feature_cache: int | None = 0,
    feature_folder: Path | None = None,
    fused_lora: bool = True,
    onednn: bool = True,
) -> AnyTrainer:
    """Balance a Trainer that already exists (transformers' own, trl's SFTTrainer, yours), before its `train`.

    The object keeps its state and its class's behaviour; the overrides of `BalancedTrainer` are laid over its class.

    With `tasks`, its training set names each sample's task in a column (key, attribute) `task`, which its collator does
    not see: `Dataset.from_list([{"prompt": ..., "completion": ..., "task": "vqa"}, ...])`. An SFTTrainer keeps its
    fused head, completion masks, `padding_free` and MoE loss; `packing`, `loss_type="dft"`, label smoothing and a
    `compute_loss_func` are refused. What is evaluated needs no task and is not weighted.

    Args:
        trainer: not yet trained.
        coordination, modules, learning_rates, tasks: as for `BalancedTrainer`.
        supervised_logits: as there; a Trainer with a `compute_loss` of its own keeps it as it is.
        feature_cache, feature_folder: as there; none by default.
        fused_lora, onednn: as there.

    Returns:
        The same object.

    Raises:
        PartitionError: a model with nothing to balance.
        DataError: `tasks`, and samples that name none.
        RecipeError: `tasks`, and settings under which they cannot be weighted.
    """
    if isinstance(trainer, BalanceMixin):
        raise PartitionError("this Trainer is already balanced; attach() once")
    cls = type(trainer)
    trainer.__class__ = type(f"Balanced{cls.__name__}", (BalanceMixin, cls), {})
    assert isinstance(trainer, BalanceMixin)
    try:
        trainer._begin_balance(
            coordination or Coordination(), modules, learning_rates, None, tasks,
            supervised_logits, fast_paths(trainer, feature_cache, feature_folder, fused_lora, onednn),
        )  # fmt: skip
    except BaseException:
        trainer.__class__ = cls  # type: ignore[assignment]
        raise
    return trainer
