"""A tiny vision-language checkpoint of the real classes, a dataset for it, and a recipe: all on disk, all in a second.

The LLaVA has random weights; its tokenizer is byte-level BPE trained on the dataset's own sentences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from equipoise.models.embedded import CHAT_TEMPLATE
from equipoise.models.embedded import IMAGE_TOKEN as EMBEDDED_IMAGE_TOKEN
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe

SPECIAL = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>", "<image>"]
QUESTIONS = ("what colour is it", "is this picture red or blue, say which", "name the colour of the square")
COLOURS = {"red": (220, 30, 30), "deep blue": (30, 30, 220)}
PROJECTOR = "model.multi_modal_projector.linear_1.weight"
SIZES = {"train": 24, "validation": 6, "test": 8}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the special tokens of the chat template."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator([*QUESTIONS, *COLOURS, "user\nassistant\n"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip


def make_checkpoint(folder: Path) -> Path:
    """A folder that AutoModelForImageTextToText and AutoProcessor load."""
    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(words), max_position_embeddings=128, initializer_range=0.15,
        pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_seq_length=4, vision_feature_layer=-1,
        image_token_index=words.convert_tokens_to_ids("<image>"), tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    size = {"height": 16, "width": 16}
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(size=size, crop_size=size),
        tokenizer=words, patch_size=8, num_additional_image_tokens=1, vision_feature_select_strategy="default",
        image_token="<image>", chat_template=CHAT_TEMPLATE.replace(EMBEDDED_IMAGE_TOKEN, "<image>"),
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_dataset(folder: Path) -> Path:
    """A folder for the `jsonl` reader: squares of two colours; answers of unequal length."""
    (folder / "images").mkdir(parents=True)
    names = list(COLOURS)
    for split, count in SIZES.items():
        rows = []
        for index in range(count):
            name = names[index % 3 == 0]  # two thirds of one colour, so that a majority exists
            shade = tuple(max(0, channel - 3 * (index % 7)) for channel in COLOURS[name])
            image = f"images/{split}-{index}.png"
            Image.new("RGB", (16, 16), shade).save(folder / image)
            rows.append({"id": f"{split}{index}", "image": image, "prompt": QUESTIONS[index % 3], "answer": name})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def settings(
    checkpoint: Path, dataset: Path, coordination: dict[str, Any], dropout: float = 0.1, **train: Any
) -> dict[str, Any]:
    """A recipe as plain data: LoRA with dropout, six short steps of two micro-batches, no warm-up."""
    return {
        "model": {"path": str(checkpoint), "lora": {"rank": 4, "alpha": 8, "dropout": dropout}},
        "tasks": [
            {
                "name": "colours", "reader": "jsonl", "path": str(dataset), "metric": "exact_match",
                "max_new_tokens": 6,
            }
        ],
        "balance": {"modules": {"every": 1, "samples": 2, "window": 5, **coordination}},
        "train": {
            "learning_rate": 0.003, "max_steps": 6, "batch_size": 2, "gradient_accumulation": 2, "warmup": 0.0,
            "save_steps": 100, "threads": 1, **train,
        },
    }  # fmt: skip


def recipe(checkpoint: Path, dataset: Path, coordination: dict[str, Any], **train: Any) -> Recipe:
    """`settings`, validated; `train` may hold `dropout` too."""
    return parse_recipe(settings(checkpoint, dataset, coordination, **train), "tiny")


def write_recipe(path: Path, content: dict[str, Any]) -> Path:
    """A recipe file."""
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
