"""Where features are kept by the digest of their input: in main memory up to a bound, in a folder if there is one."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

logger = logging.getLogger(__name__)


class Features(NamedTuple):
    """What a tower says of one row.

    Attributes:
        structure: how its output is put together (a pytree's).
        places: which of the tensors stands at each place of it; None where there is none.
        orders: of each tensor's dimensions: how the output has them in memory, the row's first; what comes behind the
            tower rounds by it.
        tensors: [1, ...] each, contiguous, their dimensions in that order.
    """

    structure: Any
    places: tuple[int | None, ...]
    orders: tuple[tuple[int, ...], ...]
    tensors: tuple[torch.Tensor, ...]

    @property
    def form(self) -> tuple[Any, ...]:
        """What rows must have in common to be joined."""
        return self.structure, self.places, self.orders, [value.shape for value in self.tensors]


class FeatureCache:
    """Features by digest. What came into memory first stays there: an epoch asks for every row once.

    Args:
        megabytes: how much is kept in main memory.
        folder: also keep each in a file here, for other runs; not bounded. Files of other weights, inputs, devices,
            numbers of threads and versions of torch may lie side by side.
    """

    def __init__(self, megabytes: int, folder: Path | None = None):
        self.capacity = megabytes * 1_000_000
        self.folder = folder
        self.size = self.hits = self.misses = 0
        self._kept: dict[bytes, Features] = {}
        self._structures: dict[str, Any] = {}
        self._writes = folder is not None

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Features | None:
        """What is kept under this digest."""
        found = self._kept.get(key) or self._read(key)
        self.hits += found is not None
        self.misses += found is None
        return found

    def put(self, key: bytes, features: Features) -> None:
        """Keep these: in memory if there is room, and in the folder."""
        features = features._replace(tensors=tuple(map(_apart, features.tensors)))
        self._structures.setdefault(repr(features.structure), features.structure)
        self._keep(key, features)
        if self._writes:
            self._write(key, features)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._kept.clear()
        self.size = 0

    def _keep(self, key: bytes, features: Features) -> None:
        size = sum(value.nbytes for value in features.tensors)
        if key not in self._kept and self.size + size <= self.capacity:
            self._kept[key] = features
            self.size += size

    def _file(self, key: bytes) -> Path:
        assert self.folder is not None
        return self.folder / key.hex()[:2] / f"{key.hex()}.safetensors"

    def _read(self, key: bytes) -> Features | None:
        """From the folder. Of how outputs are put together it knows only what this process has seen: a pickle, which
        could do anything, is never opened."""
        if self.folder is None or not (file := self._file(key)).is_file():
            return None
        try:
            with safe_open(file, framework="pt") as opened:
                told = opened.metadata()
                tensors = tuple(opened.get_tensor(str(number)) for number in range(int(told["tensors"])))
            places = tuple(json.loads(told["places"]))
            orders = tuple(map(tuple, json.loads(told["orders"])))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # cut short, or of somebody else's
            return None
        structure = self._structures.get(told.get("structure", ""))
        if structure is None:
            return None
        features = Features(structure, places, orders, tensors)
        self._keep(key, features)
        return features

    def _write(self, key: bytes, features: Features) -> None:
        """To the folder, whole or not at all; where that fails, the run goes on without."""
        file = self._file(key)
        tensors = {str(number): value for number, value in enumerate(features.tensors)}
        told = {
            "structure": repr(features.structure), "places": json.dumps(features.places),
            "orders": json.dumps(features.orders), "tensors": str(len(tensors)),
        }  # fmt: skip
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as scratch:
                save_file(tensors, Path(scratch) / "features", told)
                os.replace(Path(scratch) / "features", file)
        except OSError as error:
            logger.warning("%s: no more features are written (%s)", self.folder, error.strerror or error)
            self._writes = False


def _apart(value: torch.Tensor) -> torch.Tensor:
    """The tensor in main memory, in storage that holds nothing else."""
    value = value.detach().cpu()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()
