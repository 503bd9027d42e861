"""Toy checkpoints of multimodal classes, transformers' own and ours: random weights, real processors, 100 kB each.

`make` writes what a hub repository of the family holds: config, weights, generation config, tokenizer, processor and,
where the family's repositories carry one, chat template. Families whose processor wants a video processor (`VIDEO`)
are written with its settings, as on the hub; transformers alone opens those only where torchvision is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from models.zoo import audio, cross_attention, images, speech, video

Parts = tuple[PreTrainedModel, ProcessorMixin | video.ProcessorFiles]

BUILDERS: dict[str, Callable[[], Parts]] = {
    "llava": images.llava,
    "llava_qformer": images.llava_qformer,
    "blip2": images.blip2,
    "paligemma": images.paligemma,
    "internvl": video.internvl,
    "qwen2_5_vl": video.qwen2_5_vl,
    "qwen3_vl": video.qwen3_vl,
    "smolvlm": video.smolvlm,
    "qwen2_audio": audio.qwen2_audio,
    "voxtral": audio.voxtral,
    "idefics": cross_attention.idefics,
    "mllama": cross_attention.mllama,
    "flamingo": cross_attention.flamingo,
    "salmonn": speech.salmonn,
    "audio_vision": speech.audio_vision,
}
FAMILIES: tuple[str, ...] = tuple(BUILDERS)
VIDEO = frozenset({"internvl", "qwen2_5_vl", "qwen3_vl", "smolvlm"})
AUDIO = frozenset({"qwen2_audio", "voxtral", "salmonn"})
BOTH = frozenset({"audio_vision"})
HEAD = 0.4  # its weights' deviation


def make(family: str, folder: Path) -> Path:
    """Write the family's checkpoint into a folder, the same weights at every call; returns the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model, processor = BUILDERS[family]()
        _spread(model)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _spread(model: PreTrainedModel) -> None:
    """Draw anew what starts at zero (gates, query tokens, class tokens, biases), behind which inputs would not show.

    The output head, which LoRA leaves as it is, is made large enough for hidden states to be sure of a token.
    """
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, mean=0.5 if parameter.numel() == 1 else 0.0, std=0.1)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.mul_(HEAD / head.std())
