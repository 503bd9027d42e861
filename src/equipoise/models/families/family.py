"""What a family file says, and how it is applied to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from equipoise.modules.partition import base_model

Finder = Callable[[nn.Module], list[str]]


@dataclass(frozen=True)
class Family:
    """Facts of one model family that transformers does not tell.

    Attributes:
        model_types: the `model_type` of the configs it is for.
        modules: module name to the submodules and parameters it is made of: the ends of their dotted names, or a
            function that finds their whole names. What no module names is the LLM's if `get_decoder()` holds it.
        trained: the modules that instruction tuning trains in full; the other ones of the encoder are frozen.
        chat_template: for processors that carry none.
        loss_from_logits: whether the class's own loss fails, or takes the step's number of tokens and forgets it.
        prefix_attention: whether the prompt attends to itself in both directions, told by `token_type_ids`.
        source: where the facts are from.
    """

    modules: Mapping[str, tuple[str, ...] | Finder]
    trained: frozenset[str]
    model_types: tuple[str, ...] = ()
    chat_template: str | None = None
    loss_from_logits: bool = False
    prefix_attention: bool = False
    source: str = field(default="", repr=False)

    def paths(self, model: nn.Module) -> dict[str, list[str]]:
        """Module name to the whole dotted names of its parts, in a model with or without peft's wrappers."""
        bare = base_model(model)
        names = [name for name, _ in (*bare.named_modules(), *bare.named_parameters())]
        found = {}
        for module, parts in self.modules.items():
            if callable(parts):
                found[module] = parts(bare)
            else:
                found[module] = [n for n in names if any(n == part or n.endswith(f".{part}") for part in parts)]
        return found
