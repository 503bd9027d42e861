"""What decides each module's learning-rate factor, one file a method."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.errors import PartitionError
from equipoise.modules.partition import LLM
from equipoise.modules.schedules.base import Schedule
from equipoise.modules.schedules.constant import Constant
from equipoise.modules.schedules.coordinate_descent import CoordinateDescent
from equipoise.modules.schedules.coordinated import Coordinated
from equipoise.modules.schedules.servo import Servo
from equipoise.recipe import Coordination

__all__ = ["Constant", "CoordinateDescent", "Coordinated", "Schedule", "Servo", "build_schedule"]


def build_schedule(coordination: Coordination, modules: Sequence[str], total_steps: int | None) -> Schedule:
    """Make the schedule that `coordination.schedule` names.

    Args:
        coordination: the settings.
        modules: names of the modules that learn; `llm` among them unless the schedule is `constant`.
        total_steps: optimizer steps of the run; coordinate descent needs it.

    Raises:
        PartitionError: coordinate descent without a known number of steps.
    """
    encoders = [name for name in modules if name != LLM]
    match coordination.schedule:
        case "constant":
            return Constant(modules)
        case "encoder-lr-up":
            return Constant(modules, raised=encoders)
        case "llm-lr-up":
            return Constant(modules, raised=[LLM])
        case "feature-cd" | "language-cd":
            if total_steps is None:
                raise PartitionError(f"schedule {coordination.schedule} needs the number of steps of the run")
            first, second = (encoders, [LLM]) if coordination.schedule == "feature-cd" else ([LLM], encoders)
            return CoordinateDescent(first, second, total_steps)
        case "commit" | "commit-clr":
            if coordination.controller == "servo":
                return Servo(modules, coordination.window, coordination.gain, coordination.min_factor)
            return Coordinated(modules, coordination.window, coordination.min_factor)
