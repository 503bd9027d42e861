"""When a Trainer's frozen towers are cached, and how much of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from transformers import Trainer

from equipoise.models.feature_cache import caching
from equipoise.models.feature_store import FeatureCache

#: On a CPU a batch of images takes as long as they take one by one; elsewhere it does not, and a user must want it.
CPU_MEGABYTES = 256


def cache_for(trainer: Trainer, megabytes: int | None, folder: Path | None = None) -> FeatureCache | None:
    """The cache of a Trainer's model; None where there is to be none, or there can be none.

    Args:
        megabytes: 0 for none; `CPU_MEGABYTES` on a CPU and none elsewhere when None.
        folder: where features are also kept, without bound; wanting it is wanting the cache.
    """
    if megabytes is None:
        megabytes = CPU_MEGABYTES if trainer.args.device.type == "cpu" else 0
    parallel = trainer.accelerator.parallelism_config
    divided = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or trainer.args.n_gpu > 1
    divided = divided or (parallel is not None and parallel.non_data_parallel_size > 1)
    # Divided weights are gathered in every forward, by all processes alike; a compiled forward is not looked into.
    if (megabytes == 0 and folder is None) or divided or trainer.args.torch_compile:
        return None
    return FeatureCache(megabytes, folder)


def cached(model: Any, cache: FeatureCache | None) -> AbstractContextManager[Any]:
    """Inside, the model's towers use the cache, if there is one."""
    return caching(model, cache) if cache is not None else nullcontext()
