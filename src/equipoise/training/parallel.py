"""How a Trainer's model is spread over processes, and where balance between modules can be measured and acted on."""

from __future__ import annotations

import logging
import os

from transformers import Trainer

from equipoise.errors import PartitionError
from equipoise.modules.shards import is_divided
from equipoise.recipe import Coordination

logger = logging.getLogger(__name__)
ALLOWED = "schedule constant with measure: false, and task weights"


def is_plain(trainer: Trainer) -> bool:
    """Whether the model's weights lie whole on this process, and its forward is one that can be looked into."""
    parallel = trainer.accelerator.parallelism_config
    divided = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or trainer.args.n_gpu > 1
    divided = divided or (parallel is not None and parallel.non_data_parallel_size > 1)
    divided = divided or (trainer.model is not None and any(map(is_divided, trainer.model.parameters())))
    return not divided and not trainer.args.torch_compile


def check(trainer: Trainer, coordination: Coordination) -> None:
    """Refuse what these settings cannot be followed in, before anything is trained; say what accelerate leaves out.

    Raises:
        PartitionError: the schedule acts or measures, under DeepSpeed, FSDP 1 or a parallelism that divides a batch.
    """
    state = trainer.accelerator.state
    if _wants_fsdp(trainer) and not trainer.is_fsdp_enabled:
        kind = str(state.distributed_type).removeprefix("DistributedType.")
        logger.warning(
            "the FSDP settings are ignored: accelerate divides weights over accelerators alone, and runs here as %s; "
            "every process holds the whole model",
            kind,
        )
    if coordination.schedule == "constant" and not coordination.measure:
        return
    parallel = trainer.accelerator.parallelism_config
    found = None
    if trainer.is_deepspeed_enabled:
        found = "DeepSpeed, whose engine makes the step inside the backward and keeps the gradients"
    elif trainer.is_fsdp_enabled and state.fsdp_plugin.fsdp_version != 2:
        found = "FSDP 1, whose flat parameters hide the modules (fsdp_version: 2 is measured)"
    elif parallel is not None and parallel.non_data_parallel_size > 1:
        found = "tensor, context or sequence parallelism, in which several processes share a sample"
    if found is not None:
        raise PartitionError(
            f"balance between modules: found schedule {coordination.schedule} under {found}; allowed there: {ALLOWED}"
        )


def _wants_fsdp(trainer: Trainer) -> bool:
    """Whether the arguments or `accelerate launch` ask for FSDP."""
    return bool(trainer.args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
