"""A small LLaVA of the real classes with random weights and data for it, of any size: what growth is measured on.

Its tokenizer knows bytes alone, so that a text has as many tokens as letters, whatever the vocabulary of the model.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from equipoise.models.embedded.language import IMAGE_TOKEN, PAD_TOKEN, chat_template, token_id
from equipoise.recipe import Recipe
from equipoise.recipe_reading import parse_recipe

SPECIAL = (PAD_TOKEN, "<|im_start|>", "<|im_end|>", IMAGE_TOKEN)
IMAGES = 8
PROMPT = 24  # letters of a question
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Size:
    """What can be varied.

    Attributes:
        batch: samples a step.
        answer: supervised tokens of a sample, the end of the turn among them.
        vocabulary: of the model, at least 1,024.
        modules: that learn: 2 (projector, LLM by LoRA) or 3 (the vision tower in full as well).
        tasks: in the mixture, as many samples each as a step has, at least one.
    """

    batch: int = 4
    answer: int = 16
    vocabulary: int = 8_192
    modules: int = 2
    tasks: int = 1


@dataclass(frozen=True)
class Shape:
    """What a checkpoint is made of; by default what growth is measured on.

    Attributes:
        vocabulary: at least 260, the tokenizer's.
        hidden, inner, layers: of the LLM, which has four heads.
        tower, tower_layers: width and depth of the vision tower.
        side, patch: of an image, in pixels.
        spread: standard deviation of each matrix times the root of its number of inputs, so that what goes in matters
            to what comes out; transformers' own first weights when None.
    """

    vocabulary: int = 8_192
    hidden: int = 128
    inner: int = 384
    layers: int = 4
    tower: int = 64
    tower_layers: int = 2
    side: int = 32
    patch: int = 8
    spread: float | None = None


def make(folder: Path, size: Size, seed: int = 0) -> Recipe:
    """Write checkpoint and data of a size below a folder, and return their recipe, with the defaults of balance."""
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "model", Shape(vocabulary=size.vocabulary))
    tasks: list[dict[str, Any]] = []
    for number in range(size.tasks):
        name = f"task-{number}"
        _data(folder / name, size, random.Random(f"{seed}/{name}"))
        path = str(folder / name)
        tasks.append({"name": name, "reader": "jsonl", "path": path, "validation": None, "test": None})
    content = {
        "model": {"path": str(folder / "model"), "train": {"vision_tower": "full"} if size.modules == 3 else {}},
        "tasks": tasks,
        "train": {"batch_size": size.batch, "seed": seed},
    }
    return parse_recipe(content, "the random-weight model")


def write_checkpoint(folder: Path, shape: Shape) -> None:
    """Write model and processor as a folder that transformers opens, the same one whenever called."""
    words = _tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=shape.tower, intermediate_size=2 * shape.tower, num_hidden_layers=shape.tower_layers,
            num_attention_heads=4, image_size=shape.side, patch_size=shape.patch,
        ),
        text_config=LlamaConfig(
            hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
            num_attention_heads=4, num_key_value_heads=4, vocab_size=shape.vocabulary, max_position_embeddings=4_096,
            pad_token_id=words.pad_token_id, bos_token_id=None, eos_token_id=words.eos_token_id,
        ),
        image_seq_length=(shape.side // shape.patch) ** 2, vision_feature_layer=-1,
        image_token_index=token_id(words, IMAGE_TOKEN), tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
        if shape.spread is not None:
            for weight in model.parameters():
                if weight.dim() > 1:
                    torch.nn.init.normal_(weight, std=shape.spread / math.sqrt(weight[0].numel()))
    model.save_pretrained(folder)
    size = {"height": shape.side, "width": shape.side}
    LlavaProcessor(
        image_processor=LlavaImageProcessorPil(size=size, crop_size=size),
        tokenizer=words, patch_size=shape.patch, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", image_token=IMAGE_TOKEN,
        chat_template=chat_template(image=IMAGE_TOKEN),
    ).save_pretrained(folder)  # fmt: skip


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: number for number, token in enumerate([*SPECIAL, *alphabet])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token=PAD_TOKEN,
        extra_special_tokens={"image_token": IMAGE_TOKEN, "turn_token": "<|im_start|>"},
    )  # fmt: skip


def _data(folder: Path, size: Size, draw: random.Random) -> None:
    """One task: random letters about random images."""
    side = Shape().side
    folder.mkdir(parents=True)
    for number in range(IMAGES):
        image = f"{number}.png"
        Image.frombytes("RGB", (side, side), draw.randbytes(3 * side * side)).save(folder / image)
    rows = [
        {
            "image": f"{number % IMAGES}.png",
            "prompt": "".join(draw.choices(LETTERS, k=PROMPT)),
            "answer": "".join(draw.choices(LETTERS, k=size.answer - 1)),
        }
        for number in range(max(2 * size.batch, IMAGES))
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
