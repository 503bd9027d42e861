"""From a recipe's `model` section to a model with LoRA and frozen parts as asked; first without weights, as a check."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from equipoise.data.collate import Collator, ends_answers
from equipoise.errors import EquipoiseError, RecipeError
from equipoise.models.adapters import divide, prepare
from equipoise.models.embedded import EMBEDDED
from equipoise.models.families import Family, of_type
from equipoise.models.processors import from_pretrained as processor_from_pretrained
from equipoise.recipe import Model, Recipe

__all__ = [
    "divide", "family", "load", "load_collator", "load_processor", "load_tuned", "prepare", "resolve", "skeleton",
]  # fmt: skip

# Where a checkpoint brings its own code, the first of these that it names.
REMOTE_CLASSES = (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM, AutoModel)


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


def family(settings: Model) -> Family:
    """The facts of the model's family."""
    return of_type(_config(settings).model_type)


def skeleton(settings: Model) -> PreTrainedModel | PeftModel:
    """The model as training would see it, but on the meta device: its structure from the config alone, no weights.

    Raises:
        RecipeError, PartitionError: what is wrong with the recipe for this model.
    """
    config = _config(settings)
    with torch.device("meta"):
        model = _load(
            _auto_class(config, settings).from_config,
            config,
            settings,
            trust_remote_code=settings.trust_remote_code,
        )
    return prepare(model, settings)


def load(settings: Model) -> PreTrainedModel | PeftModel:
    """The pretrained model, prepared for tuning: a `PeftModel` where the recipe has LoRA, else the model itself."""
    return prepare(_pretrained(settings, resolve(settings)), settings)


def load_tuned(settings: Model, folder: Path) -> PreTrainedModel | PeftModel:
    """The model that a run saved in `folder`, for inference."""
    model: PreTrainedModel | PeftModel
    if (folder / "adapter_config.json").is_file():
        model = PeftModel.from_pretrained(_pretrained(settings, resolve(settings)), folder)
    else:
        model = _pretrained(settings, str(folder))
    return model.eval()


def load_processor(settings: Model) -> ProcessorMixin:
    """The model's processor, with its family's chat template where it carries none that ends an answer."""
    processor = _load(
        processor_from_pretrained, resolve(settings), settings, trust_remote_code=settings.trust_remote_code
    )
    template = family(settings).chat_template
    if template and not (getattr(processor, "chat_template", None) and ends_answers(processor)):
        processor.chat_template = template
    return processor


def load_collator(recipe: Recipe, processor: ProcessorMixin, bounded: bool = True) -> Collator:
    """What turns the recipe's samples into the model's tensors, within `train.max_length` where it is to be bounded."""
    return Collator(
        processor,
        recipe.train.max_length if bounded else None,
        family(recipe.model).prefix_attention,
        cut=recipe.train.too_long == "cut",
    )


def _pretrained(settings: Model, path: str) -> PreTrainedModel:
    return _load(
        _auto_class(_config(settings), settings).from_pretrained,
        path,
        settings,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def _config(settings: Model) -> PreTrainedConfig:
    """The model's config, after what would make a long error of transformers' has been looked for.

    Raises:
        RecipeError: no config, code of the checkpoint's own that was not asked for, or an LLM that is no decoder.
    """
    path = resolve(settings)
    raw, _ = _load(PreTrainedConfig.get_config_dict, path, settings)
    if not isinstance(raw, dict):
        raise RecipeError(f"model.path: {settings.path} cannot be loaded (its config.json is no JSON object)")
    if raw.get("model_type") == "internvl_chat":
        raise RecipeError(
            f"model.path: {settings.path} is InternVL's first layout, which needs code of its own; "
            "equipoise convert internvl2 writes transformers' layout, or name a checkpoint that ends in -hf"
        )
    if "auto_map" in raw and not settings.trust_remote_code:
        raise RecipeError(
            f"model.path: {settings.path} brings code of its own; set model.trust_remote_code: true to run it"
        )
    kernel = _kernel_of(raw)
    if kernel is not None and not settings.trust_remote_code:
        raise RecipeError(
            f"model.path: {settings.path} asks for {kernel!r:.60}, code from the hub, for its attention; "
            "set model.trust_remote_code: true to run it"
        )
    config = _load(AutoConfig.from_pretrained, path, settings, trust_remote_code=settings.trust_remote_code)
    if getattr(config.get_text_config(), "is_encoder_decoder", False):
        raise RecipeError(
            f"model.path: {settings.path} has an encoder-decoder LLM ({config.get_text_config().model_type}); "
            "a decoder such as OPT, Llama or Qwen is needed"
        )
    return config


def _kernel_of(raw: dict[str, Any]) -> str | None:
    """A repository that a config names where the name of an implementation should stand: transformers would run it."""
    found: list[tuple[str, Any]] = list(raw.items())
    while found:
        key, value = found.pop()
        if isinstance(value, dict):
            found += [(key if "implementation" in key else str(inner), below) for inner, below in value.items()]
        elif "implementation" in key and isinstance(value, str) and "/" in value:
            return value
    return None


def _auto_class(config: PreTrainedConfig, settings: Model) -> Any:
    for known in (AutoModelForMultimodalLM, AutoModelForImageTextToText):
        if type(config) in known._model_mapping:
            return known
    remote = getattr(config, "auto_map", None) or {}
    for cls in REMOTE_CLASSES:
        if cls.__name__ in remote:
            return cls
    raise RecipeError(
        f"model.path: {settings.path} is a {config.model_type} model; "
        "one that turns images or audio and text into text is needed"
    )


def _load(loader: Callable[..., Any], source: Any, settings: Model, **options: Any) -> Any:
    """Call one of transformers' loaders; what goes wrong there becomes one line."""
    try:
        return loader(source, **options)
    except EquipoiseError:
        raise
    except pickle.UnpicklingError as error:
        raise RecipeError(
            f"model.path: {settings.path} holds a pickle that torch.load(weights_only=True) refuses; "
            "weights are read from safetensors, or from plain tensors in a .bin file"
        ) from error
    except Exception as error:  # a checkpoint is untrusted input, and transformers raises what its parts raise
        reason = " ".join(str(error).split())
        raise RecipeError(f"model.path: {settings.path} cannot be loaded ({reason[:300]})") from error
