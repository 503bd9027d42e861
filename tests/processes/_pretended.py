"""accelerate's FSDP2 on CPUs, which it divides no weights over.

accelerate is told that this CPU is an accelerator. That, and sums instead of averages, which gloo lacks, is all that is
changed: `Accelerator._prepare_fsdp2`, and what Trainer does around it, run as they are.
"""

from __future__ import annotations

from typing import Any

import accelerate.accelerator
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor


def pretend() -> None:
    """From now on; in each of several processes, before accelerate has looked at them."""
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)  # type: ignore[method-assign]

    def set_device(state: Any) -> None:
        state.device = torch.device("cpu")

    PartialState.set_device = set_device  # type: ignore[method-assign]
    prepare = accelerate.accelerator.fsdp2_prepare_model

    def prepare_with_sums(accelerator: Any, model: Any) -> Any:
        prepared = prepare(accelerator, model)
        prepared.set_force_sum_reduction_for_comms(True)
        assert all(isinstance(parameter, DTensor) for parameter in prepared.parameters())
        return prepared

    accelerate.accelerator.fsdp2_prepare_model = prepare_with_sums
