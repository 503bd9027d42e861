"""Whisper from CTranslate2's `model.bin`, as faster-whisper ships it, to transformers' class, without ctranslate2.

The file is a list of named arrays and of aliases, little-endian, each text and array preceded by its size. Whisper's
self-attention keeps its query, key and value projections in one matrix there; the attention to the encoder keeps key
and value in one. Quantised files are refused: nothing here undoes their scales.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from equipoise.errors import AssetError

BINARY_VERSION = 6
SPECIFICATION, REVISION = "WhisperSpec", 3
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
END_OF_TEXT = {51864: 50256, 51865: 50257}  # by the size of the vocabulary: English, multilingual

Arrays = dict[str, np.ndarray]


def load(path: Path, *rest: Path) -> WhisperForConditionalGeneration:
    """Convert a `model.bin`.

    Args:
        path: the file, or its first part.
        rest: the parts that follow, where it was cut into several.

    Returns:
        The model in float32 and eval mode, every weight of it from the file.

    Raises:
        AssetError: the file is missing, cut short, or no unquantised Whisper in the one layout known here.
    """
    arrays = read_arrays(path, *rest)
    try:
        config = _config(arrays)
        weights = {name: torch.from_numpy(array.astype(np.float32)) for name, array in _weights(arrays, config)}
        with torch.device("meta"):
            model = WhisperForConditionalGeneration(config)
        model.load_state_dict(weights, assign=True)
    except KeyError as error:
        raise AssetError(f"{path} lacks {error}, which an unquantised Whisper holds") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise AssetError(f"{path} is not a Whisper ({' '.join(str(error).split()):.300})") from error
    model.tie_weights()
    return model.eval()


def read_arrays(path: Path, *rest: Path) -> Arrays:
    """Read all arrays of a `model.bin`, given in one part or more; an alias names the same array again.

    Raises:
        AssetError: the file is missing, cut short, of another version, or of another model than Whisper.
    """
    try:
        content = memoryview(b"".join(part.read_bytes() for part in (path, *rest)))
    except OSError as error:
        raise AssetError(f"{error.filename} cannot be read ({error.strerror})") from error
    position = 0

    def take(size: int) -> memoryview:
        nonlocal position
        if size > len(content) - position:
            raise AssetError(f"{path} ends at byte {len(content)}, inside what starts at {position}")
        position += size
        return content[position - size : position]

    def number(code: str) -> int:
        return int(struct.unpack(f"<{code}", take(struct.calcsize(code)))[0])

    def text() -> str:
        return bytes(take(number("H"))).rstrip(b"\0").decode("utf-8", "backslashreplace")

    version = number("I")
    if version != BINARY_VERSION:
        raise AssetError(f"{path}: found CTranslate2's format {version}; only {BINARY_VERSION} is known here")
    kind, revision = text(), number("I")
    if (kind, revision) != (SPECIFICATION, REVISION):
        raise AssetError(
            f"{path}: found {kind!r}, revision {revision}; expected {SPECIFICATION!r}, revision {REVISION}"
        )
    arrays: Arrays = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        code, size = number("B"), number("I")
        if code not in DTYPES:
            raise AssetError(f"{path}: {name} has the element type {code}; known are {', '.join(map(str, DTYPES))}")
        dtype = np.dtype(DTYPES[code]).newbyteorder("<")
        if size != math.prod(shape) * dtype.itemsize:
            raise AssetError(f"{path}: {name} has {size} bytes, which is not its shape {shape} in {dtype.name}")
        arrays[name] = np.frombuffer(take(size), dtype).reshape(shape)
    for _ in range(number("I")):
        alias, name = text(), text()
        if name not in arrays:
            raise AssetError(f"{path}: {alias} is another name of {name}, which is not there")
        arrays[alias] = arrays[name]
    return arrays


def _config(arrays: Arrays) -> WhisperConfig:
    vocabulary, width = arrays["decoder/embeddings/weight"].shape
    if vocabulary not in END_OF_TEXT:
        raise ValueError(f"its vocabulary has {vocabulary} tokens; known are {', '.join(map(str, END_OF_TEXT))}")
    if any(name.endswith("_scale") for name in arrays):
        raise ValueError("its weights are quantised")
    end = END_OF_TEXT[vocabulary]
    sides: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        layers = {name.split("/")[1] for name in arrays if name.startswith(f"{side}/layer_")} - {"layer_norm"}
        sides[f"{side}_layers"] = len(layers)
        sides[f"{side}_attention_heads"] = int(arrays[f"{side}/num_heads"])
        sides[f"{side}_ffn_dim"] = len(arrays[f"{side}/layer_0/ffn/linear_0/weight"])
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=arrays["encoder/conv1/weight"].shape[1],
        max_source_positions=len(arrays["encoder/position_encodings/encodings"]),
        max_target_positions=len(arrays["decoder/position_encodings/encodings"]),
        decoder_start_token_id=end + 1,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        **sides,
    )


def _weights(arrays: Arrays, config: WhisperConfig) -> Iterator[tuple[str, np.ndarray]]:
    """transformers' name and array of each weight."""

    def linear(ours: str, theirs: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{ours}.weight", arrays[f"{theirs}/weight"]
        yield f"{ours}.bias", arrays[f"{theirs}/bias"]

    def norm(ours: str, theirs: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{ours}.weight", arrays[f"{theirs}/gamma"]
        yield f"{ours}.bias", arrays[f"{theirs}/beta"]

    def stacked(ours: str, theirs: str, parts: str) -> Iterator[tuple[str, np.ndarray]]:
        weights = np.split(arrays[f"{theirs}/weight"], len(parts))
        biases = np.split(arrays[f"{theirs}/bias"], len(parts))
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            yield f"{ours}.{part}_proj.weight", weight
            if part != "k":  # Whisper's keys have no bias; the file has zeros there
                yield f"{ours}.{part}_proj.bias", bias

    for conv in ("conv1", "conv2"):
        yield from linear(f"model.encoder.{conv}", f"encoder/{conv}")
    for name in ("model.decoder.embed_tokens.weight", "proj_out.weight"):
        yield name, arrays["decoder/embeddings/weight"]
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield f"model.{side}.embed_positions.weight", arrays[f"{side}/position_encodings/encodings"]
        yield from norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for index in range(layers):
            ours, theirs = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
            yield from stacked(f"{ours}.self_attn", f"{theirs}/self_attention/linear_0", "qkv")
            yield from linear(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
            yield from norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
            if side == "decoder":
                yield from linear(f"{ours}.encoder_attn.q_proj", f"{theirs}/attention/linear_0")
                yield from stacked(f"{ours}.encoder_attn", f"{theirs}/attention/linear_1", "kv")
                yield from linear(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2")
                yield from norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
            yield from linear(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
            yield from linear(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
            yield from norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
