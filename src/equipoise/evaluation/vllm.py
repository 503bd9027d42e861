"""Answers by vLLM, where it is installed and knows the model's class; it serves whole models: merge LoRA first.

It has not been run with vLLM itself, whose release 0.33 wants a GPU and an older transformers than this package does.
It is written after that release's public interface (`LLM`, `SamplingParams`, `ModelRegistry`, prompts of tokens with
`multi_modal_data`) and tested with a stand-in that takes what that interface takes. That release's own preprocessing
was seen to make of these prompts the tokens that ours does, for LLaVA, BLIP-2, InternVL, Qwen2.5-VL, Qwen3-VL, SmolVLM
and Qwen2-Audio. vLLM makes batches as it goes, so where two tokens are about equally likely its answers may differ
from run to run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equipoise.data.collate import Collator
from equipoise.data.media import load_audios, load_images
from equipoise.data.sample import Sample
from equipoise.errors import RunError

#: Prompts that are handed over together; vLLM runs as many of them at once as fit.
AT_ONCE = 256
#: Classes that vLLM knows and whose prompts it makes itself, otherwise than they are for training here.
OTHERWISE_WORDED = frozenset({"PaliGemmaForConditionalGeneration", "VoxtralForConditionalGeneration"})


class VllmEngine:
    """Greedy answers by vLLM's offline `LLM`, which is started at the first question.

    Args:
        folder: a whole model, as `save_pretrained` writes it.
        collator: renders prompts, as for training.
        per_prompt: the most images and audio clips of one prompt.
        trust_remote_code: as in the recipe.

    Raises:
        RunError: vLLM is missing, does not know the class, or the folder holds an adapter.
    """

    def __init__(self, folder: Path, collator: Collator, per_prompt: dict[str, int], trust_remote_code: bool = False):
        if (folder / "adapter_config.json").is_file():
            raise RunError(
                f"{folder} holds an adapter and vLLM serves whole models; train with model.lora.merge=true, "
                "or evaluate with --engine transformers"
            )
        if find_spec("vllm") is None:
            raise RunError("vLLM is not installed; evaluate with --engine transformers")
        import vllm

        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        [architecture] = self.config.get("architectures") or ["?"]
        if architecture not in vllm.ModelRegistry.get_supported_archs() or architecture in OTHERWISE_WORDED:
            raise RunError(f"vLLM cannot answer as {architecture}; evaluate with --engine transformers")
        self.folder = folder
        self.collator = collator
        self.per_prompt = per_prompt
        self.trust_remote_code = trust_remote_code

    @cached_property
    def _llm(self) -> Any:
        import vllm

        try:
            return vllm.LLM(
                model=str(self.folder),
                trust_remote_code=self.trust_remote_code,
                dtype=self.config.get("dtype") or "auto",  # vLLM's own "auto" makes 16 bits of float32
                limit_mm_per_prompt=self.per_prompt,
                seed=0,
            )
        except Exception as error:  # vLLM raises what its parts and the card's memory raise
            reason = " ".join(str(error).split())
            raise RunError(
                f"vLLM cannot load {self.folder} ({reason[:300]}); evaluate with --engine transformers"
            ) from error

    def answer(self, samples: Sequence[Sample], max_new_tokens: int) -> list[str]:
        """As `Engine`."""
        import vllm

        settings = vllm.SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
        outputs = self._llm.generate([self._prompt(sample) for sample in samples], settings, use_tqdm=False)
        return [output.outputs[0].text.strip() for output in outputs]

    def _prompt(self, sample: Sample) -> dict[str, Any]:
        """Tokens and not text, before which vLLM would put a second token that begins a text."""
        processor = self.collator.processor
        text = self.collator.prompt_text(sample)
        prompt: dict[str, Any] = {"prompt_token_ids": processor.tokenizer(text, add_special_tokens=False)["input_ids"]}
        media: dict[str, Any] = {}
        if sample.images:
            media["image"] = load_images(sample)
        if sample.audios:
            rate = processor.feature_extractor.sampling_rate
            media["audio"] = [(clip, rate) for clip in load_audios(sample, rate)]
        return {**prompt, "multi_modal_data": media} if media else prompt


def most_media(samples: Iterable[Sample]) -> dict[str, int]:
    """The most images and clips of any of the samples, for `VllmEngine`."""
    counts = [(len(sample.images), len(sample.audios)) for sample in samples]
    images, audios = map(max, zip(*counts, strict=True))
    return {"image": images, "audio": audios}
