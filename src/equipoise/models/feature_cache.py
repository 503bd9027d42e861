"""What frozen towers say of images and clips, kept: each is encoded once, whoever asks about it and how often.

A row of a tower's input (an image, a clip) is known by a digest of its numbers, so that with another processor, crop
or padding it is another row. Rows are encoded one at a time: a feature that was kept is to the last bit the one that
would be computed anew, whatever batch it is in, and a run that goes on with an empty cache gets the numbers of one that
did not stop. Towers with a trainable parameter or active dropout are left alone, and what is known of a tower is
forgotten when its weights change.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from transformers import PreTrainedModel

from equipoise.models.feature_store import FeatureCache, Features
from equipoise.models.stand_in import is_replaced, standing_in
from equipoise.modules.forward import RandomState, batch_norms
from equipoise.modules.partition import find_decoder

logger = logging.getLogger(__name__)
MEDIA = frozenset({"image", "audio", "video"})
PLAIN = (bool, int, float, str, type(None), torch.dtype)
#: How far, relative to their norm, features of a batch that was encoded as a whole may lie from those of its rows.
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}
COARSE_ROUNDING = 0.05


@contextmanager
def caching(model: nn.Module, cache: FeatureCache) -> Iterator[list[str]]:
    """Inside, the model's frozen towers look into the cache before they compute.

    Args:
        model: with or without wrappers; its parameters may not be divided over processes.
        cache: of this model alone.

    Yields:
        The names of the towers.
    """
    found = towers(model)
    with ExitStack() as stack:
        for name, tower in found.items():
            stack.enter_context(standing_in(tower, _Tower(name, tower, cache).forward))
        yield list(found)


def towers(model: nn.Module) -> dict[str, PreTrainedModel]:
    """The outermost parts of a model, by name, that read images or audio and no text and of which nothing learns."""
    decoder = find_decoder(model)
    found: dict[str, PreTrainedModel] = {}
    for name, module in model.named_modules():
        if not isinstance(module, PreTrainedModel) or any(name.startswith(f"{outer}.") for outer in found):
            continue
        reads = module.input_modalities
        reads_media = ({reads} if isinstance(reads, str) else set(reads)) <= MEDIA
        holds_llm = decoder is not None and any(part is decoder for part in module.modules())
        if reads_media and not holds_llm and _is_frozen(module):
            found[name] = module
    return found


class _Tower:
    """One tower, whose forward asks the cache first."""

    def __init__(self, name: str, module: PreTrainedModel, cache: FeatureCache):
        self.name, self.module, self.cache = name, module, cache
        self.compute: Callable[..., Any] = module.forward
        self.drops = has_dropout(module)
        self.works = True
        self._compared = False
        self._norms = batch_norms(module)
        self._weights = _weights(module)
        self._identity = self._identify()

    def _identify(self) -> str:
        """Names the tower: in this process, or wherever it is the same to the last bit."""
        if self.cache.folder is None:
            return self.name
        settings = {name: value for name, value in self.module.config.to_dict().items() if not name.startswith("_")}
        machine = [torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]
        if self.module.device.type == "cuda":
            machine.append(torch.cuda.get_device_name(self.module.device))
        if any(is_replaced(part) for part in self.module.modules()):
            machine.append("layers with another forward")  # which may round otherwise
        digest = hashlib.sha256(repr((type(self.module).__qualname__, settings, machine)).encode())
        for name, value in self.module.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes_of(value.detach().cpu()))
        return digest.hexdigest()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own, row by row and each row once; or just the module's own."""
        batch = _Batch(args, kwargs)
        joined = self._by_rows(batch) if batch.has_rows and self._may_cache() else None
        return joined if joined is not None else self.compute(*args, **kwargs)

    def _may_cache(self) -> bool:
        norms = any(norm.training for norm in self._norms)
        weights = _weights(self.module)
        if weights != self._weights or norms:
            self.cache.clear()
            self._weights = weights
            self._identity = self._identify()
        return self.works and not norms and not (self.drops and self.module.training) and _is_frozen(self.module)

    def _by_rows(self, batch: _Batch) -> Any:
        """What the module says of the batch; None where its rows cannot be told apart."""
        keys = batch.digests(self._identity)
        found: dict[bytes, Features] = {}
        for number, key in enumerate(keys):
            if key in found:
                continue
            features = self.cache.get(key)
            if features is None:
                features = _features(self._run(batch, slice(number, number + 1)))
                if not self.works:
                    return self._give_up("it draws random numbers")
                if features is None:
                    return self._give_up("its output is not one row an input")
                self.cache.put(key, features)
            found[key] = features
        rows = [found[key] for key in keys]
        if any(row.form != rows[0].form for row in rows):
            return None  # it says more of some rows than of others
        joined = _joined(rows, batch.device)
        if len(found) > 1 and not self._compared:
            self._compared = True
            if not _agree(self._run(batch, slice(None)), joined):
                return self._give_up("what it says of a row depends on the batch")
        return joined

    def _run(self, batch: _Batch, rows: slice) -> Any:
        """The module on some rows, in eval mode; a tower that draws random numbers even then is not cached."""
        flags = [module for module in self.module.modules() if module.training]
        state = RandomState()
        args, kwargs = batch.rows(rows)
        try:
            self.module.eval()
            with torch.inference_mode(False), torch.no_grad():
                output = self.compute(*args, **kwargs)
        finally:
            for module in flags:
                module.training = True
        self.works = self.works and state.is_now()
        if not self.works:
            state.restore()
        return output

    def _give_up(self, reason: str) -> None:
        logger.warning("%s: its features are not cached, for %s", self.name, reason)
        self.works = False
        self.cache.clear()


class _Batch:
    """The arguments of one call of a tower, as rows."""

    def __init__(self, args: tuple, kwargs: dict[str, Any]):
        self.leaves, self.structure = pytree.tree_flatten((args, kwargs))
        self.tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        # Which layers are asked for may be a list; any other may be one number an image.
        values = [*args, *(value for name, value in kwargs.items() if name != "output_hidden_states")]
        self._plain = all(isinstance(value, (*PLAIN, torch.Tensor)) for value in values)

    @property
    def has_rows(self) -> bool:
        """Whether every tensor has a row for each image or clip, and all else is plain.

        An image is [3, H, W], a clip [mel, T] or so. Packed patches of several images, [patches, numbers], are not
        rows: how they belong together is told elsewhere.
        """
        if not self._plain or any(value.dim() == 0 or value.requires_grad for value in self.tensors):
            return False
        counts = {len(value) for value in self.tensors}
        media = [value for value in self.tensors if value.is_floating_point() and value.dim() in (3, 4)]
        return len(counts) == 1 and counts != {0} and bool(media)

    @property
    def device(self) -> torch.device:
        return self.tensors[0].device

    def rows(self, which: slice) -> Any:
        """The arguments with these rows alone."""
        leaves = [leaf[which] if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.structure)

    def digests(self, name: str) -> list[bytes]:
        """One for each row: of its numbers, and of all that decides what the tower makes of them."""
        kind = self.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        common = [
            (leaf.dtype, tuple(leaf.shape[1:])) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves
        ]
        begun = hashlib.sha256(repr((name, self.structure, common, kind, autocast)).encode())
        found = [begun.copy() for _ in self.tensors[0]]
        for value in self.tensors:
            for digest, row in zip(found, value.detach().cpu(), strict=True):
                digest.update(_bytes_of(row))
        return [digest.digest() for digest in found]


def has_dropout(module: PreTrainedModel) -> bool:
    """Whether a part of the module drops anything while it trains, by what its parts and its config are set to."""
    places = [vars(part) for part in module.modules()] + [module.config.to_dict()]
    parts = [part for part in module.modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    rates = [part.p for part in parts]
    rates += [value for place in places for name, value in place.items() if "drop" in name]
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def _features(output: Any) -> Features | None:
    """A tower's output on one row; None if it is not rows."""
    leaves, structure = pytree.tree_flatten(output)
    if not all(leaf is None or (isinstance(leaf, torch.Tensor) and leaf.shape[:1] == (1,)) for leaf in leaves):
        return None
    tensors = {id(leaf): leaf for leaf in leaves if leaf is not None}
    order = {key: number for number, key in enumerate(tensors)}
    places = tuple(None if leaf is None else order[id(leaf)] for leaf in leaves)
    orders = tuple(_memory_order(value) for value in tensors.values())
    laid_out = (value.permute(way).contiguous() for value, way in zip(tensors.values(), orders, strict=True))
    return Features(structure, places, orders, tuple(laid_out))


def _joined(rows: Sequence[Features], device: torch.device) -> Any:
    """The output on a batch, from those on its rows; always in memory of its own, which callers may write to."""
    structure, places, orders, _ = rows[0]
    columns = zip(*(row.tensors for row in rows), strict=True)
    laid_out = [torch.cat([value.to(device) for value in column]) for column in columns]
    tensors = [value.permute(*map(way.index, range(value.dim()))) for value, way in zip(laid_out, orders, strict=True)]
    return pytree.tree_unflatten([None if place is None else tensors[place] for place in places], structure)


def _memory_order(value: torch.Tensor) -> tuple[int, ...]:
    """The dimensions from the one with the longest stride to the one with the shortest; the row's first."""
    strides: tuple[int, ...] = value.stride()
    return (0, *sorted(range(1, value.dim()), key=lambda dimension: -strides[dimension]))


def _agree(whole: Any, joined: Any) -> bool:
    """Whether two outputs are the same up to rounding."""
    ones, others = pytree.tree_leaves(whole), pytree.tree_leaves(joined)
    if [getattr(one, "shape", None) for one in ones] != [getattr(other, "shape", None) for other in others]:
        return False
    for one, other in zip(ones, others, strict=True):
        if one is not None:
            allowed = ROUNDING.get(one.dtype, COARSE_ROUNDING) * one.double().norm()
            if (one.double() - other.double()).norm() > allowed:
                return False
    return True


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _weights(module: nn.Module) -> list[tuple[int, int]]:
    """Changes when a parameter is replaced or written to."""
    return [(parameter.data_ptr(), parameter._version) for parameter in module.parameters()]


def _bytes_of(value: torch.Tensor) -> Any:
    """The tensor's numbers as they lie in memory, a buffer."""
    return value.contiguous().reshape(-1).view(torch.uint8).numpy()
