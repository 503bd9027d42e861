"""Task weights in trl's SFTTrainer, whose fused head says the log-probability of each label and gives no logits.

Its loss is the sum of -log_probs over the step's number of tokens. Multiply each log-probability by its task's weight,
give the weighted number of tokens as the step's, and that is eq. 2 of CoTBal: no logits are built, and there is no
second forward, which trl needs where `compute_loss_func` is set. trl itself is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Trainer


def is_sft(trainer: Trainer) -> bool:
    """Whether this is trl's SFTTrainer or a subclass of it."""
    return any(c.__name__ == "SFTTrainer" and c.__module__.split(".")[0] == "trl" for c in type(trainer).__mro__)


@contextmanager
def weighing(model: nn.Module, weigh: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside, what the model's fused head says goes through `weigh`; outputs without `log_probs` stay as they are.

    Args:
        model: what the Trainer calls, wrapped for several processes or not.
        weigh: from and to the log-probabilities [B, T-1], 0 where nothing is supervised.
    """

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if getattr(output, "log_probs", None) is not None:
            output.log_probs = weigh(output.log_probs)
        return output

    handle = model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
