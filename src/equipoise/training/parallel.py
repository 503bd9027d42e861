"""How a Trainer's model is spread over processes, and where balance between modules can be measured and acted on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import Trainer

from equipoise.errors import Elsewhere, EquipoiseError, PartitionError
from equipoise.modules.processes import Processes
from equipoise.modules.shards import is_divided, local
from equipoise.recipe import Coordination

logger = logging.getLogger(__name__)


def is_plain(trainer: Trainer) -> bool:
    """Whether the model's weights lie whole on this process, and its forward is one that can be looked into."""
    parallel = trainer.accelerator.parallelism_config
    divided = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or trainer.args.n_gpu > 1
    divided = divided or (parallel is not None and parallel.non_data_parallel_size > 1)
    divided = divided or (trainer.model is not None and any(map(is_divided, trainer.model.parameters())))
    return not divided and not trainer.args.torch_compile


def is_divided_model(trainer: Trainer) -> bool:
    """Whether each process holds a part of the weights; once the model is prepared."""
    plugin = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
    assert trainer.model is not None
    return (plugin is not None and plugin.zero_stage == 3) or any(map(is_divided, trainer.model.parameters()))


def check(trainer: Trainer, coordination: Coordination) -> None:
    """Refuse what these settings cannot be followed in, before anything is trained; say what accelerate leaves out.

    Raises:
        PartitionError: FSDP 1; checkpoints that would lack what learns; a schedule that acts or measures under
            DeepSpeed; one that measures where several processes share a batch.
    """
    state, parallel = trainer.accelerator.state, trainer.accelerator.parallelism_config
    measures = coordination.measure or coordination.schedule in ("commit", "commit-clr")
    if _wants_fsdp(trainer) and not trainer.is_fsdp_enabled and trainer.is_world_process_zero():
        logger.warning(
            "the FSDP settings are ignored: accelerate divides weights over several GPUs alone, and runs here as %s; "
            "every process holds the whole model",
            str(state.distributed_type).removeprefix("DistributedType."),
        )
    if trainer.is_fsdp_enabled and state.fsdp_plugin.fsdp_version != 2:
        raise PartitionError(
            f"found FSDP version {state.fsdp_plugin.fsdp_version}, whose flat parameters belong to no module; set "
            "fsdp_version: 2"
        )
    if trainer.is_fsdp_enabled and trainer.args.save_strategy != "no":
        _require_saved(trainer)
    if trainer.is_deepspeed_enabled and (measures or coordination.schedule != "constant"):
        raise PartitionError(
            f"found schedule {coordination.schedule}, measure {str(coordination.measure).lower()} under DeepSpeed, "
            "whose engine makes the step inside the backward; allowed there: schedule constant, measure false, and "
            "task weights (FSDP 2 divides weights too, and is measured)"
        )
    if measures and parallel is not None and parallel.non_data_parallel_size > 1:
        raise PartitionError(
            f"found {parallel.non_data_parallel_size} processes to a batch (tensor, context or sequence parallelism); "
            "drifts are measured over processes that each have batches of their own"
        )


def require_alike(inputs: Mapping[str, Any], processes: Processes) -> None:
    """Refuse micro-batches that lead processes of a divided model through different parts of it: they would wait for
    each other without end.

    Args:
        inputs: this process's micro-batch.
        processes: that train the model; all call this.

    Raises:
        PartitionError: by the first process; `Elsewhere` by the others.
    """
    own = sorted(name for name, value in inputs.items() if isinstance(value, torch.Tensor))
    everybody = processes.gather([float(ord(letter)) for letter in ",".join(own)])
    found = [set("".join(chr(int(number)) for number in numbers).split(",")) for numbers in everybody]
    other = next((number for number, names in enumerate(found) if names != found[0]), None)
    if other is None:
        return
    has, lacks = (0, other) if found[0] - found[other] else (other, 0)
    error: EquipoiseError = PartitionError(
        f"process {has} has {', '.join(sorted(found[has] - found[lacks]))} in its micro-batch and process {lacks} has "
        "not: where FSDP or ZeRO-3 divides weights, all must run the same parts of the model; give each batch an image "
        "or clip, or leave weights whole (DDP takes such batches)"
    )
    if processes.number:
        error = Elsewhere(str(error))
    error.agreed = True
    raise error


def _require_saved(trainer: Trainer) -> None:
    """Refuse checkpoints that lack what learns: of a peft model accelerate's sharded ones hold the adapter alone."""
    model, kind = trainer.model, str(trainer.accelerator.state.fsdp_plugin.state_dict_type).rpartition(".")[2]
    if not isinstance(model, PeftModel) or kind == "FULL_STATE_DICT":
        return
    saved = {value.data_ptr() for value in get_peft_model_state_dict(model).values()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and local(parameter).data_ptr() not in saved:
            raise PartitionError(
                f"found FSDP's state_dict_type {kind}, whose checkpoints hold a peft model's adapter alone: {name} "
                "learns and would be lost; set state_dict_type: FULL_STATE_DICT, which holds all that learns"
            )


def _wants_fsdp(trainer: Trainer) -> bool:
    """Whether the arguments or `accelerate launch` ask for FSDP."""
    return bool(trainer.args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
