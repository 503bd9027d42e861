"""A training batch cut down to its supervised positions, so that the LM head runs on those alone.

A loss reads the logits of a position only where its next label is supervised. `shortened` gives a model
`logits_to_keep` and the labels that belong to those positions; the model's own loss (its normalisation, the balancing
losses of experts), or one that the Trainer computes from its outputs, is then what it would be of all logits, up to the
order of additions.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.loss.loss_utils import ForCausalLMLoss

from equipoise.modules.forward import IGNORED, keeps_logits
from equipoise.modules.partition import base_model


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


def shortened(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with `logits_to_keep` [K + 1] and labels [B, K + 1] for K positions that some row supervises.

    Losses shift: the logits of a place meet the label of the next. So a label that none meets stands in front, and a
    position whose logits meet none comes last.

    Args:
        inputs: with `labels` [B, T], -100 where nothing is supervised; not yet shifted.
    """
    labels_BT = inputs["labels"]
    positions_K = (labels_BT[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(-1)
    last = positions_K[-1:] if len(positions_K) else positions_K.new_zeros(1)
    labels_BK = torch.nn.functional.pad(labels_BT[:, positions_K + 1], (1, 0), value=IGNORED)
    return {**inputs, "labels": labels_BK, "logits_to_keep": torch.cat([positions_K, last])}


def can_shorten(trainer: Trainer, losses: tuple[Callable, ...], inputs: Mapping[str, Any]) -> bool:
    """Whether `trainer` trains on `shortened(inputs)` as it does on `inputs`.

    Args:
        losses: values of `compute_loss_func` that read logits and labels as `token_mean` does.
    """
    model: Any = trainer.model
    parallel = trainer.accelerator.parallelism_config
    if trainer.label_smoother is not None or trainer.args.use_liger_kernel or trainer.args.n_gpu > 1:
        return False
    if parallel is not None and parallel.non_data_parallel_size > 1:
        return False
    if {name for name in inputs if "labels" in name or name == "logits_to_keep"} != {"labels"}:
        return False
    if inputs["labels"].dim() != 2 or not keeps_logits(model):
        return False
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # peft puts tokens in front of the text
    if trainer.compute_loss_func is None:
        return has_usual_loss(model)
    return trainer.compute_loss_func in losses


def has_usual_loss(model: nn.Module) -> bool:
    """Whether the model's own loss is transformers' causal one, and its forward does nothing else with labels."""
    base = base_model(model)
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        return False
    cls: type = type(base)
    return getattr(base, "loss_function", None) is ForCausalLMLoss and _only_scores(cls, "forward", "labels")


@lru_cache(maxsize=64)
def _only_scores(cls: type, method: str, name: str, behind: type | None = None) -> bool:
    """Whether a method uses its argument for nothing but `self.loss_function`, or compares it with None, or hands it
    on to a method of which the same is true.

    Args:
        behind: the method is looked for in the classes behind this one, as by `super()`.
    """
    order = cls.__mro__[cls.__mro__.index(behind) + 1 if behind is not None else 0 :]
    owner = next((parent for parent in order if method in vars(parent)), None)
    if owner is None:
        return False
    try:
        code = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(vars(owner)[method]))))
    except (OSError, TypeError, SyntaxError):  # no source to read, or none of a function
        return False

    def may_take(called: ast.expr, argument: int | str) -> bool:
        if not isinstance(called, ast.Attribute) or ast.unparse(called.value) not in ("self", "super()"):
            return False
        if called.attr == "loss_function":
            return True
        taker = getattr(cls, called.attr, None)
        if not inspect.isfunction(taker):
            return False
        if isinstance(argument, int):
            names = list(inspect.signature(taker).parameters)[1:]  # after self
            if argument >= len(names):
                return False
            argument = names[argument]
        return _only_scores(cls, called.attr, argument, None if ast.unparse(called.value) == "self" else owner)

    harmless: set[int] = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Compare) and all(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops):
            harmless.add(id(node.left))
        if isinstance(node, ast.Call):
            arguments: list[tuple[int | str, ast.expr]] = list(enumerate(node.args))
            arguments += [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
            harmless.update(id(value) for argument, value in arguments if may_take(node.func, argument))
    return all(id(node) in harmless for node in ast.walk(code) if isinstance(node, ast.Name) and node.id == name)
