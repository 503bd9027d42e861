"""Which places a balancing uses: this process, several on this machine, or a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from equipoise.balancing.execution import Here, Slots
from equipoise.balancing.processes import Processes
from equipoise.errors import RunError


@dataclass(frozen=True)
class Where:
    """Where nodes run.

    Attributes:
        slots: nodes at once on this machine; None: one for each of its CUDA devices, and one on the CPU.
        ray: a Ray cluster's address (`auto`, or HOST:PORT), instead of this machine alone.
        cpus, gpus: of the cluster, for each node; `gpus` None: 1 where the cluster has any.
    """

    slots: int | None = None
    ray: str | None = None
    cpus: float = 1
    gpus: float | None = None

    def slots_for(self, folder: Path, console: Console) -> Slots:
        """Make them.

        Args:
            folder: of all results.
            console: for what the user must know.

        Raises:
            RunError: places that do not exist.
        """
        if self.ray is not None:
            from equipoise.balancing.on_ray import RaySlots

            return RaySlots(self.ray, folder, self.cpus, self.gpus, console)
        devices = torch.cuda.device_count()
        slots = self.slots or max(1, devices)
        if devices and slots > devices:
            raise RunError(f"--slots: found {slots}; this machine has {devices} CUDA devices, one for each slot")
        return Here(console) if slots == 1 else Processes(slots, devices)
