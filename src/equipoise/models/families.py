"""Facts of model families: which submodules make up the feature encoder, and which of them a recipe trains by default.

A family is found by its config's `model_type`. Any other model has one encoder, all that is not its LLM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        modules: module name to the dotted paths of its submodules.
        trained: the modules that instruction tuning trains in full; the rest of the encoder is frozen.
    """

    modules: dict[str, tuple[str, ...]]
    trained: frozenset[str]

    def patterns(self) -> dict[str, str]:
        """The modules as regular expressions over parameter names."""
        return {
            name: "|".join(rf"(?:^|\.){re.escape(path)}\." for path in paths) for name, paths in self.modules.items()
        }


LLAVA = Family(
    # LLaVA-1.5 trains its projector and leaves CLIP frozen (CoMMIT, appendix B.4).
    modules={"projector": ("multi_modal_projector",), "vision_tower": ("vision_tower",)},
    trained=frozenset({"projector"}),
)
GENERIC = Family(modules={}, trained=frozenset())
FAMILIES = {"llava": LLAVA}


def family_of(model: nn.Module) -> Family:
    """The family of a transformers model, through a peft wrapper if there is one."""
    config = getattr(model, "config", None)
    return FAMILIES.get(getattr(config, "model_type", ""), GENERIC)
