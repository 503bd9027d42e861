"""Gradients of the loss by sample, taken from the training backward on its way to their sum.

A backward pass computes what each sample adds to a weight's gradient and keeps the sum alone. Kept apart, for the LLM's
trainable matrices (LoRA's) and for the embeddings that the encoder gives the LLM, they say to first order how any small
step changes each sample's loss: no forward of its own is needed. `label_drift` makes drifts of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from equipoise.modules.forward import GROUPS, IGNORED, RandomState, batch_norms, replaying
from equipoise.modules.partition import LLM, Partition, base_model, find_decoder
from equipoise.modules.processes import ALONE, Processes
from equipoise.modules.snapshot import Values

Batch = dict[str, Any]
#: Rows of logits that are looked at at a time, so that no second [tokens, vocabulary] tensor is alive.
CHUNK = 64
#: How far the gradient of the logits may lie from that of a negative log-likelihood, relative to its norm.
TOLERANCE = 0.05


@dataclass
class Recorded:
    """What one micro-batch left, for S of its samples.

    Attributes:
        inputs: the whole micro-batch.
        state: random states before its training forward.
        chosen: [S], which of its samples these are; None for all.
        rows: where they are among all that the step's micro-batches left.
        gradients: by name of a trainable weight of the LLM, [S, numbers of the weight].
        embeddings_STD: what the decoder was given in training; None where nothing of the encoder entered it.
        embedding_gradients_STD: of the loss.
        log_probs_K: of the label at each supervised position.
        samples_K: 0 to S-1, which sample each is of.
        loss_weights_S: what the loss multiplies a token's negative log-likelihood by; 0 where that cannot be told
            because nothing is left to learn, or where the loss leaves the sample out.
    """

    inputs: Batch
    state: RandomState
    chosen: torch.Tensor | None
    rows: slice
    gradients: dict[str, torch.Tensor]
    embeddings_STD: torch.Tensor | None
    embedding_gradients_STD: torch.Tensor | None
    log_probs_K: torch.Tensor
    samples_K: torch.Tensor
    loss_weights_S: torch.Tensor


class PerSampleGradients:
    """Records an optimizer step's gradients by sample, of at most so many samples.

    Args:
        model: trained by calling it, in the usual way, between `observe` and `finish`.
        division: its modules.
        samples: the bound; the micro-batches' first ones, drawn at random where a micro-batch has more than are left.
        seed: of the drawing.
        processes: which record together, each so many samples at most.

    Attributes:
        reason: why there are none, in words; None while all is well. Once set it stays, in all processes.
        parts: by micro-batch what was recorded, after `finish`.
        supervised: how many of the recorded samples of all processes supervise anything, after `finish`.
    """

    def __init__(self, model: nn.Module, division: Partition, samples: int, seed: int, processes: Processes = ALONE):
        self.model = model
        self.samples = samples
        self.seed = seed
        self.processes = processes
        self.decoder = find_decoder(model)
        base = base_model(model)
        self.head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        weights = division.trainable[LLM].trainable if LLM in division.trainable else {}
        owners = {id(module.weight): module for module in model.modules() if type(module) is nn.Linear}
        self.linears = {name: owners[id(weight)] for name, weight in weights.items() if id(weight) in owners}
        self.names = {id(weight): name for name, weight in weights.items()}
        self.parts: list[Recorded] = []
        self.reason = self._obstacle(division, weights)
        self._current: _MicroBatch | None = None
        self._norms = batch_norms(model)
        self._handles: list[Any] = []
        self._filled = 0
        self.trusted = False
        self.supervised = 0

    def _obstacle(self, division: Partition, weights: Mapping[str, nn.Parameter]) -> str | None:
        """What in the model rules per-sample gradients out."""
        if self.decoder is None or self.head is None:
            return "the model has no decoder or no output head that transformers knows"
        other = [name for name in weights if name not in self.linears]
        if other or not weights:
            return f"{other[0] if other else 'no weight of the LLM'} is not the weight of a plain linear layer"
        inside = {id(parameter) for parameter in self.decoder.parameters()}
        for name, module in division.trainable.items():
            if name != LLM and any(id(parameter) in inside for parameter in module.trainable.values()):
                return f"module {name} lies inside the LLM"
        size, frozen = division.trainable[LLM].size, sum(module.frozen for module in division.modules.values())
        if self.samples * size > frozen:
            return f"{self.samples} gradients of the LLM's {size:,} trainable numbers take more memory than the model"
        return None

    # ------------------------------------------------------------------ while the step's batches are trained on

    def observe(self, inputs: Batch, state: RandomState, step: int) -> None:
        """Record the micro-batch whose forward comes next."""
        self._close()
        left = self.samples - self._filled
        if self.reason is not None or left <= 0:
            return
        size = inputs["labels"].shape[0]
        rows = None
        if size > left:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            rows = torch.randperm(size, generator=generator)[:left].sort().values.to(inputs["labels"].device)
        count = size if rows is None else len(rows)
        self._current = _MicroBatch(self, inputs, state, rows, slice(self._filled, self._filled + count))
        self._filled += count
        assert self.decoder is not None
        assert self.head is not None
        self._handles = [module.register_forward_hook(self._current.see_linear) for module in self.linears.values()]
        self._handles.append(self.decoder.register_forward_pre_hook(self._current.see_decoder, with_kwargs=True))
        self._handles.append(self.head.register_forward_hook(self._current.see_head))
        for module in self.linears.values():
            vars(module)["per_sample"] = self._current  # for layers whose forward does not call their parts

    def finish(self) -> None:
        """The last backward of the step is done. Processes agree on whether they have its gradients."""
        self._close()
        supervised = sum(part.samples_K.unique().numel() for part in self.parts)
        everybody = self.processes.gather([supervised, self.trusted, *map(ord, self.reason or "")])
        self.supervised = int(sum(numbers[0] for numbers in everybody))
        self.trusted = any(numbers[1] for numbers in everybody)
        reasons = ("".join(chr(int(letter)) for letter in numbers[2:]) for numbers in everybody)
        self.reason = next((reason for reason in reasons if reason), None)

    def forget(self) -> None:
        """Let go of all that was recorded, of a micro-batch that was broken off too."""
        self._close(keep=False)
        self.parts, self._filled = [], 0

    def _close(self, keep: bool = True) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._current is None:
            return
        for module in self.linears.values():
            vars(module).pop("per_sample", None)
        current, self._current = self._current, None
        part = current.result() if keep and self.reason is None else None
        if part is None:
            self._filled = current.place.start
        else:
            self.parts.append(part)

    # ------------------------------------------------------------------ what was recorded

    def along(self, step: Values) -> torch.Tensor:
        """[S], how the loss that each recorded sample adds changes along a step of the LLM, to first order.

        Args:
            step: by parameter name; other modules' are not looked at.
        """
        changes = []
        for part in self.parts:
            change = part.log_probs_K.new_zeros(part.rows.stop - part.rows.start)
            for name, gradients in part.gradients.items():
                change += gradients.to(step[name].dtype) @ step[name].flatten()
            changes.append(change)
        return torch.cat(changes) if changes else torch.zeros(0)

    def combined(self, coefficients_S: torch.Tensor) -> Values:
        """The LLM's gradients, summed with these coefficients, by parameter name."""
        sums: Values = {}
        for part in self.parts:
            for name, gradients in part.gradients.items():
                weight = self.linears[name].weight
                shares = coefficients_S[part.rows].to(weight.dtype)
                found = (shares @ gradients.to(weight.dtype)).view_as(weight)
                sums[name] = sums[name].add_(found) if name in sums else found
        return sums

    def embeddings(self, part: Recorded) -> torch.Tensor:
        """[S, T, D], what the decoder would be given now for a recorded micro-batch, under its dropout masks."""
        assert self.decoder is not None
        inputs = {name: value for name, value in part.inputs.items() if name not in ("labels", GROUPS)}
        with replaying(self._norms, part.state), _stopping_at(self.decoder) as seen:
            self.model(**inputs)
        return _own(seen[0], part.chosen)


class _MicroBatch:
    """Sees one micro-batch's training forward and backward."""

    def __init__(
        self, owner: PerSampleGradients, inputs: Batch, state: RandomState, rows: torch.Tensor | None, place: slice
    ):
        self.owner = owner
        self.inputs = inputs
        self.state = state
        self.chosen = rows
        self.place = place
        self.size = inputs["labels"].shape[0]
        self._gradients: dict[str, torch.Tensor] = {}
        self._embeddings: torch.Tensor | None = None
        self._embedding_gradients: torch.Tensor | None = None
        self._log_probs: torch.Tensor | None = None
        self._label_gradients: torch.Tensor | None = None
        targets_BT = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
        if rows is not None:
            left_out = torch.ones(self.size, dtype=torch.bool, device=rows.device).index_fill(0, rows, False)
            targets_BT = targets_BT.masked_fill(left_out[:, None], IGNORED)
        self._of_all = inputs["labels"][:, 1:] != IGNORED
        self._rows_K, self._columns_K = (targets_BT != IGNORED).nonzero(as_tuple=True)
        self._labels_K = targets_BT[self._rows_K, self._columns_K]

    # ------------------------------------------------------------------ hooks

    def see_linear(self, module: nn.Linear, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        """The LLM's trainable maps: their weight's gradients by sample come with the backward."""
        if not (torch.is_grad_enabled() and output.requires_grad):
            return None
        return _Tap.apply(output, args[0].detach(), self, module.weight)

    def see_decoder(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the encoder gives the LLM."""
        if not torch.is_grad_enabled():
            return
        embeddings = kwargs.get("inputs_embeds")
        if embeddings is None or embeddings.shape[0] != self.size:
            self._give_up("the decoder is not given one row of embeddings a sample")
            return
        others = pytree.tree_leaves((args, {k: v for k, v in kwargs.items() if k != "inputs_embeds"}))
        if any(isinstance(value, torch.Tensor) and value.requires_grad for value in others):
            self._give_up("the encoder's features enter the LLM in more places than its embeddings")
            return
        if embeddings.requires_grad:
            self._embeddings = self._own(embeddings.detach())
            embeddings.register_hook(self._see_embedding_gradients)

    def see_head(self, _: nn.Module, __: tuple[Any, ...], logits: torch.Tensor) -> None:
        """The logits, whole or cut to the supervised positions."""
        if not (torch.is_grad_enabled() and logits.requires_grad):
            return
        supervised = int(self._of_all.sum())
        if logits.dim() == 3 and logits.shape[0] == self.size and logits.shape[1] >= self._of_all.shape[1] + 1:
            length = logits.shape[1]  # image tokens may stand in front
            places_K = self._rows_K * length + self._columns_K + length - self._of_all.shape[1] - 1
        elif logits.dim() == 3 and logits.shape[:2] == (1, supervised + 1):
            number_BT = self._of_all.flatten().cumsum(0).view_as(self._of_all) - 1
            places_K = number_BT[self._rows_K, self._columns_K]
        else:
            self._give_up(f"the LM head gave {tuple(logits.shape)} for labels {tuple(self.inputs['labels'].shape)}")
            return
        logits_NV = logits.detach().flatten(0, 1)
        precise = torch.float64 if logits.dtype == torch.float64 else torch.float32
        found, squares = [], []
        for rows, labels in zip(places_K.split(CHUNK), self._labels_K.split(CHUNK), strict=True):
            log_probs = torch.log_softmax(logits_NV[rows].to(precise), dim=-1)
            found.append(log_probs.gather(-1, labels[:, None]).squeeze(-1))
            if not self.owner.trusted:
                error = log_probs.exp().scatter_add_(-1, labels[:, None], -torch.ones_like(log_probs[:, :1]))
                squares.append(error.square().sum(dim=-1))
        self._log_probs = torch.cat(found) if found else logits.new_zeros(0, dtype=precise)
        norms_K = torch.cat(squares).sqrt() if squares else None

        def see_gradient(gradients: torch.Tensor) -> None:
            gradients_NV = gradients.flatten(0, 1)
            self._label_gradients = gradients_NV[places_K, self._labels_K].to(precise)
            if norms_K is not None:
                self._check_loss(gradients_NV[places_K].to(precise).norm(dim=-1), norms_K)

        logits.register_hook(see_gradient)

    def _see_embedding_gradients(self, gradients: torch.Tensor) -> None:
        own = self._own(gradients.detach())
        self._embedding_gradients = own if self._embedding_gradients is None else self._embedding_gradients + own

    def take(self, parameter: nn.Parameter, gradients: torch.Tensor) -> None:
        """Keep a weight's gradients by sample, [B, *shape of the weight]."""
        if gradients.dim() != 3 or gradients.shape[0] != self.size:
            self._give_up("the LLM's linear layers are not given one row a sample")
            return
        name, own = self.owner.names[id(parameter)], self._own(gradients).flatten(1)
        # A layer that is run twice adds to what it gave.
        self._gradients[name] = self._gradients[name] + own if name in self._gradients else own

    # ------------------------------------------------------------------ inside

    def _own(self, values: torch.Tensor) -> torch.Tensor:
        return _own(values, self.chosen)

    def _give_up(self, reason: str) -> None:
        self.owner.reason = self.owner.reason or reason

    def _check_loss(self, norms_K: torch.Tensor, expected_K: torch.Tensor) -> None:
        """Whether the gradient of the logits is that of a weighted negative log-likelihood, w (p - e_y)."""
        weights_K = self._weights(self._label_gradients, self._rows_K, self.size)[self._rows_K]
        error = (norms_K - weights_K * expected_K).norm()
        if not (torch.isfinite(error) and norms_K.norm() > 0):
            return  # an overflow, or a batch that teaches nothing: the next will tell
        if error > TOLERANCE * norms_K.norm():
            self._give_up("the loss is not the negative log-likelihood of what the LM head says")
        elif len(norms_K):
            self.owner.trusted = True

    def _weights(self, gradients_K: torch.Tensor | None, samples_K: torch.Tensor, count: int) -> torch.Tensor:
        """Of each sample's tokens in the loss: -w (1 - p) is the gradient of a label's logit."""
        assert gradients_K is not None
        assert self._log_probs is not None
        zeros = self._log_probs.new_zeros(count)
        doubts_S = zeros.index_add(0, samples_K, -torch.expm1(self._log_probs))
        found_S = -zeros.index_add(0, samples_K, gradients_K)
        return torch.where(doubts_S > 1e-6, found_S / doubts_S.clamp(min=1e-6), 0.0).clamp(min=0.0)

    def result(self) -> Recorded | None:
        """What was seen; None, and a reason, where something was not."""
        if not len(self._labels_K):
            return None
        if self._label_gradients is None:
            self._give_up("the logits of the LM head were not seen")
        elif len(self._gradients) < len(self.owner.names):
            self._give_up("not every trainable weight of the LLM was used in the forward")
        if self.owner.reason is not None:
            return None
        samples_K = self._rows_K
        if self.chosen is not None:
            samples_K = torch.searchsorted(self.chosen, self._rows_K)
        count = self.place.stop - self.place.start
        assert self._log_probs is not None
        return Recorded(
            inputs=self.inputs,
            state=self.state,
            chosen=self.chosen,
            rows=self.place,
            gradients=self._gradients,
            embeddings_STD=self._embeddings,
            embedding_gradients_STD=self._embedding_gradients,
            log_probs_K=self._log_probs,
            samples_K=samples_K,
            loss_weights_S=self._weights(self._label_gradients, samples_K, count),
        )


class _Tap(torch.autograd.Function):
    """A linear map's output as it is; in the backward, its weight's gradients by sample."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, input: torch.Tensor, seen: _MicroBatch, weight: nn.Parameter
    ) -> torch.Tensor:
        ctx.save_for_backward(input)
        ctx.seen, ctx.weight = seen, weight
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient_BTO: torch.Tensor) -> Any:
        (input_BTI,) = ctx.saved_tensors
        if gradient_BTO.dim() == 3:
            by_sample = torch.bmm(gradient_BTO.transpose(1, 2), input_BTI.to(gradient_BTO.dtype))
            ctx.seen.take(ctx.weight, by_sample)
        return gradient_BTO, None, None, None


class _Stopped(Exception):
    """Ends a forward where the decoder begins."""


@contextmanager
def _stopping_at(decoder: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Inside, a forward goes as far as the decoder; what that would be given is in the list afterwards."""
    seen: list[torch.Tensor] = []

    def stop(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["inputs_embeds"])
        raise _Stopped

    handle = decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield seen
    except _Stopped:
        pass
    finally:
        handle.remove()


def _own(values: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
    return values if chosen is None else values[chosen]
