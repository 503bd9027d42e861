"""From SALMONN's release to a folder that transformers opens.

The release is a `.pth` whose `model` holds what was trained, beside BEATs' `.pt`, a Whisper and a Vicuna. Its names
become ours so (N a layer; what is not listed keeps its name):

===================================================================  ==========================================
release                                                              `SalmonnForConditionalGeneration`
===================================================================  ==========================================
ln_speech, ln_audio                                                  model.qformer.(same)
speech_query_tokens                                                  model.qformer.query_tokens
speech_Qformer.bert.embeddings.LayerNorm                             model.qformer.transformer.layernorm
speech_Qformer.bert.encoder.layer.N.(cross)attention.self            model.qformer.transformer.encoder.layer.N
                                                                     .(cross)attention.attention
speech_Qformer.bert.encoder.layer.N                                  model.qformer.transformer.encoder.layer.N
speech_llama_proj                                                    model.qformer.projection
llama_model.base_model.model.model.(path).lora_A.default             model.language_model.(path): merged, or the adapter
===================================================================  ==========================================
BEATs: patch_embedding                                               model.beats.patch_embedding
layer_norm, post_extract_proj                                        model.beats.patch_norm, .patch_projection
encoder.pos_conv.0.weight_g, .weight_v                               model.beats.positions.conv.parametrizations
                                                                     .weight.original0, .original1
encoder.layer_norm                                                   model.beats.layer_norm
encoder.layers.0.self_attn.relative_attention_bias                   model.beats.position_bias (shared by all layers)
encoder.layers.N.self_attn.grep_linear, .grep_a                      model.beats.layers.N.self_attn.gate, .gate_scale
encoder.layers.N                                                     model.beats.layers.N
predictor                                                            left out, with Q-Former position ids and other
                                                                     buffers
===================================================================  ==========================================
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Blip2QFormerConfig,
    PreTrainedTokenizerBase,
    WhisperModel,
)

from equipoise.errors import RecipeError
from equipoise.models.salmonn.beats import BeatsModel
from equipoise.models.salmonn.configuration import BeatsConfig, SalmonnConfig
from equipoise.models.salmonn.features import SalmonnFeatureExtractor
from equipoise.models.salmonn.modeling import SalmonnForConditionalGeneration
from equipoise.models.salmonn.processing import AUDIO_TOKEN, PAD_TOKEN, SalmonnProcessor

State = dict[str, torch.Tensor]
# Regular expression and replacement; the first that matches counts, and None drops the weight.
_QFORMER_KEYS: tuple[tuple[str, str | None], ...] = (
    # Buffers, and BEATs' shared bias under the names of layers above the first, which the release fails to leave out.
    (r"^speech_Qformer\.bert\.embeddings\.position_ids$|^llama_model\..*\.rotary_emb\.inv_freq$", None),
    (r"^beats\.encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight$", None),
    (r"^speech_query_tokens$", "query_tokens"),
    (r"^speech_llama_proj\.", "projection."),
    (r"^speech_Qformer\.bert\.embeddings\.LayerNorm\.", "transformer.layernorm."),
    (r"^speech_Qformer\.bert\.(encoder\.layer\.\d+\.(?:cross)?attention)\.self\.", r"transformer.\1.attention."),
    (r"^speech_Qformer\.bert\.(encoder\.layer\.\d+)\.", r"transformer.\1."),
)
_BEATS_KEYS: tuple[tuple[str, str | None], ...] = (
    (r"^predictor\.|^encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.", None),
    (r"^layer_norm\.", "patch_norm."),
    (r"^post_extract_proj\.", "patch_projection."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "positions.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "positions.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.", "positions.conv."),
    (r"^encoder\.layers\.0\.self_attn\.relative_attention_bias\.", "position_bias."),
    (r"^encoder\.(layers\.\d+\.self_attn)\.grep_linear\.", r"\1.gate."),
    (r"^encoder\.(layers\.\d+\.self_attn)\.grep_a$", r"\1.gate_scale"),
    (r"^encoder\.", ""),
)
_LORA_KEY = re.compile(r"^llama_model\.base_model\.model\.model\.(.+)\.lora_([AB])\.(?:default\.)?weight$")
# BEATs' own names and defaults for what our configuration holds ...
_BEATS_OPTIONS: dict[str, tuple[str, Any]] = {
    "hidden_size": ("encoder_embed_dim", 768),
    "num_hidden_layers": ("encoder_layers", 12),
    "num_attention_heads": ("encoder_attention_heads", 12),
    "intermediate_size": ("encoder_ffn_embed_dim", 3072),
    "patch_size": ("input_patch_size", -1),
    "patch_embed_dim": ("embed_dim", 512),
    "conv_bias": ("conv_bias", False),
    "num_conv_pos_embeddings": ("conv_pos", 128),
    "num_conv_pos_embedding_groups": ("conv_pos_groups", 16),
    "num_buckets": ("num_buckets", 320),
    "max_distance": ("max_distance", 1280),
    "hidden_dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
}
# ... and (default, what every release has) for what it takes as given.
_BEATS_FIXED: dict[str, tuple[Any, Any]] = {
    "activation_fn": ("gelu", "gelu"),
    "layer_norm_first": (False, False),
    "deep_norm": (False, True),
    "relative_position_embedding": (False, True),
    "gru_rel_pos": (False, True),
}


def convert_salmonn(
    checkpoint: Path,
    beats: Path | None,
    whisper: str | Path,
    llm: str | Path,
    target: Path,
    *,
    merge_lora: bool = True,
    lora_alpha: int = 32,
    num_qformer_heads: int = 12,
    second_per_window: float = 0.333333,
    second_stride: float = 0.333333,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the model and its processor.

    The tokenizer gains the audio placeholder and, if it has no padding token, the release's `[PAD]`. The LLM's
    embeddings and head grow by rows that are the mean of the others: the release draws a row for `[PAD]` at every
    start and saves none.

    Args:
        checkpoint: the release's `.pth`.
        beats: BEATs' `.pt`; None for a checkpoint trained without it.
        whisper: folder or hub id; of a whole Whisper the encoder is taken.
        llm: folder or hub id of the LLM and its tokenizer.
        target: the new folder; it appears when it is complete.
        merge_lora: add the LoRA to the LLM's weights; otherwise `target / "adapter"` holds it for peft.
        lora_alpha: the LoRA's scale is this over its rank, which the weights tell; the release has 32 over 8.
        num_qformer_heads: 12 in BERT-base, from which the release takes its Q-Former's form.
        second_per_window, second_stride: of `SalmonnConfig`.
        dtype: of the weights.

    Raises:
        RecipeError: a file that cannot be loaded without running code, lacks weights or has others; or `target` exists.
    """
    if target.exists():
        raise RecipeError(f"{target}: exists already; name a folder that does not")
    trained = _load(checkpoint, "model")
    lora = {key: value for key, value in trained.items() if _LORA_KEY.match(key)}
    connector = _rename({key: value for key, value in trained.items() if key not in lora}, _QFORMER_KEYS)
    if ("ln_audio.weight" in connector) != (beats is not None):
        raise RecipeError(f"{checkpoint}: it was trained {'without' if beats else 'with'} BEATs, and beats is {beats}")
    encoder = _beats(beats, dtype) if beats else None
    speech = _part(WhisperModel.from_pretrained, "whisper", whisper, dtype=dtype).encoder
    language = _part(AutoModelForCausalLM.from_pretrained, "llm", llm, dtype=dtype)
    tokenizer = _part(AutoTokenizer.from_pretrained, "llm", llm)
    _add_tokens(tokenizer, language)
    config = SalmonnConfig(
        text_config=language.config,
        speech_config=speech.config,
        beats_config=encoder.config if encoder else None,
        qformer_config=_qformer_config(connector, num_qformer_heads, checkpoint),
        second_per_window=second_per_window,
        second_stride=second_stride,
        num_query_tokens=connector["query_tokens"].shape[1],
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO_TOKEN),
    )
    with torch.device("meta"):
        model = SalmonnForConditionalGeneration(config)
    model.model.speech_encoder = speech
    model.model.beats = encoder
    model.model.language_model = language.base_model
    model.lm_head = language.get_output_embeddings()
    _fill(model.model.qformer, {key: value.to(dtype) for key, value in connector.items()}, checkpoint)
    model.generation_config = language.generation_config
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    pairs = _lora_pairs(lora, model.model.language_model, checkpoint)
    if merge_lora:
        _merge(pairs, model.model.language_model, lora_alpha)
    processor = SalmonnProcessor(
        SalmonnFeatureExtractor(
            feature_size=speech.config.num_mel_bins,
            max_source_positions=speech.config.max_source_positions,
            with_fbank=encoder is not None,
        ),
        tokenizer,
        num_audio_tokens=config.num_audio_tokens,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if pairs and not merge_lora:
            _save_adapter(pairs, lora_alpha, folder / "adapter")
        os.rename(folder, target)


def _part(loader: Callable[..., Any], name: str, source: str | Path, **options: Any) -> Any:
    """One of the parts that transformers loads; what goes wrong there becomes one line."""
    try:
        return loader(source, **options)
    except Exception as error:  # transformers raises what its parts raise
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"{name}: {source} cannot be loaded ({reason})") from error


def _load(path: Path, *entries: str) -> Any:
    """The entries of a pickled checkpoint, loaded without running code."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a checkpoint is untrusted input, and the unpickler raises what its parts raise
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"{path}: cannot be loaded as plain weights (weights_only): {reason}") from error
    for entry in entries:
        if not isinstance(loaded, dict) or not isinstance(loaded.get(entry), dict):
            raise RecipeError(
                f"{path}: has no {entry!r}; the release's checkpoints are dicts with {', '.join(entries)}"
            )
    found = [loaded[entry] for entry in entries]
    return found[0] if len(found) == 1 else found


def _rename(state: Mapping[str, torch.Tensor], rules: tuple[tuple[str, str | None], ...]) -> State:
    """The weights by our names; what no rule names keeps its own."""
    renamed: State = {}
    for key, value in state.items():
        pattern, replacement = next((rule for rule in rules if re.search(rule[0], key)), ("$^", ""))
        if replacement is not None:
            renamed[re.sub(pattern, replacement, key)] = value
    return renamed


def _fill(module: nn.Module, state: State, source: Path) -> None:
    """Load all of a module's weights, in place of whatever it has.

    Raises:
        RecipeError: a weight too few, too many, or of another shape.
    """
    wanted = module.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    for found, what in ((missing, "lacks"), (unexpected, "has unexpected")):
        if found:
            raise RecipeError(f"{source}: {what} {len(found)} weights, the first {found[0]} (in this library's names)")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise RecipeError(f"{source}: {key} is {tuple(value.shape)}; it must be {tuple(wanted[key].shape)}")
    module.load_state_dict(state, assign=True)


def _beats(path: Path, dtype: torch.dtype) -> BeatsModel:
    options, state = _load(path, "cfg", "model")
    for name, (default, required) in _BEATS_FIXED.items():
        if options.get(name, default) != required:
            raise RecipeError(
                f"{path}: cfg.{name} is {options.get(name, default)!r}; BEATs' releases have {required!r}"
            )
    config = BeatsConfig(**{ours: options.get(name, default) for ours, (name, default) in _BEATS_OPTIONS.items()})
    with torch.device("meta"):
        model = BeatsModel(config)
    state = _rename(state, _BEATS_KEYS)
    heads = (config.num_attention_heads, 1, 1)
    state = {key: value.to(dtype) for key, value in state.items()}
    _fill(model, {k: v.reshape(heads) if k.endswith(".gate_scale") else v for k, v in state.items()}, path)
    return model


def _qformer_config(state: State, heads: int, source: Path) -> Blip2QFormerConfig:
    """The Q-Former's sizes, from its weights."""
    intermediate = "transformer.encoder.layer.0.intermediate_query.dense.weight"
    for key in ("query_tokens", intermediate):
        if key not in state:
            raise RecipeError(f"{source}: lacks the Q-Former's {key} (in this library's names)")
    layers = {key.split(".")[3] for key in state if key.startswith("transformer.encoder.layer.")}
    return Blip2QFormerConfig(
        hidden_size=state["query_tokens"].shape[-1],
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        intermediate_size=state[intermediate].shape[0],
        cross_attention_frequency=1,
    )


def _add_tokens(tokenizer: PreTrainedTokenizerBase, language: Any) -> None:
    """Make room for padding and for audio; the new rows are the mean of the old ones."""
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
    before = language.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > before:
        language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            for part in (language.get_input_embeddings(), language.get_output_embeddings()):
                part.weight[before:] = part.weight[:before].mean(dim=0)


def _lora_pairs(lora: State, language: nn.Module, source: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The LoRA's A [r, in] and B [out, r] by the path of their layer in the LLM."""
    sides: dict[str, State] = {}
    for key, value in lora.items():
        path, side = _LORA_KEY.match(key).groups()  # type: ignore[union-attr]
        sides.setdefault(path, {})[side] = value.float()
    layers = {name: module for name, module in language.named_modules() if isinstance(module, nn.Linear)}
    pairs = {}
    for path, pair in sides.items():
        if path not in layers or pair.keys() != {"A", "B"}:
            raise RecipeError(f"{source}: the LoRA of {path} lacks its A, its B or, in the LLM, its layer")
        if (pair["B"].shape[0], pair["A"].shape[1]) != layers[path].weight.shape:
            raise RecipeError(f"{source}: the LoRA of {path} does not fit the LLM's {tuple(layers[path].weight.shape)}")
        pairs[path] = (pair["A"], pair["B"])
    return pairs


def _merge(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], language: nn.Module, alpha: float) -> None:
    with torch.no_grad():
        for path, (down, up) in pairs.items():
            weight = language.get_parameter(f"{path}.weight")
            weight.add_((up @ down * (alpha / len(down))).to(weight.dtype))


def _save_adapter(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], alpha: int, folder: Path) -> None:
    paths = {path: f"model.language_model.{path}" for path in pairs}
    rank = len(next(iter(pairs.values()))[0])
    LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.1, target_modules=list(paths.values())).save_pretrained(
        str(folder)
    )
    weights = {}
    for path, (down, up) in pairs.items():
        weights[f"base_model.model.{paths[path]}.lora_A.weight"] = down.contiguous()
        weights[f"base_model.model.{paths[path]}.lora_B.weight"] = up.contiguous()
    save_file(weights, folder / "adapter_model.safetensors")
