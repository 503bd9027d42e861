"""The golden files that the reference implementation made, and our model with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from equipoise.models.salmonn.convert import convert_salmonn

GOLDEN = Path(__file__).parent / "golden"
FACTS: dict[str, Any] = json.loads((GOLDEN / "golden.json").read_text())
BASE: dict[str, Any] = json.loads((GOLDEN / "base.json").read_text())
AUDIO, PAD, BOS = 64, FACTS["text"]["pad_id"], FACTS["text"]["bos_id"]
VOCABULARY = 63  # before [PAD]


def waveform(name: str) -> np.ndarray:
    """A clip by the formula in golden.json, float64; `stereo` as [samples, channels]."""
    if name == "stereo":
        return np.stack([waveform("stereo_left"), waveform("stereo_right")], axis=1)
    clip = FACTS["clips"]["list"][name]
    n = np.arange(clip["samples"], dtype=np.int64)
    t = n / FACTS["clips"]["rate"]
    wave = FACTS["clips"]["floor"] * np.sin(2 * np.pi * ((7 * n * n) % 2203) / 2203)
    for amplitude, hertz, sweep, depth, rate in clip["chirps"]:
        tremolo = 1 + depth * np.sin(2 * np.pi * rate * t)
        wave = wave + amplitude * tremolo * np.sin(2 * np.pi * (hertz * t + sweep * t * t / 2))
    return wave


def waveforms(case: str) -> list[np.ndarray]:
    return [waveform(name) for name in FACTS["cases"][case]["clips"]]


def thin(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The part of a tensor that the golden files keep of it."""
    facts = FACTS["tensors"][name]
    assert list(tensor.shape) == facts["full_shape"], name
    if facts["axis"] is None:
        return tensor
    keep = torch.arange(0, tensor.shape[facts["axis"]], facts["step"])
    return tensor.index_select(facts["axis"], keep)


def make_parts(folder: Path, with_pad: bool = True) -> tuple[Path, Path]:
    """Folders of the golden Whisper and of the golden LLM with a tokenizer; with or without the [PAD] row."""
    weights = load_file(GOLDEN / "base.safetensors")
    whisper = WhisperForConditionalGeneration(WhisperConfig(**BASE["whisper"]))
    encoder = {key.removeprefix("whisper.encoder."): value for key, value in weights.items() if "whisper" in key}
    whisper.model.encoder.load_state_dict(encoder)
    whisper.save_pretrained(folder / "whisper")
    rows = VOCABULARY + with_pad
    llama = {key.removeprefix("llama."): value for key, value in weights.items() if key.startswith("llama.")}
    for key in ("lm_head.weight", "model.embed_tokens.weight"):
        llama[key] = llama[key][:rows]
    llm = LlamaForCausalLM(LlamaConfig(**{**BASE["llama"], "vocab_size": rows}))
    llm.load_state_dict(llama)
    llm.save_pretrained(folder / "llm")
    tokenizer = LlamaTokenizer.from_pretrained(GOLDEN)
    tokenizer.save_pretrained(folder / "llm")
    return folder / "whisper", folder / "llm"


def convert(folder: Path, full: bool = True, name: str = "model", with_pad: bool = True, **options: Any) -> Path:
    """The golden checkpoint, converted; with BEATs or without."""
    whisper, llm = make_parts(folder, with_pad)
    checkpoint = GOLDEN / ("salmonn.pth" if full else "salmonn_speech_only.pth")
    options = {"lora_alpha": BASE["lora"]["lora_alpha"], "num_qformer_heads": 2, **options}
    beats = GOLDEN / "beats.pt" if full else None
    convert_salmonn(checkpoint, beats, whisper, llm, folder / name, **options)
    return folder / name


def prompts(case: str, answers: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] as the reference lays them out, and the mask: padding also follows each prompt."""
    facts = FACTS["cases"][case]
    after, answer = (max(len(ids) for ids in facts[key]) for key in ("after_ids", "answer_ids"))
    rows = []
    for before, question, reply in zip(facts["before_ids"], facts["after_ids"], facts["answer_ids"], strict=True):
        row = [BOS, *before, *[AUDIO] * 88, *question, *[PAD] * (after - len(question))]
        rows.append(row + ([*reply, *[PAD] * (answer - len(reply))] if answers else []))
    ids = torch.tensor(rows)
    return ids, (ids != PAD).long()
