"""What training tests compare: weights to the last bit, and the lines of a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

import equipoise.training.run as run_module
from equipoise.training.run_directory import RunDirectory
from equipoise.training.trainer import BalancedTrainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a saved model, adapter or whole."""
    [file] = folder.glob("*.safetensors")
    return load_file(file)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal to the last bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def learning(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of the parameters that learn."""
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def steps(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of a log that are of a step, not of an evaluation."""
    return [line for line in run.metrics() if "loss" in line]


class Seen:
    """The Trainer that `train` built, and what its parameters were before the first step."""

    trainer: BalancedTrainer
    initial: dict[str, torch.Tensor]


@contextmanager
def watching_train() -> Iterator[Seen]:
    """Look over the shoulder of the `train` called inside."""
    seen = Seen()
    build = run_module.build_trainer

    def spy(*args: Any, **kwargs: Any) -> BalancedTrainer:
        seen.trainer = build(*args, **kwargs)
        seen.initial = learning(seen.trainer)
        return seen.trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "build_trainer", spy)
        yield seen
