"""What a model makes of known answers, read by one forward: no token is generated.

The model is given each question with its answer (teacher forcing), so that every token of it is predicted from the true
ones before. Greedy generation gives an answer word for word exactly where each of its tokens is the likeliest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.modules.forward import inference, supervised


@dataclass(frozen=True)
class Reading:
    """One answer.

    Attributes:
        log_prob: of the whole answer, its end included, in nats.
        tokens: how many it has.
        hits: how many of them are the likeliest at their place.
    """

    log_prob: float
    tokens: int
    hits: int

    @property
    def probability(self) -> float:
        """Of the whole answer: what exact matching expects of answers that are drawn from the model."""
        return math.exp(self.log_prob)


def read_answers(
    model: nn.Module, collator: Collator, samples: Sequence[Sample], batch_size: int = 16
) -> list[Reading]:
    """Read each sample's answers.

    Args:
        model: with a causal language model's forward; left as it is found.
    """
    readings: list[Reading] = []
    for first in range(0, len(samples), batch_size):
        readings += _read(model, collator, samples[first : first + batch_size])
    return readings


def _read(model: nn.Module, collator: Collator, samples: Sequence[Sample]) -> list[Reading]:
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in collator(samples).items()}
    with inference(model):
        said = supervised(model, inputs)
        log_probs_K = said.log_probs_KV.gather(1, said.labels_K[:, None]).squeeze(1).double()
        hits_K = (said.logits_KV.argmax(dim=-1) == said.labels_K).double()
        sums_B3 = torch.zeros(said.batch_size, 3, dtype=torch.float64, device=device)
        sums_B3.index_add_(0, said.samples_K, torch.stack([log_probs_K, torch.ones_like(hits_K), hits_K], dim=1))
    return [Reading(log_prob, int(tokens), int(hits)) for log_prob, tokens, hits in sums_B3.tolist()]
