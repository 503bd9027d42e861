"""What stands in for parts of a model while it is trained or answers, and when nothing may (docs/speed.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from equipoise.models.feature_cache import caching
from equipoise.models.feature_store import FeatureCache
from equipoise.recipe import Train
from equipoise.training.fused_lora import fused_lora
from equipoise.training.onednn_linear import onednn_linears
from equipoise.training.parallel import is_plain

#: On a CPU a batch of images takes as long as they take one by one; elsewhere it does not, and a user must want it.
CPU_MEGABYTES = 256


@dataclass
class FastPaths:
    """The ways a model computes while it is trained or answers.

    Attributes:
        cache: of what frozen towers say; None for none.
        fused_lora: whether LoRA layers compute their term in one function.
        onednn: whether linear layers multiply by oneDNN, on processors where that is faster.
    """

    cache: FeatureCache | None = None
    fused_lora: bool = False
    onednn: bool = False

    @contextmanager
    def on(self, model: Any) -> Iterator[None]:
        """Inside, the model computes this way; afterwards as before."""
        with ExitStack() as stack:
            if self.onednn:
                stack.enter_context(onednn_linears(model))
            if self.fused_lora:
                stack.enter_context(fused_lora(model))
            if self.cache is not None:  # after oneDNN, which changes the last bit of what it keeps
                stack.enter_context(caching(model, self.cache))
            yield


def fast_paths(
    trainer: Trainer, feature_cache: int | None, feature_folder: Path | None, fused_lora: bool, onednn: bool
) -> FastPaths:
    """The fast paths of a Trainer, of those that are wanted.

    Args:
        feature_cache: megabytes; 0 for none; `CPU_MEGABYTES` on a CPU and none elsewhere when None.
        feature_folder: where features are also kept, without bound; wanting it is wanting the cache.
        fused_lora, onednn: whether these are wanted.
    """
    if not is_plain(trainer):  # divided weights are gathered in every forward, by all processes alike
        return FastPaths()
    return FastPaths(_cache(feature_cache, feature_folder, trainer.args.device), fused_lora, onednn)


def answering_paths(settings: Train, device: torch.device) -> FastPaths:
    """Those of a tuned model that a recipe's run left: what makes a step of training faster but has nothing to do with
    gradients makes its answers faster too."""
    return FastPaths(_cache(settings.feature_cache, settings.feature_folder, device), onednn=settings.onednn)


def _cache(megabytes: int | None, folder: Path | None, device: torch.device) -> FeatureCache | None:
    if megabytes is None:
        megabytes = CPU_MEGABYTES if device.type == "cpu" else 0
    return FeatureCache(megabytes, folder) if megabytes > 0 or folder is not None else None
