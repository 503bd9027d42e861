"""A stand-in for the package `vllm`: what matters here of release 0.33's public interface.

It serves LLaVA alone, by transformers, from what that interface is given: a folder, prompts as tokens with one
placeholder an image, images as Pillow's. Like vLLM it puts an image's tokens in its placeholder's place itself.
"""

from __future__ import annotations

import importlib.machinery
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

KNOWN = frozenset({"LlavaForConditionalGeneration", "PaliGemmaForConditionalGeneration"})
DTYPES = {"auto": torch.float16, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class ModelRegistry:
    @staticmethod
    def get_supported_archs() -> frozenset[str]:
        return KNOWN


@dataclass
class SamplingParams:
    """Those that choose and end an answer; the release has more, all of them with defaults."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    skip_special_tokens: bool = True


@dataclass
class CompletionOutput:
    text: str


@dataclass
class RequestOutput:
    outputs: list[CompletionOutput]


class LLM:
    """One engine; `started` holds those that were made."""

    started: list[LLM] = []  # noqa: RUF012

    def __init__(
        self,
        model: str,
        *,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        seed: int = 0,
        limit_mm_per_prompt: Mapping[str, int] = types.MappingProxyType({}),
    ) -> None:
        assert isinstance(model, str)
        assert isinstance(trust_remote_code, bool)
        assert all(isinstance(count, int) for count in limit_mm_per_prompt.values())
        if not (Path(model) / "model.safetensors").is_file():
            raise RuntimeError("Engine core initialization failed.\nSee root cause above.")
        self.limits = {"image": 999, "audio": 999, **limit_mm_per_prompt}
        self.processor = AutoProcessor.from_pretrained(model)
        self.model = LlavaForConditionalGeneration.from_pretrained(model, dtype=DTYPES[dtype]).eval()
        self.calls: list[int] = []
        LLM.started.append(self)

    def generate(
        self,
        prompts: Sequence[dict[str, Any]],
        sampling_params: SamplingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert isinstance(sampling_params, SamplingParams)
        assert sampling_params.temperature == 0.0
        assert use_tqdm is False
        self.calls.append(len(prompts))
        return [RequestOutput([CompletionOutput(self._answer(prompt, sampling_params))]) for prompt in prompts]

    def _answer(self, prompt: dict[str, Any], params: SamplingParams) -> str:
        assert prompt.keys() <= {"prompt_token_ids", "multi_modal_data"}, "a text would get a second <s>"
        tokens, media = prompt["prompt_token_ids"], prompt.get("multi_modal_data", {})
        assert tokens
        assert all(type(token) is int for token in tokens)
        assert all(len(items) <= self.limits[kind] for kind, items in media.items())
        images = media.get("image", [])
        assert all(isinstance(image, Image.Image) and image.mode == "RGB" for image in images)
        placeholder = self.model.config.image_token_id
        if tokens.count(placeholder) != len(images):
            raise RuntimeError(f"Expected there to be {len(images)} prompt updates")
        whole = [
            t for token in tokens for t in [token] * (self.model.config.image_seq_length if token == placeholder else 1)
        ]
        pixels = self.processor.image_processor(images, return_tensors="pt") if images else {}
        answer = self.model.generate(
            input_ids=torch.tensor([whole]), attention_mask=torch.ones(1, len(whole), dtype=torch.long), **pixels,
            max_new_tokens=params.max_tokens, do_sample=False,
        )  # fmt: skip
        text = self.processor.tokenizer.decode(answer[0, len(whole) :], skip_special_tokens=params.skip_special_tokens)
        return f" {text}"  # as tokenizers of words decode


def module() -> types.ModuleType:
    """The stand-in, to be put into `sys.modules`."""
    made = types.ModuleType("vllm")
    made.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    made.__dict__.update(LLM=LLM, ModelRegistry=ModelRegistry, SamplingParams=SamplingParams)
    LLM.started = []
    return made
