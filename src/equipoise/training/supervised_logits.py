"""The LM head at supervised positions alone, while a Trainer trains.

A loss reads the logits of a position only where its next label is supervised. So what enters the head is cut to those
positions, laid out in one row, and the labels with it. The model's own loss (its normalisation, the balancing losses of
experts), or one that the Trainer computes from its outputs, is then what it would be of all logits, up to the order of
additions. `logits_to_keep`, which transformers has for this, keeps whole columns of a batch: where prompts differ in
length, most of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from equipoise.errors import RecipeError
from equipoise.modules.forward import IGNORED, RandomState, replaying
from equipoise.modules.partition import base_model
from equipoise.modules.shards import recover

logger = logging.getLogger(__name__)


def token_mean(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Negative log-likelihood, a mean over the supervised tokens of the whole optimizer step, as a Trainer calls it.

    Args:
        outputs: with `logits` [B, T', V], T' >= T where a model puts image tokens in front.
        labels: [B, T], -100 where nothing is supervised.
        num_items_in_batch: the step's supervised tokens; this batch's when None.
    """
    logits_BTV = outputs.logits[:, -labels.shape[1] :].float()
    targets_BT = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    total = torch.nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (num_items_in_batch if num_items_in_batch is not None else (targets_BT != IGNORED).sum())


class SupervisedPlaces:
    """The N positions of a batch whose next token is supervised, sample by sample.

    Losses shift: the logits of a place meet the label of the next. So a label that none meets stands in front, and a
    position whose logits meet none comes last: what is laid out has N + 1 places.

    Args:
        labels_BT: -100 where nothing is supervised; not yet shifted.

    Attributes:
        rows_N, columns_N: where the positions are.
        labels: [1, N + 1].
    """

    def __init__(self, labels_BT: torch.Tensor):
        self._shape = labels_BT.shape
        self.rows_N, self.columns_N = (labels_BT[:, 1:] != IGNORED).nonzero(as_tuple=True)
        next_N = labels_BT[self.rows_N, self.columns_N + 1]
        self.labels = torch.nn.functional.pad(next_N, (1, 0), value=IGNORED)[None]

    @contextmanager
    def kept(self, head: nn.Module) -> Iterator[None]:
        """Inside, the head is given what it would be given at these positions, [1, N + 1, D]."""
        hook = head.register_forward_pre_hook(lambda _, args: (self._cut(args[0]), *args[1:]))
        try:
            yield
        finally:
            hook.remove()

    def _cut(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        samples, length = self._shape
        if hidden_BTD.dim() != 3 or len(hidden_BTD) != samples or hidden_BTD.shape[1] < length:
            raise RecipeError(
                f"supervised_logits: the LM head was given {tuple(hidden_BTD.shape)} for labels {tuple(self._shape)}; "
                "set it to false for this model"
            )
        hidden_BTD = hidden_BTD[:, -length:]  # image tokens may stand in front
        places = self.rows_N * length + self.columns_N
        places = torch.cat([places, places[-1:] if len(places) else places.new_zeros(1)])
        return hidden_BTD.flatten(0, 1).index_select(0, places)[None]


def head_of(model: nn.Module) -> nn.Module:
    """The LM head of a model for which `may_keep` is true."""
    head: nn.Module = base_model(model).get_output_embeddings()
    return head


def may_keep(trainer: Trainer, losses: tuple[Callable, ...], inputs: Mapping[str, Any]) -> bool:
    """Whether a Trainer's settings and a batch leave room for it; `agree` tells whether the model does.

    Args:
        losses: values of `compute_loss_func` that read logits and labels as `token_mean` does.
    """
    model: Any = trainer.model
    parallel = trainer.accelerator.parallelism_config
    if trainer.label_smoother is not None or trainer.args.use_liger_kernel or trainer.args.n_gpu > 1:
        return False
    if trainer.args.torch_compile or (parallel is not None and parallel.non_data_parallel_size > 1):
        return False
    if {name for name in inputs if "labels" in name or name == "logits_to_keep"} != {"labels"}:
        return False
    if inputs["labels"].dim() != 2:
        return False
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # peft puts tokens in front of the text
    base: Any = base_model(model)
    if not hasattr(base, "get_output_embeddings") or base.get_output_embeddings() is None:
        return False
    return trainer.compute_loss_func is None or trainer.compute_loss_func in losses


def agree(
    model: nn.Module,
    inputs: Mapping[str, Any],
    compute_loss: Callable[[nn.Module, dict[str, Any]], torch.Tensor],
    mixed_precision: str = "no",
) -> bool | None:
    """Whether a batch has the same loss either way, which a model's own loss may prevent by what it does with labels.

    Two forwards without gradients; dropout draws the same masks in both, and nothing of them stays. They are made of
    every batch: where processes train together, the others would wait for a forward that one of them leaves out.

    Args:
        model: as it trains.
        inputs: the batch.
        compute_loss: of the model and a batch.
        mixed_precision: accelerate's.

    Returns:
        None where the batch supervises nothing, so that there is no loss to compare.
    """
    state = RandomState()

    def loss(labels: torch.Tensor, kept: AbstractContextManager[None]) -> float:
        with torch.no_grad(), replaying(model, state), kept:
            return float(compute_loss(model, {**inputs, "labels": labels}))

    places = SupervisedPlaces(inputs["labels"])
    decides = bool(len(places.rows_N))
    whole = loss(inputs["labels"], nullcontext())
    try:
        cut = loss(places.labels, places.kept(head_of(model)))
    except Exception as error:  # whatever a model's own code does with labels that are not laid out as its inputs are
        recover(model)
        if not decides:
            return None
        logger.warning("supervised_logits: off, this model cannot do with fewer logits (%s)", error)
        return False
    if not decides:
        return None
    # Kernels round otherwise for other shapes.
    coarse = mixed_precision != "no" or any(parameter.itemsize < 4 for parameter in model.parameters())
    if math.isclose(cut, whole, rel_tol=1e-2 if coarse else 1e-4, abs_tol=1e-6):
        return True
    logger.warning("supervised_logits: off, this model's loss would be %g and is %g", cut, whole)
    return False
