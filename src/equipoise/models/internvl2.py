"""InternVL2's released checkpoints, which run by code of their own, in transformers' own layout.

Only the releases whose LLM is InternLM2 (2B, 8B, 26B) need this and are taken. InternLM2 is Llama with other names and
one fused matrix: `wqkv` holds, for each key-value head in turn, the rows of its query heads, of its key and of its
value, where Llama has three matrices. `KEY_MAP` is the whole map of names; no code of a checkpoint is run. What is
left out: video, and the tower's stochastic depth, which only acts on a tower in training.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
)
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from equipoise.errors import RecipeError
from equipoise.packages import Notify, build_once

# Released name to transformers'; `*` is a layer's number, `{}` becomes q_proj, k_proj and v_proj, and what follows
# (weight, bias) stays.
KEY_MAP = {
    "vision_model.embeddings.class_embedding": "model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "model.vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding": "model.vision_tower.embeddings.patch_embeddings.projection",
    "vision_model.encoder.layers.*.norm1": "model.vision_tower.encoder.layer.*.layernorm_before",
    "vision_model.encoder.layers.*.attn.qkv": "model.vision_tower.encoder.layer.*.attention.{}",
    "vision_model.encoder.layers.*.attn.q_norm": "model.vision_tower.encoder.layer.*.attention.q_norm",
    "vision_model.encoder.layers.*.attn.k_norm": "model.vision_tower.encoder.layer.*.attention.k_norm",
    "vision_model.encoder.layers.*.attn.proj": "model.vision_tower.encoder.layer.*.attention.projection_layer",
    "vision_model.encoder.layers.*.ls1": "model.vision_tower.encoder.layer.*.lambda_1",
    "vision_model.encoder.layers.*.norm2": "model.vision_tower.encoder.layer.*.layernorm_after",
    "vision_model.encoder.layers.*.mlp.fc1": "model.vision_tower.encoder.layer.*.mlp.fc1",
    "vision_model.encoder.layers.*.mlp.fc2": "model.vision_tower.encoder.layer.*.mlp.fc2",
    "vision_model.encoder.layers.*.ls2": "model.vision_tower.encoder.layer.*.lambda_2",
    "mlp1.0": "model.multi_modal_projector.layer_norm",
    "mlp1.1": "model.multi_modal_projector.linear_1",
    "mlp1.3": "model.multi_modal_projector.linear_2",
    "language_model.model.tok_embeddings": "model.language_model.embed_tokens",
    "language_model.model.layers.*.attention_norm": "model.language_model.layers.*.input_layernorm",
    "language_model.model.layers.*.attention.wqkv": "model.language_model.layers.*.self_attn.{}",
    "language_model.model.layers.*.attention.wo": "model.language_model.layers.*.self_attn.o_proj",
    "language_model.model.layers.*.ffn_norm": "model.language_model.layers.*.post_attention_layernorm",
    "language_model.model.layers.*.feed_forward.w1": "model.language_model.layers.*.mlp.gate_proj",
    "language_model.model.layers.*.feed_forward.w2": "model.language_model.layers.*.mlp.down_proj",
    "language_model.model.layers.*.feed_forward.w3": "model.language_model.layers.*.mlp.up_proj",
    "language_model.model.norm": "model.language_model.norm",
    "language_model.output": "lm_head",
}
# transformers' name of a setting to the released one.
VISION_SETTINGS = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "norm_type": "norm_type",
    "layer_norm_eps": "layer_norm_eps",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "attention_bias": "qkv_bias",
    "use_qk_norm": "qk_normalization",
}
TEXT_SETTINGS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "rms_norm_eps": "rms_norm_eps",
    "max_position_embeddings": "max_position_embeddings",
    "attention_bias": "bias",
}
# What transformers' class and image processor do and cannot do otherwise.
FIXED: dict[str, Any] = {
    "select_layer": -1,
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "template": "internlm2-chat",
    "dynamic_image_size": True,
    "use_thumbnail": True,
}
IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    # InternVLProcessor wants one. The release has none; with byte fallback no text becomes this one.
    "video_token": "<unk>",
}
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
# Unlike ChatML elsewhere, no line break stands between turns.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- if messages[0]['role'] != 'system' -%}<|im_start|>system
{{ SYSTEM_MESSAGE }}<|im_end|>{%- endif -%}
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""
NORMAL, USER_DEFINED, BPE = 1, 4, 2  # values of the enumerations in sentencepiece_model.proto


def convert_internvl2(source: Path, target: Path, notify: Notify = print) -> Path:
    """Write a released InternVL2 checkpoint in transformers' own layout, its weights in the dtype they have.

    The weights are mapped from their files, not read into memory, but for the split attention matrices (a tenth of the
    8B model) and the shard that is being written.

    Args:
        source: a released checkpoint's folder: `config.json`, weights (`*.safetensors`, else `*.bin`),
            `tokenizer.model`, `tokenizer_config.json`, and `conversation.py`, which is read for the default system
            message and not run.
        target: a folder that does not exist yet; it appears when all is written.
        notify: called with one line before each long step.

    Returns:
        `target`, with model, generation config, tokenizer, image processor and chat template.

    Raises:
        RecipeError: the checkpoint is of another kind, lacks a file or a weight or has one too many, its weights are
            pickled objects rather than tensors, protobuf is not installed, or `target` exists.
    """
    if target.exists():
        raise RecipeError(f"{target} exists; name a folder that does not")
    released = _read_json(source / "config.json")
    config = _config(released, source)
    tokenizer = _tokenizer(source, released["llm_config"]["vocab_size"])
    config.image_token_id = tokenizer.get_vocab()[IMAGE_TOKENS["context_image_token"]]

    def build(folder: Path) -> None:
        notify(f"converting the weights of {source}")
        model = _model(config, _weights(source), source)
        # The release stops at the end of a turn, which its own generation config does not know.
        model.generation_config.eos_token_id = [tokenizer.get_vocab()[TURN_END], tokenizer.eos_token_id]
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(folder, max_shard_size="5GB")
        tokenizer.save_pretrained(folder)
        _image_processor(released).save_pretrained(folder)
        # Written by hand, since InternVLProcessor cannot be made without torchvision.
        processor = {"processor_class": "InternVLProcessor", "image_seq_length": config.image_seq_length}
        (folder / "processor_config.json").write_text(json.dumps(processor, indent=2))

    return build_once(target, build)


def split_wqkv(fused: torch.Tensor, heads: int, key_value_heads: int) -> tuple[torch.Tensor, ...]:
    """InternLM2's fused matrix [(heads + 2 * key_value_heads) * D, C], or bias, as those of query, key and value."""
    group = heads // key_value_heads
    rows = fused.unflatten(0, (key_value_heads, group + 2, -1))
    return rows[:, :group].flatten(0, 2), rows[:, group].flatten(0, 1), rows[:, group + 1].flatten(0, 1)


def _config(released: dict[str, Any], source: Path) -> InternVLConfig:
    path = source / "config.json"
    if released.get("model_type") != "internvl_chat":
        raise RecipeError(f"{path}: model_type is {released.get('model_type')!r}; 'internvl_chat' is converted")
    _require(released, ("llm_config", "vision_config", "min_dynamic_patch", "max_dynamic_patch"), path)
    llm, vision = released["llm_config"], released["vision_config"]
    architecture = next(iter(llm.get("architectures") or []), None)
    if architecture != "InternLM2ForCausalLM":
        raise RecipeError(
            f"{path}: the LLM is {architecture}; only InternVL2 with InternLM2ForCausalLM (2B, 8B, 26B) is converted"
        )
    for name, value in FIXED.items():
        if released.get(name) != value:
            raise RecipeError(f"{path}: {name} is {released.get(name)!r}; only {value!r} is converted")
    _require(llm, ("rope_theta", *TEXT_SETTINGS.values()), path)
    _require(vision, VISION_SETTINGS.values(), path)
    rope = {"rope_type": "default", "rope_theta": llm["rope_theta"]}
    if llm.get("rope_scaling"):
        rope |= {"rope_type": llm["rope_scaling"]["type"], "factor": llm["rope_scaling"]["factor"]}
    return InternVLConfig(
        vision_config=InternVLVisionConfig(**{new: vision[old] for new, old in VISION_SETTINGS.items()}),
        text_config=LlamaConfig(**{new: llm[old] for new, old in TEXT_SETTINGS.items()}, rope_parameters=rope),
        downsample_ratio=FIXED["downsample_ratio"],
        image_seq_length=(_tile_size(released) // vision["patch_size"] // 2) ** 2,
        tie_word_embeddings=False,
    )


def _tile_size(released: dict[str, Any]) -> int:
    """The side of a tile in pixels."""
    return released.get("force_image_size") or released["vision_config"]["image_size"]


def _require(section: dict[str, Any], names: Iterable[str], path: Path) -> None:
    missing = [name for name in names if name not in section]
    if missing:
        raise RecipeError(f"{path}: {section.get('model_type')} has no {', '.join(missing)}")


def _weights(source: Path) -> dict[str, torch.Tensor]:
    """All released weights by name, mapped from their files."""
    paths = sorted(source.glob("*.safetensors")) or sorted(source.glob("*.bin"))
    if not paths:
        raise RecipeError(f"{source} holds no weights; *.safetensors or *.bin are read")
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            if path.suffix == ".safetensors":
                weights |= load_file(path)
            else:
                weights |= torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # an untrusted file raises whatever its reader meets
            reason = " ".join(str(error).split())[:200]
            raise RecipeError(f"{path} is refused: only tensors are read, and whole files ({reason})") from error
    return weights


def _model(config: InternVLConfig, released: dict[str, torch.Tensor], source: Path) -> InternVLForConditionalGeneration:
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    expected = model.state_dict()
    text = config.get_text_config()
    converted: dict[str, torch.Tensor] = {}
    unexpected, misshapen = [], []
    for name, weight in released.items():
        targets = _targets(name)
        if not targets or targets[0] not in expected:
            unexpected.append(name)
            continue
        rows = sum(len(expected[target]) for target in targets)
        if weight.shape != (rows, *expected[targets[0]].shape[1:]):
            misshapen.append(f"{name} {list(weight.shape)}")
            continue
        interleaved = name.endswith((".wqkv.weight", ".wqkv.bias"))
        heads, key_value_heads = text.num_attention_heads, text.num_key_value_heads
        parts = split_wqkv(weight, heads, key_value_heads) if interleaved else weight.chunk(len(targets))
        converted |= zip(targets, parts, strict=True)
    missing = [name for name in expected if name not in converted]
    for names, complaint in ((unexpected, "unexpected"), (misshapen, "of another shape"), (missing, "missing")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise RecipeError(f"{source}: weights {complaint}: {', '.join(names[:3])}{more}")
    model.load_state_dict(converted, assign=True)
    return model


def _targets(name: str) -> list[str]:
    """transformers' names for a released weight; none if there is no such weight."""
    stem, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        stem, leaf = name, ""
    layer = re.search(r"\.layers\.(\d+)\.", stem)
    target = KEY_MAP.get(re.sub(r"\.layers\.\d+\.", ".layers.*.", stem))
    if target is None:
        return []
    target = target.replace("*", layer[1] if layer else "") + (f".{leaf}" if leaf else "")
    return [target.format(part) for part in ("q_proj", "k_proj", "v_proj")] if "{}" in target else [target]


def _tokenizer(source: Path, vocabulary_size: int) -> LlamaTokenizer:
    """InternLM2's sentencepiece model as a fast tokenizer, with the tokens that the release added, at their ids."""
    path = source / "tokenizer_config.json"
    settings = _read_json(path)
    _require(settings, ("added_tokens_decoder", "bos_token", "eos_token", "pad_token", "unk_token"), path)
    added = {int(i): AddedToken(**token) for i, token in settings["added_tokens_decoder"].items()}
    pieces = _pieces(source / "tokenizer.model")
    # Some added tokens take the ids of pieces that were kept free for them.
    vocabulary = {piece.piece: i for i, piece in enumerate(pieces) if i not in added}
    vocabulary |= {token.content: i for i, token in added.items()}
    lacking = [token for token in (TURN_START, TURN_END, *IMAGE_TOKENS.values()) if token not in vocabulary]
    if lacking:
        raise RecipeError(f"{path}: no token {', '.join(lacking)} among added_tokens_decoder")
    if max(vocabulary.values()) >= vocabulary_size:
        raise RecipeError(f"{path}: token {max(vocabulary.values())} is beyond the LLM's {vocabulary_size} embeddings")
    # Only normal pieces come of merging.
    scores = {piece.piece: piece.score for piece in pieces if piece.type == NORMAL}
    tokenizer = LlamaTokenizer(
        vocab=vocabulary,
        merges=generate_merges(vocabulary, scores),
        add_prefix_space=False,
        add_bos_token=True,
        **{name: settings[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
        model_max_length=settings.get("model_max_length"),
        extra_special_tokens=IMAGE_TOKENS,
    )
    message = json.dumps(_system_message(source))
    tokenizer.chat_template = CHAT_TEMPLATE.replace("SYSTEM_MESSAGE", message)
    kept_whole = [p.piece for i, p in enumerate(pieces) if p.type == USER_DEFINED and i not in added]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in kept_whole])
    tokenizer.add_tokens(list(added.values()))
    return tokenizer


def _pieces(path: Path) -> list[Any]:
    """The pieces of a sentencepiece model in the order of their ids."""
    try:
        model = import_protobuf().ModelProto()
    except ImportError as error:
        raise RecipeError(f"{path} is read with protobuf, which is not installed; pip install protobuf") from error
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own, which cannot be named here without importing it
        raise RecipeError(f"{path} is no sentencepiece model ({error})") from error
    trained, normalizer = model.trainer_spec, model.normalizer_spec
    changes_text = normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces or normalizer.precompiled_charsmap
    if trained.model_type != BPE or not trained.byte_fallback or changes_text:
        raise RecipeError(f"{path} is not InternLM2's, which is BPE with byte fallback on the text as it is")
    return list(model.pieces)


def _system_message(source: Path) -> str:
    """The default system message, from the release's Python file, which is parsed and not run."""
    path = source / "conversation.py"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read ({error})") from error
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            texts = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
            if texts.get("name") == FIXED["template"] and isinstance(texts.get("system_message"), str):
                return str(texts["system_message"])
    raise RecipeError(f"{path} has no system_message for the template {FIXED['template']!r}")


def _image_processor(released: dict[str, Any]) -> GotOcr2ImageProcessorPil:
    """Tiles of the best-fitting grid, and a thumbnail beside more than one, as the release cuts them."""
    return GotOcr2ImageProcessorPil(
        size={"height": _tile_size(released), "width": _tile_size(released)},
        min_patches=released["min_dynamic_patch"],
        max_patches=released["max_dynamic_patch"],
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read ({error})") from error
