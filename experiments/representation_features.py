"""What a model makes of a sample inside: after its encoder's side, and in its LLM where the answer begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.models.families import family_of
from equipoise.modules.partition import base_model

CROSS_ATTENTION = "cross_attention"


def connectors(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The parts of the encoder's side that are trained in full, the outermost of each name, by module."""
    bare, family = base_model(model), family_of(model)
    modules = dict(bare.named_modules())
    found = {}
    for name, paths in family.paths(model).items():
        if name in family.trained:
            known = [path for path in paths if path in modules]  # a Q-Former's query tokens are no module
            outer = [path for path in known if not any(path.startswith(f"{other}.") for other in known)]
            if outer:
                found[name] = [modules[path] for path in outer]
    return found


def features(
    model: nn.Module, collator: Collator, samples: Sequence[Sample], batch_size: int, advance: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    """Features of each sample at every place, [N, D] in float32.

    Args:
        samples: each with one image or clip.

    Returns:
        By place: the connectors by their names (the mean over an image's or a clip's tokens; of cross-attention layers
        what they add at the last position of the prompt, side by side), and `llm 1/3`, `llm 2/3`, `llm` (the hidden
        state after so many of its layers, at that position).

    Raises:
        ValueError: a connector's outputs are not one a sample.
    """
    model.eval()
    found: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(samples), batch_size):
        rows = samples[start : start + batch_size]
        for place, value in _batch(model, collator.prompts(rows)).items():
            if len(value) != len(rows):
                raise ValueError(
                    f"{place}: found {len(value)} outputs of {len(rows)} samples; each needs one image or clip"
                )
            found.setdefault(place, []).append(value.float())
        advance(len(rows))
    return {place: torch.cat(values) for place, values in found.items()}


def _batch(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: dict[str, list[torch.Tensor]] = {}

    def pooled(place: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            seen.setdefault(place, []).append(_tensor(output).mean(dim=1))

        return hook

    def added(place: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            seen.setdefault(place, []).append((_tensor(output) - before)[:, -1])

        return hook

    with ExitStack() as stack, torch.no_grad():
        for place, modules in connectors(model).items():
            for module in modules:
                hook = added(place) if place == CROSS_ATTENTION else pooled(place)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        states = model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states
    layers = len(states) - 1
    first, second = (max(1, share * layers // 3) for share in (1, 2))
    places = {place: torch.cat(values, dim=-1) for place, values in seen.items()}
    return places | {
        "llm 1/3": states[first][:, -1], "llm 2/3": states[second][:, -1], "llm": states[-1][:, -1],
    }  # fmt: skip


def _tensor(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
