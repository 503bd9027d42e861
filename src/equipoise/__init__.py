"""equipoise balances multimodal instruction tuning: how fast its modules learn (CoMMIT)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.recipe import Coordination, TaskWeighting

if Path(sys.argv[0]).name not in ("equipoise", "-m"):  # -m is what python -m equipoise is called while it begins
    # Registers our classes, so that from_pretrained opens a run's model after `import equipoise`. The command line
    # imports them with the first model instead: transformers takes seconds, and --help should not.
    import equipoise.models as _registered  # noqa: F401

if TYPE_CHECKING:
    from equipoise.training.attach import attach
    from equipoise.training.trainer import BalancedTrainer

__version__ = "0.1.0"
__all__ = ["BalancedTrainer", "Coordination", "TaskWeighting", "attach"]


def __getattr__(name: str) -> Any:
    # transformers and peft take seconds to import; a mistake in a recipe should not wait for them.
    if name == "BalancedTrainer":
        from equipoise.training.trainer import BalancedTrainer

        return BalancedTrainer
    if name == "attach":
        from equipoise.training.attach import attach

        return attach
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
