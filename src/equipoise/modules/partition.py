"""Which trainable parameters belong to which module of a model: the LLM, and each part of its feature encoder.

The LLM is what transformers calls the decoder, plus the output head, less what family facts
(`equipoise.models.families`) or the user's regular expressions give to another module: the cross-attention layers of
a Flamingo-like decoder are of the encoder's side. What nobody names is "encoder". Every trainable parameter lies in
exactly one module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from equipoise.errors import PartitionError
from equipoise.modules.shards import elementwise, is_divided, square_sum

LLM = "llm"
ENCODER = "encoder"
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|base_model\.model\.)+")
#: What activation checkpointing and compilation put into names, anywhere.
_INNER_WRAPPERS = re.compile(r"_checkpoint_wrapped_module\.|_orig_mod\.")


@dataclass
class ModuleParameters:
    """One module's parameters: the trainable ones by name, and how many frozen numbers lie beside them."""

    name: str
    trainable: dict[str, nn.Parameter] = field(default_factory=dict)
    frozen: int = 0

    @property
    def size(self) -> int:
        """Trainable numbers."""
        return sum(parameter.numel() for parameter in self.trainable.values())

    @property
    def kind(self) -> str:
        """`LoRA`, `full`, `LoRA + full` or `frozen`."""
        lora = any(".lora_" in name for name in self.trainable)
        full = any(".lora_" not in name for name in self.trainable)
        return " + ".join(kind for kind, present in (("LoRA", lora), ("full", full)) if present) or "frozen"

    def norm(self) -> float:
        """||theta||, the Frobenius norm over the trainable parameters."""
        return norm_of(parameter.detach() for parameter in self.trainable.values())

    def grad_norm(self) -> float:
        """||G||, the Frobenius norm over the gradients that are there."""
        return norm_of(parameter.grad for parameter in self.trainable.values() if parameter.grad is not None)

    def moved(self, before: Mapping[str, torch.Tensor]) -> float:
        """||theta - theta_before||; tensor by tensor, for all differences at once would be a copy of what learns."""
        return math.hypot(
            *(
                norm_of([elementwise(torch.sub, parameter.detach(), before[name])])
                for name, parameter in self.trainable.items()
            )
        )


@dataclass
class Partition:
    """The modules of a model, the encoder's first, the LLM last."""

    modules: dict[str, ModuleParameters]

    @property
    def trainable(self) -> dict[str, ModuleParameters]:
        """The modules that learn: what balance is about."""
        return {name: module for name, module in self.modules.items() if module.trainable}

    @property
    def mostly_trains(self) -> bool:
        """Whether a copy of what learns is a copy of much of the model: an eighth or more."""
        trainable = sum(module.size for module in self.modules.values())
        return 8 * trainable >= trainable + sum(module.frozen for module in self.modules.values())

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every trainable parameter with its name, module by module."""
        for module in self.modules.values():
            yield from module.trainable.items()

    def follow(self, model: nn.Module) -> bool:
        """Take the model's parameters anew, by name: whoever divides a model over processes replaces them.

        Returns:
            Whether any were replaced.

        Raises:
            PartitionError: one of a known name is gone.
        """
        replaced = False
        now = {_INNER_WRAPPERS.sub("", name): parameter for name, parameter in model.named_parameters()}
        for module in self.modules.values():
            for name in module.trainable:
                plain = _INNER_WRAPPERS.sub("", name)
                if plain not in now:
                    raise PartitionError(f"parameter {name} of module {module.name} is gone from the prepared model")
                replaced = replaced or now[plain] is not module.trainable[name]
                module.trainable[name] = now[plain]
        return replaced

    def require_balance(self, purpose: str) -> None:
        """Refuse a model in which there is nothing to balance.

        Raises:
            PartitionError: fewer than two modules learn, or the LLM does not.
        """
        for name, module in self.modules.items():
            if name == LLM and not module.trainable:
                raise PartitionError(f"module {LLM} has no trainable parameter; {purpose} needs it to learn (add LoRA)")
        if len(self.trainable) < 2:
            frozen = [name for name in self.modules if name not in self.trainable]
            raise PartitionError(
                f"only {', '.join(self.trainable) or 'no module'} has trainable parameters"
                f" ({', '.join(frozen) or 'nothing else'}: none); {purpose} needs two or more modules that learn"
            )


def partition(
    model: nn.Module, patterns: Mapping[str, str] | None = None, family: Mapping[str, Sequence[str]] | None = None
) -> Partition:
    """Divide a model's parameters into modules.

    Args:
        model: a transformers model, with or without peft; or any module, if `patterns` names the LLM.
        patterns: module name to regular expression, searched in parameter names (without peft's and DDP's prefixes).
            A pattern takes precedence over `family`.
        family: module name to the dotted names of its submodules or parameters; where one lies inside another, the
            inner one decides. Takes precedence over what transformers calls the decoder.

    Raises:
        PartitionError: two patterns claim one parameter, a pattern claims none, a pattern is no regular expression,
            or the model has no recognisable LLM.
    """
    patterns, family = dict(patterns or {}), dict(family or {})
    wanted = {name: _compile(name, pattern) for name, pattern in patterns.items()}
    known = {path: name for name, paths in family.items() for path in paths}
    llm = set() if LLM in wanted or family.get(LLM) else _llm_parameters(model)
    names = [*(name for name in {**family, **patterns} if name != LLM), ENCODER, LLM]
    modules = {name: ModuleParameters(name) for name in dict.fromkeys(names)}
    claimed: set[str] = set()
    for full_name, parameter in model.named_parameters():
        if ".original_module." in full_name:  # peft's second copy of a module_to_save; never used while tuning
            continue
        name = _WRAPPERS.sub("", full_name)
        owner = _owner(name, wanted) or _innermost(name, known)
        if owner is None:
            owner = LLM if id(parameter) in llm else ENCODER
        claimed.add(owner)
        if parameter.requires_grad:
            modules[owner].trainable[full_name] = parameter
        else:
            modules[owner].frozen += parameter.numel()
    for name in patterns:
        if name not in claimed:
            raise PartitionError(f"module {name}: its pattern {patterns[name]!r} matches no parameter of the model")
    return Partition({name: module for name, module in modules.items() if name in claimed})


def split_param_groups(
    optimizer: torch.optim.Optimizer, division: Partition, learning_rates: Mapping[str, float] | None = None
) -> None:
    """Divide an optimizer's parameter groups, in place, so that each holds one module's parameters.

    Every group keeps its options and gains `module`, its module's name, and `lr` where `learning_rates` names it.

    Raises:
        PartitionError: the optimizer holds a parameter that no module has.
    """
    owner = {id(parameter): module.name for module in division.modules.values() for parameter in
             module.trainable.values()}  # fmt: skip
    groups = []
    for group in optimizer.param_groups:
        parts: dict[str, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if id(parameter) in owner:
                parts.setdefault(owner[id(parameter)], []).append(parameter)
            elif parameter.requires_grad:
                raise PartitionError(
                    f"the optimizer holds a trainable parameter of shape {tuple(parameter.shape)} of no module; "
                    "build the optimizer from the parameters of the same model"
                )
        for name in (name for name in division.modules if name in parts):
            split = {**group, "params": parts[name], "module": name}
            if learning_rates and name in learning_rates:
                split["lr"] = split["initial_lr"] = learning_rates[name]
            groups.append(split)
    optimizer.param_groups[:] = groups


def _compile(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PartitionError(f"module {name}: pattern {pattern!r} is not a regular expression ({error})") from error


def _owner(parameter: str, patterns: Mapping[str, re.Pattern[str]]) -> str | None:
    owners = [name for name, pattern in patterns.items() if pattern.search(parameter)]
    if len(owners) > 1:
        raise PartitionError(
            f"parameter {parameter} is claimed by modules {' and '.join(owners)}; patterns may not overlap"
        )
    return owners[0] if owners else None


def _innermost(parameter: str, modules: Mapping[str, str]) -> str | None:
    """The module of the longest of the dotted names that the parameter lies under."""
    parts = parameter.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((modules[prefix] for prefix in prefixes if prefix in modules), None)


def _llm_parameters(model: nn.Module) -> set[int]:
    """Identities of the parameters of the decoder and of the output head."""
    decoder = find_decoder(model)
    if decoder is None:
        raise PartitionError(
            f"{type(model).__name__} has no recognisable LLM (its get_decoder() finds none); "
            f"name it by a pattern: modules: {{{LLM}: REGEX}}"
        )
    base = base_model(model)
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    return {id(parameter) for part in (decoder, head) if part is not None for parameter in part.parameters()}


def base_model(model: nn.Module) -> Any:
    """The transformers model inside DDP's and peft's wrappers."""
    model = getattr(model, "module", model) if not hasattr(model, "get_decoder") else model
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model


def find_decoder(model: nn.Module) -> nn.Module | None:
    """What transformers calls the model's decoder, or None; looks through peft's and DDP's wrappers."""
    base = base_model(model)
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else None
    return None if decoder is base else decoder


def norm_of(tensors: Iterable[torch.Tensor]) -> float:
    """Of all numbers together; in float32 at least. Of divided tensors the whole, and every process calls this."""
    of_type: dict[torch.dtype, list[torch.Tensor]] = {}
    divided = []
    for tensor in tensors:
        if is_divided(tensor):
            divided.append(tensor)
        else:
            of_type.setdefault(tensor.dtype, []).append(tensor)
    norms = [math.sqrt(square_sum(divided))] if divided else []
    for dtype, group in of_type.items():
        own = torch._foreach_norm(group, 2.0, torch.float64 if dtype == torch.float64 else torch.float32)
        norms.append(torch.stack(own).norm().item())
    return math.hypot(*norms)
