"""What learns and how: each module frozen, trained in full, or (the LLM) given LoRA; and what is saved of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from equipoise.errors import RecipeError
from equipoise.models.families import family_of
from equipoise.modules.partition import LLM, Partition, base_model, partition
from equipoise.recipe import Model


class TunedModel(PeftModel):
    """A PeftModel that also saves trained parameters which no submodule holds alone (BLIP-2's query tokens).

    peft's `modules_to_save` takes modules only. These go into the adapter's file by their own names, as peft's saved
    embeddings do, and plain `PeftModel.from_pretrained` puts them back.
    """

    loose: tuple[str, ...] = ()

    def save_pretrained(self, save_directory: str, *args: Any, **kwargs: Any) -> None:
        """As `PeftModel.save_pretrained`."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if not self.loose or not kwargs.get("is_main_process", True):
            return
        file = Path(save_directory) / SAFETENSORS_WEIGHTS_NAME
        with safe_open(file, "pt") as opened:
            weights, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        state = kwargs.get("state_dict") or self.state_dict()
        weights |= {name: state[name].detach().cpu().contiguous() for name in self.loose}
        save_file(weights, file, metadata)


def divide(model: nn.Module, settings: Model) -> Partition:
    """The model's modules: its family's, unless the recipe's patterns say otherwise."""
    return partition(model, settings.modules, family_of(model).paths(model))


def prepare(model: PreTrainedModel, settings: Model) -> PreTrainedModel | PeftModel:
    """Freeze, set to full training or give LoRA to each module, as the recipe says.

    Raises:
        RecipeError: `model.train` names a module that the model does not have, or contradicts `model.lora`.
        PartitionError: the model has no recognisable LLM, or its modules overlap.
    """
    for parameter in model.parameters():  # some classes are born with frozen parts
        parameter.requires_grad_(parameter.is_floating_point())
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
    llm = set(division.modules[LLM].trainable) if LLM in division.modules else set()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in full)
    if settings.lora is None:
        return model
    targets = _linear_layers(model, llm)
    if not targets:
        raise RecipeError(f"model.lora: the LLM of {settings.path} has no linear layer; set lora: null")
    # peft saves what modules_to_save holds with the adapter; by full path, for towers often share layer names.
    owners = _topmost_owners(full, model)
    tuned = TunedModel(
        model,
        LoraConfig(
            base_model_name_or_path=model.name_or_path or None,
            r=settings.lora.rank,
            lora_alpha=settings.lora.alpha,
            lora_dropout=settings.lora.dropout,
            use_dora=settings.lora.dora,
            target_modules=targets,
            modules_to_save=owners or None,
        ),
        low_cpu_mem_usage=any(parameter.is_meta for parameter in model.parameters()),
    )
    config: Any = tuned.peft_config[tuned.active_adapter]
    config.target_modules = sorted(config.target_modules)  # a set's order in the adapter's file is by chance
    held = tuple(f"{owner}." for owner in owners)
    tuned.loose = tuple(f"base_model.model.{name}" for name in sorted(full) if not name.startswith(held))
    for name in tuned.loose:
        tuned.get_parameter(name).requires_grad_(True)
    return tuned


def learn_in_float32(model: nn.Module) -> None:
    """Keep what learns in float32, for a trainer that computes in 16 bits by autocast: those lose small steps."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def merged(model: PeftModel) -> PreTrainedModel:
    """The plain model with LoRA's updates added to the weights and trained modules in place; `model` is used up."""
    return model.merge_and_unload()


def _trained_in_full(name: str, model: nn.Module, settings: Model) -> bool:
    if name in settings.train:
        return settings.train[name] == "full"
    return name in family_of(model).trained


def _topmost_owners(full: set[str], model: nn.Module) -> list[str]:
    """The modules that own parameters trained in full and nothing else; those inside another of them are left out."""
    names = [name for name, _ in model.named_parameters()]
    owners = set()
    for owner in {name.rpartition(".")[0] for name in full} - {""}:
        whole = all(name in full for name in names if name.startswith(f"{owner}."))
        if whole and not isinstance(model.get_submodule(owner), nn.ModuleList):  # which peft cannot wrap
            owners.add(owner)
    return sorted(owner for owner in owners if not any(owner.startswith(f"{other}.") for other in owners))


def _linear_layers(model: nn.Module, parameters: set[str]) -> list[str]:
    """The full names of the linear layers among some parameters, the output head left out."""
    base = base_model(model)
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    left_out = set(head.modules()) if head is not None else set()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in parameters and module not in left_out
    ]
