"""From a recipe's `model` section to a model with LoRA and frozen parts as asked; first without weights, as a check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from equipoise.errors import EquipoiseError, PartitionError, RecipeError
from equipoise.models.embedded import EMBEDDED
from equipoise.models.families import family_of
from equipoise.modules.partition import LLM, Partition, find_decoder, partition
from equipoise.recipe import Model


def resolve(settings: Model) -> str:
    """The folder or hub id that transformers loads; embedded stacks are built here the first time.

    Raises:
        RecipeError: an embedded stack that does not exist.
    """
    if not settings.is_embedded:
        return settings.path
    if settings.path not in EMBEDDED:
        raise RecipeError(f"model.path: found {settings.path!r}; embedded stacks are {', '.join(EMBEDDED)}")
    return str(EMBEDDED[settings.path]())


def skeleton(settings: Model) -> PreTrainedModel | PeftModel:
    """The model as training would see it, but on the meta device: its structure from the config alone, no weights.

    Raises:
        RecipeError, PartitionError: what is wrong with the recipe for this model.
    """
    path = resolve(settings)
    config = _load(AutoConfig.from_pretrained, path, settings, trust_remote_code=settings.trust_remote_code)
    with torch.device("meta"):
        model = _load(
            AutoModelForImageTextToText.from_config, config, settings, trust_remote_code=settings.trust_remote_code
        )
    return prepare(model, settings)


def load(settings: Model) -> PreTrainedModel | PeftModel:
    """The pretrained model, prepared for tuning: a `PeftModel` where the recipe has LoRA, else the model itself."""
    model = _load(
        AutoModelForImageTextToText.from_pretrained,
        resolve(settings),
        settings,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )
    return prepare(model, settings)


def load_tuned(settings: Model, folder: Path) -> PreTrainedModel | PeftModel:
    """The model that a run saved in `folder`, for inference."""
    model: PreTrainedModel | PeftModel
    options = {"dtype": settings.dtype, "trust_remote_code": settings.trust_remote_code}
    if (folder / "adapter_config.json").is_file():
        base = _load(AutoModelForImageTextToText.from_pretrained, resolve(settings), settings, **options)
        model = PeftModel.from_pretrained(base, folder)
    else:
        model = AutoModelForImageTextToText.from_pretrained(folder, **options)
    return model.eval()


def load_processor(settings: Model) -> ProcessorMixin:
    """The model's processor."""
    return _load(
        AutoProcessor.from_pretrained, resolve(settings), settings, trust_remote_code=settings.trust_remote_code
    )


def divide(model: nn.Module, settings: Model) -> Partition:
    """The model's modules: its family's, unless the recipe's patterns say otherwise."""
    return partition(model, settings.modules, family_of(model).patterns())


def prepare(model: PreTrainedModel, settings: Model) -> PreTrainedModel | PeftModel:
    """Freeze, set to full training or give LoRA to each module, as the recipe says.

    Raises:
        RecipeError: `model.train` names a module that the model does not have, or contradicts `model.lora`.
        PartitionError: the model has no recognisable LLM, or its modules overlap.
    """
    division = divide(model, settings)
    for name in settings.train:
        if name not in division.modules:
            raise RecipeError(f"model.train.{name}: no such module; this model has {', '.join(division.modules)}")
    if settings.lora is not None and LLM in settings.train:
        raise RecipeError(
            f"model.train.{LLM}: found {settings.train[LLM]!r} beside model.lora; set lora: null to "
            f"{'train the LLM in full' if settings.train[LLM] == 'full' else 'freeze the LLM'}"
        )
    chosen = {name for name in division.modules if _trained_in_full(name, model, settings)}
    full = {name for module in chosen for name in division.modules[module].trainable}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in full)
    if settings.lora is None:
        return model
    # peft saves what modules_to_save holds with the adapter; by full path, for towers often share layer names.
    owners = _topmost_owners(full, model)
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.lora.rank,
            lora_alpha=settings.lora.alpha,
            lora_dropout=settings.lora.dropout,
            use_dora=settings.lora.dora,
            target_modules=_llm_linear_layers(model),
            modules_to_save=owners or None,
        ),
        low_cpu_mem_usage=any(parameter.is_meta for parameter in model.parameters()),
    )


def _trained_in_full(name: str, model: nn.Module, settings: Model) -> bool:
    if name in settings.train:
        return settings.train[name] == "full"
    return name in family_of(model).trained


def _topmost_owners(full: set[str], model: nn.Module) -> list[str]:
    """The modules that hold the parameters trained in full; those inside another of them are left out.

    Raises:
        RecipeError: such a module also holds parameters that are not to be trained, which peft cannot tell apart.
    """
    owners = {name.rpartition(".")[0] for name in full}
    topmost = sorted(o for o in owners if not any(o.startswith(f"{other}.") for other in owners))
    for owner in topmost:
        inside = {name for name, _ in model.named_parameters() if name.startswith(f"{owner}.")}
        if not owner or not inside <= full:
            raise RecipeError(
                f"model.modules: {owner or 'the model itself'} has parameters of its own beside some that are not "
                "trained; with model.lora, train it whole or not at all"
            )
    return topmost


def _llm_linear_layers(model: nn.Module) -> list[str]:
    """The full names of the decoder's linear layers, the output head left out."""
    decoder = find_decoder(model)
    if decoder is None:
        raise PartitionError("model.lora needs a model whose LLM transformers can name (get_decoder)")
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    return [f"{prefix}.{name}" for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]


def _load(loader: Callable[..., Any], source: Any, settings: Model, **options: Any) -> Any:
    """Call one of transformers' loaders; what goes wrong there becomes one line."""
    try:
        return loader(source, **options)
    except EquipoiseError:
        raise
    except Exception as error:  # a checkpoint is untrusted input, and transformers raises what its parts raise
        reason = " ".join(str(error).split())
        raise RecipeError(f"model.path: {settings.path} cannot be loaded ({reason[:300]})") from error
