"""A tuned model on its way to disk: whole, and whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from equipoise.modules.partition import Partition
from equipoise.modules.shards import gathered, is_divided


def whole_model(tuned: Any, division: Partition, first: bool, load: Callable[[], Any]) -> Any:
    """The model itself; where it is divided over processes, in the first one another that is not. All call this.

    Args:
        tuned: the model, not wrapped.
        division: its modules.
        first: whether this is the first process.
        load: gives the model as it was before training.
    """
    if not any(map(is_divided, tuned.parameters())):
        return tuned
    learnt = {**gathered(dict(division.parameters()), keep=first), **dict(tuned.named_buffers())}
    if not first:
        return None
    whole = load()
    whole.load_state_dict(learnt, strict=False)
    return whole


def save_model(target: Path, model: PreTrainedModel | PeftModel, processor: ProcessorMixin) -> None:
    """Save a model and its processor, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        model.save_pretrained(str(folder))
        processor.save_pretrained(folder)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(folder, target)
