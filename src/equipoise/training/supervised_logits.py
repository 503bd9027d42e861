"""The LM head at supervised positions alone, while a Trainer trains.

A loss reads the logits of a position only where its next label is supervised. So what enters the head is cut to those
positions, laid out in one row, and the labels with it. The model's own loss (its normalisation, the balancing losses of
experts), or one that the Trainer computes from its outputs, is then what it would be of all logits, up to the order of
additions. `logits_to_keep`, which transformers has for this, keeps whole columns of a batch: where prompts differ in
length, most of them.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.loss.loss_utils import ForCausalLMLoss

from equipoise.errors import RecipeError
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
    """The LM head of a model for which `can_shorten` is true."""
    head: nn.Module = base_model(model).get_output_embeddings()
    return head


def can_shorten(trainer: Trainer, losses: tuple[Callable, ...], inputs: Mapping[str, Any]) -> bool:
    """Whether `trainer` trains on the supervised places of a batch as it does on the batch.

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
    if inputs["labels"].dim() != 2 or trainer.args.torch_compile or not _calls_head_once(base_model(model)):
        return False
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # peft puts tokens in front of the text
    if trainer.compute_loss_func is None:
        return has_usual_loss(model)
    return trainer.compute_loss_func in losses


def _calls_head_once(base: Any) -> bool:
    """Whether the model's forward gives its LM head, once, what stands at all positions."""
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    cls: type = type(base)
    names = [name for name, module in base.named_children() if module is head] if head is not None else []
    return len(names) == 1 and keeps_logits(base) and _count_calls(cls, "forward", f"self.{names[0]}") == 1


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
        behind: as for `_source`.
    """
    owner, code = _source(cls, method, behind)
    if owner is None:
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


@lru_cache(maxsize=64)
def _count_calls(cls: type, method: str, called: str) -> int:
    """How often a method's source calls something, itself or in the class's methods that it calls."""
    count = 0
    ahead: list[tuple[str, type | None]] = [(method, None)]
    seen = set(ahead)
    while ahead:
        owner, code = _source(cls, *ahead.pop())
        for node in ast.walk(code):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            count += ast.unparse(node.func) == called
            by = ast.unparse(node.func.value)
            step = node.func.attr, owner if by == "super()" else None
            if by in ("self", "super()") and step not in seen and inspect.isfunction(getattr(cls, step[0], None)):
                seen.add(step)
                ahead.append(step)
    return count


def _source(cls: type, method: str, behind: type | None) -> tuple[type | None, ast.AST]:
    """The class that defines a method, and the method's source; None and nothing where there is none to read.

    Args:
        behind: the method is looked for in the classes behind this one, as by `super()`.
    """
    order = cls.__mro__[cls.__mro__.index(behind) + 1 if behind is not None else 0 :]
    owner = next((parent for parent in order if method in vars(parent)), None)
    try:
        return owner, ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(vars(owner)[method]))))
    except (OSError, TypeError, SyntaxError):  # no source, or none of a function
        return None, ast.Module([], [])
