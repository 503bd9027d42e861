"""Image families whose processors also take video: InternVL, Qwen2.5-VL, Qwen3-VL, SmolVLM."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import (
    BaseImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMVisionConfig,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from models.zoo.words import TEXT, ids, tokenizer

QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
                "<|video_pad|>"]  # fmt: skip
CHATML = (
    "{%% for message in messages %%}%s{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%% if message['content'] is string %%}{{ message['content'] }}{%% else %%}"
    "{%% for part in message['content'] %%}"
    "{%% if part['type'] == 'image' %%}{{ '%s' }}{%% elif part['type'] == 'text' %%}{{ part['text'] }}{%% endif %%}"
    "{%% endfor %%}{%% endif %%}{{ '<|im_end|>\n' }}{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
)
DEFAULT_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SMOLVLM_TEMPLATE = (
    "{{ '<|im_start|>' }}{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}"
    "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class ProcessorFiles:
    """What `save_pretrained` of a processor with a video processor would write; without torchvision no such object
    can be made. The files are laid out as in the hub repositories, which transformers 4 has saved.
    """

    name: str
    images: BaseImageProcessor
    tokenizer: PreTrainedTokenizerFast
    chat_template: str
    video: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.images.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        for name, content in (
            ("processor_config.json", {"processor_class": self.name, **self.options}),
            ("video_preprocessor_config.json", {"processor_class": self.name, **self.video}),
        ):
            (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def internvl() -> tuple[InternVLForConditionalGeneration, ProcessorFiles]:
    """InternViT, pixel shuffle and two-layer projector, Llama (InternLM2 is one, but for its key names)."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    words = tokenizer(
        special, bos="<s>", eos="<|im_end|>", pad="</s>", add_bos=True,
        named={
            "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )  # fmt: skip
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, attention_bias=True,
            image_size=[16, 16], patch_size=[4, 4], initializer_range=0.1,
        ),
        text_config=LlamaConfig(**TEXT, **ids(words), num_key_value_heads=2),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    size = {"height": 16, "width": 16}
    processor = ProcessorFiles(
        "InternVLProcessor",
        GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=2),
        words,
        CHATML % ("", "<IMG_CONTEXT>\\n"),
        video={"video_processor_type": "InternVLVideoProcessor", "size": size},
        options={"image_seq_length": 4},
    )
    return InternVLForConditionalGeneration(config), processor


def _qwen_words() -> PreTrainedTokenizerFast:
    return tokenizer(QWEN_SPECIAL, eos="<|im_end|>", pad="<|endoftext|>")


def _qwen_images() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 256}, patch_size=4)


def _qwen_ids(words: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "image_token_id": words.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": words.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": words.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": words.convert_tokens_to_ids("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


def qwen2_5_vl() -> tuple[Qwen2_5_VLForConditionalGeneration, ProcessorFiles]:
    """A ViT with windows, patch merger, Qwen2.5 with multimodal rotary positions."""
    words = _qwen_words()
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
            "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1], "initializer_range": 0.1,
        },
        text_config={
            **TEXT, **ids(words), "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        },
        **_qwen_ids(words),
    )  # fmt: skip
    processor = ProcessorFiles(
        "Qwen2_5_VLProcessor",
        _qwen_images(),
        words,
        CHATML % (DEFAULT_SYSTEM, QWEN_IMAGE),
        video={"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 4},
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> tuple[Qwen3VLForConditionalGeneration, ProcessorFiles]:
    """A ViT whose first layer's features also go, merged, into the LLM's first layer (DeepStack); Qwen3."""
    words = _qwen_words()
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
            "initializer_range": 0.1,
        },
        text_config={
            **TEXT, **ids(words), "num_key_value_heads": 2, "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [2, 1, 1], "mrope_interleaved": True,
            },
        },
        **_qwen_ids(words),
    )  # fmt: skip
    processor = ProcessorFiles(
        "Qwen3VLProcessor",
        _qwen_images(),
        words,
        CHATML % ("", QWEN_IMAGE),
        video={"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 4},
    )
    return Qwen3VLForConditionalGeneration(config), processor


def smolvlm() -> tuple[SmolVLMForConditionalGeneration, ProcessorFiles]:
    """SigLIP-style ViT, pixel shuffle and linear connector, SmolLM2 (Llama); the processor needs num2words."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>",
               "<end_of_utterance>", "<global-img>", "<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>",
               "<row_2_col_2>"]  # fmt: skip
    words = tokenizer(
        special, bos="<|im_start|>", eos="<end_of_utterance>", pad="<|im_end|>",
        named={
            "image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>",
        },
    )  # fmt: skip
    config = SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=4, initializer_range=0.1,
        ),
        text_config=LlamaConfig(**TEXT, **ids(words), num_key_value_heads=2),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = ProcessorFiles(
        "SmolVLMProcessor",
        SmolVLMImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}),
        words,
        SMOLVLM_TEMPLATE,
        video={"video_processor_type": "SmolVLMVideoProcessor", "size": {"longest_edge": 16}},
        options={"image_seq_len": 4},
    )
    return SmolVLMForConditionalGeneration(config), processor
