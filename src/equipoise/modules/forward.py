"""Forwards that look at a model without leaving a trace on it.

`Supervised` is what a forward says at the positions whose next token is supervised; everything that balance between
modules measures is computed from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from equipoise.modules.partition import base_model, find_decoder

IGNORED = -100
PLACEHOLDERS = ("image", "audio", "video")
GROUPS = "sample_groups"  # a batch's entry [B]: which group each sample is of (a task); no input of the model


@dataclass
class Supervised:
    """What the model predicts at supervised positions.

    Attributes:
        logits_KV: [K, V], in float32, or float64 where the model computes in it.
        labels_K: [K], the token that each position should predict.
        samples_K: [K], which sample of the batch each position is of, 0 to B-1.
        batch_size: B.
    """

    logits_KV: torch.Tensor
    labels_K: torch.Tensor
    samples_K: torch.Tensor
    batch_size: int

    @property
    def log_probs_KV(self) -> torch.Tensor:
        """[K, V], the log of the predicted distribution."""
        return torch.log_softmax(self.logits_KV, dim=-1)

    def sum_of_sample_means(self, values_K: torch.Tensor) -> torch.Tensor:
        """Mean over each sample's supervised tokens, summed over the samples: a scalar."""
        counts_B = self.samples_K.bincount(minlength=self.batch_size).clamp(min=1).to(values_K.dtype)
        return (values_K / counts_B[self.samples_K]).sum()

    def sample_means(self, values_K: torch.Tensor) -> torch.Tensor:
        """[B], the mean over each sample's supervised tokens; 0 for a sample without any."""
        counts_B = self.samples_K.bincount(minlength=self.batch_size).clamp(min=1).to(values_K.dtype)
        return torch.zeros_like(counts_B).index_add_(0, self.samples_K, values_K) / counts_B

    @property
    def supervised_samples(self) -> int:
        """Samples with at least one supervised token: what a sum of sample means is divided by."""
        return int(self.samples_K.unique().numel())


def supervised(model: nn.Module, inputs: Mapping[str, Any]) -> Supervised:
    """Run the model on a batch and keep its logits at the supervised positions.

    The LM head runs only at positions that some row supervises, where the model takes `logits_to_keep`.

    Args:
        model: called with the batch's entries but `labels`; returns an object with `logits` [B, T, V].
        inputs: a batch with `labels` [B, T], -100 where nothing is supervised; the shift is applied here. `GROUPS` are
            not given to the model.
    """
    labels_BT = inputs["labels"]
    targets_BT = torch.nn.functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
    mask_BT = targets_BT != IGNORED
    positions = mask_BT.any(dim=0).nonzero().squeeze(-1)
    arguments = {name: value for name, value in inputs.items() if name not in ("labels", GROUPS)}
    if _keeps_logits(model):
        logits_BTV = model(**arguments, use_cache=False, logits_to_keep=positions).logits
        targets_BT, mask_BT = targets_BT[:, positions], mask_BT[:, positions]
    else:
        # A model that widens the sequence in front (a prefix of image tokens) has its last T positions for the text.
        logits_BTV = model(**arguments).logits[:, -labels_BT.shape[1] :]
    logits_KV = logits_BTV[mask_BT]
    return Supervised(
        logits_KV=logits_KV if logits_KV.dtype == torch.float64 else logits_KV.float(),
        labels_K=targets_BT[mask_BT],
        samples_K=mask_BT.nonzero()[:, 0],
        batch_size=labels_BT.shape[0],
    )


def _keeps_logits(model: nn.Module) -> bool:
    return "logits_to_keep" in inspect.signature(type(base_model(model)).forward).parameters


def placeholder_tokens(model: nn.Module) -> list[int]:
    """The tokens in whose places a model's decoder reads encoded images, audio or video."""
    config = getattr(model, "config", None)
    ids = (getattr(config, f"{kind}_token_{name}", None) for kind in PLACEHOLDERS for name in ("id", "index"))
    return list(dict.fromkeys(token for token in ids if isinstance(token, int)))


def subset(inputs: Mapping[str, Any], indices: torch.Tensor, placeholders: Sequence[int] = ()) -> dict[str, Any]:
    """Take some samples of a batch.

    Where that cannot be done without knowing the model's family (a tensor with another first dimension than the
    batch, rows with unequal numbers of placeholder tokens), the whole batch is returned: dearer, never wrong.
    """
    batch_size = inputs["labels"].shape[0]
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor) and value.dim() > 0}
    uniform = all(value.shape[0] == batch_size for value in tensors.values())
    for token in placeholders if uniform and "input_ids" in inputs else ():
        per_row = (inputs["input_ids"] == token).sum(dim=1)
        uniform = uniform and bool((per_row == per_row[0]).all())
    if not uniform or indices.numel() >= batch_size:
        return dict(inputs)
    return {name: value[indices] if name in tensors else value for name, value in inputs.items()}


def draw(
    batches: Sequence[Mapping[str, Any]], count: int, generator: torch.Generator, placeholders: Sequence[int] = ()
) -> list[tuple[int, dict[str, Any]]]:
    """Draw samples, evenly from all batches.

    Args:
        batches: as for `subset`.
        count: how many; where a batch cannot be divided, there are more.

    Returns:
        The number of each batch that gives any, and what it gives. As many give any whatever their sizes are.
    """
    left = count
    drawn: list[tuple[int, dict[str, Any]]] = []
    # The smallest first, so that what they lack is drawn from the larger ones.
    by_size = sorted(enumerate(batches), key=lambda pair: pair[1]["labels"].shape[0])
    for taken, (position, batch) in enumerate(by_size):
        share = -(-left // (len(batches) - taken))
        if share == 0:
            break
        left -= min(share, batch["labels"].shape[0])
        indices = torch.randperm(batch["labels"].shape[0], generator=generator)[:share].sort().values
        drawn.append((position, subset(batch, indices.to(batch["labels"].device), placeholders)))
    return sorted(drawn, key=lambda pair: pair[0])


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Measure inside: eval mode, no gradients; every module's train/eval flag and all random states come back."""
    flags = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(), torch.no_grad():
        try:
            model.eval()
            yield
        finally:
            for module, flag in flags.items():
                module.training = flag


@contextmanager
def replaying(model: nn.Module | Sequence[nn.Module], state: RandomState) -> Iterator[None]:
    """Run a training-mode forward inside with the dropout masks of `state`; BatchNorm and random states come back.

    Args:
        model: or its `batch_norms`, for who replays it often.
        state: as before the forward that is run again.
    """
    norms = batch_norms(model) if isinstance(model, nn.Module) else model
    buffers = [(norm, dict(norm._buffers)) for norm in norms if norm.training]
    with torch.random.fork_rng():
        try:
            for norm, originals in buffers:
                norm._buffers.update({n: b.clone() for n, b in originals.items() if b is not None})
            state.restore()
            yield
        finally:
            for norm, originals in buffers:
                norm._buffers.update(originals)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that keep statistics of their batches."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]


class RandomState:
    """The states of torch's random generators, CPU and CUDA, as they are now."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def is_now(self) -> bool:
        """Whether nothing was drawn since."""
        now = RandomState()
        return torch.equal(self.cpu, now.cpu) and all(map(torch.equal, self.cuda, now.cuda))

    def restore(self) -> None:
        """Put the generators back into these states."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


@dataclass
class InputNorms:
    """Squared Frobenius norms of what a forward was given, for eq. 7; summed over batches."""

    text: float = 0.0
    encoded: float = 0.0
    raw: float = 0.0


class Embeddings:
    """Watches what enters the decoder, to tell text embeddings from encoded features by their placeholder tokens."""

    def __init__(self, model: nn.Module):
        self.placeholders = placeholder_tokens(model)
        self._decoder = find_decoder(model) if self.placeholders else None
        self._seen: torch.Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the forwards inside the block."""
        if self._decoder is None:
            yield
            return
        hook = self._decoder.register_forward_pre_hook(self._see, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _see(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        embeddings = kwargs.get("inputs_embeds")
        self._seen = embeddings.detach() if embeddings is not None else None

    def norms(self, inputs: Mapping[str, Any]) -> InputNorms | None:
        """Norms over the prompt of the batch that was just run, or None if no embeddings were seen."""
        seen, ids = self._seen, inputs.get("input_ids")
        self._seen = None
        if seen is None or ids is None or seen.shape[:2] != ids.shape:
            return None
        squares_BT = seen.float().square().sum(dim=-1)
        features_BT = torch.isin(ids, torch.tensor(self.placeholders, device=ids.device))
        text_BT = ~features_BT & (inputs["labels"] == IGNORED)
        if "attention_mask" in inputs:
            text_BT &= inputs["attention_mask"].bool()
        raw = [v for name, v in inputs.items() if name in ("pixel_values", "input_features", "input_values")]
        return InputNorms(
            text=squares_BT[text_BT].sum().item(),
            encoded=squares_BT[features_BT].sum().item(),
            raw=sum(value.float().square().sum().item() for value in raw),
        )
