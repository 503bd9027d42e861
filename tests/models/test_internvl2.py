"""InternVL2's released layout, converted, against a plain reading of the published architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import import_protobuf

from equipoise.errors import RecipeError
from equipoise.models.internvl2 import convert_internvl2
from equipoise.models.loading import load_processor
from equipoise.recipe import Model

pytest.importorskip("google.protobuf", reason="reads tokenizer.model")

Weights = dict[str, torch.Tensor]
ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}

# Each piece that is made by merging, in the order in which a trainer would have found them.
MERGED = ["▁t", "he", "▁the", "in", "ing", "re", "▁a", "▁▁", "er", "st", "\n\n", "▁there", "ther", "▁▁▁▁", "is"]
# Merging must not go on to a byte's piece, <0x41>, which text that spells it does not become.
MERGED += ["0x", "41", "41>", "0x41>"]
LETTERS = "▁abcdefghijklmnopqrstuvwxyzWST?.\n<>014"
ADDED = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>"]
SYSTEM = "Du bist „ein 'Spielzeug'“."
CONVERSATION = f"""
raise RuntimeError("a checkpoint's code was run")
register(Conversation(name="other", system_message="not this one"))
register(Conversation(
    name="internlm2-chat", system_template="<|im_start|>system\\n{{system_message}}",
    system_message={SYSTEM!r}, sep="<|im_end|>",
))
"""


def sentencepiece_model() -> bytes:
    """A model of InternLM2's kind: BPE, byte fallback, no normalisation, user-defined pieces kept free."""
    model = import_protobuf().ModelProto()
    pieces = [("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0)]
    pieces += [(f"<0x{byte:02X}>", 6, 0.0) for byte in range(256)]
    pieces += [(piece, 1, float(-rank)) for rank, piece in enumerate([*MERGED, *LETTERS])]
    pieces += [(f"[UNUSED_TOKEN_{number}]", 4, 0.0) for number in (0, 145, 146)]
    for piece, kind, score in pieces:
        model.pieces.add(piece=piece, type=kind, score=score)
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return model.SerializeToString()


PIECES = 3 + 256 + len(MERGED) + len(LETTERS) + 3
TURN_END, TURN_START = PIECES - 2, PIECES - 1
VOCABULARY = PIECES + len(ADDED)
IMAGE = PIECES + 2

EIGHT_B = {
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 28,
    "max_dynamic_patch": 4,
    "min_dynamic_patch": 2,
    "pad2square": False,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internlm2-chat",
    "use_thumbnail": True,
    "vision_config": {
        "model_type": "intern_vit_6b",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "hidden_act": "gelu",
        "norm_type": "layer_norm",
        "layer_norm_eps": 0.1,
        "image_size": 28,
        "patch_size": 7,
        "qkv_bias": True,
        "qk_normalization": False,
    },
    "llm_config": {
        "model_type": "internlm2",
        "architectures": ["InternLM2ForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "hidden_act": "silu",
        "rms_norm_eps": 0.1,
        "max_position_embeddings": 24,
        "rope_theta": 1000000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "bias": False,
    },
}


def changed(config: dict, **sections: dict) -> dict:
    return config | {name: config[name] | section for name, section in sections.items()}


# The 26B release has InternViT-6B: RMS norm, normalised queries and keys, whose epsilon is fixed in transformers. No
# release has the LLM's biases or these activations.
TWENTY_SIX_B = changed(
    EIGHT_B,
    vision_config={
        "norm_type": "rms_norm",
        "qkv_bias": False,
        "qk_normalization": True,
        "layer_norm_eps": 1e-6,
        "hidden_act": "relu",
    },
    llm_config={"bias": True, "rope_scaling": None, "hidden_act": "gelu"},
)


def released_weights(config: dict) -> Weights:
    """Random weights under the released names."""
    vision, llm = config["vision_config"], config["llm_config"]
    weights: Weights = {}

    def linear(name: str, outputs: int, inputs: int, bias: bool) -> None:
        weights[f"{name}.weight"] = torch.randn(outputs, inputs) * inputs**-0.5
        if bias:
            weights[f"{name}.bias"] = torch.randn(outputs) * 0.3

    def norm(name: str, size: int, bias: bool) -> None:
        weights[f"{name}.weight"] = 1 + 0.3 * torch.randn(size)
        if bias:
            weights[f"{name}.bias"] = 0.3 * torch.randn(size)

    c, patches = vision["hidden_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    weights["vision_model.embeddings.class_embedding"] = torch.randn(1, 1, c)
    weights["vision_model.embeddings.position_embedding"] = torch.randn(1, patches + 1, c)
    patch = "vision_model.embeddings.patch_embedding"
    weights[f"{patch}.weight"] = torch.randn(c, 3, vision["patch_size"], vision["patch_size"]) * 0.1
    weights[f"{patch}.bias"] = torch.randn(c) * 0.3
    for number in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{number}"
        linear(f"{layer}.attn.qkv", 3 * c, c, vision["qkv_bias"])
        linear(f"{layer}.attn.proj", c, c, True)
        linear(f"{layer}.mlp.fc1", vision["intermediate_size"], c, True)
        linear(f"{layer}.mlp.fc2", c, vision["intermediate_size"], True)
        for name in ("norm1", "norm2"):
            norm(f"{layer}.{name}", c, vision["norm_type"] == "layer_norm")
        for name in ("attn.q_norm", "attn.k_norm") if vision["qk_normalization"] else ():
            norm(f"{layer}.{name}", c, False)
        weights[f"{layer}.ls1"], weights[f"{layer}.ls2"] = torch.randn(c), torch.randn(c)
    d = llm["hidden_size"]
    norm("mlp1.0", 4 * c, True)
    linear("mlp1.1", d, 4 * c, True)
    linear("mlp1.3", d, d, True)
    weights["language_model.model.tok_embeddings.weight"] = torch.randn(llm["vocab_size"], d)
    rows = d // llm["num_attention_heads"] * (llm["num_attention_heads"] + 2 * llm["num_key_value_heads"])
    for number in range(llm["num_hidden_layers"]):
        layer = f"language_model.model.layers.{number}"
        linear(f"{layer}.attention.wqkv", rows, d, llm["bias"])
        linear(f"{layer}.attention.wo", d, d, llm["bias"])
        linear(f"{layer}.feed_forward.w1", llm["intermediate_size"], d, False)
        linear(f"{layer}.feed_forward.w3", llm["intermediate_size"], d, False)
        linear(f"{layer}.feed_forward.w2", d, llm["intermediate_size"], False)
        norm(f"{layer}.attention_norm", d, False)
        norm(f"{layer}.ffn_norm", d, False)
    norm("language_model.model.norm", d, False)
    linear("language_model.output", llm["vocab_size"], d, False)
    return weights


class Reference:
    """The published architecture as plain functions of the released weights."""

    def __init__(self, config: dict, weights: Weights):
        self.vision, self.llm, self.weights = config["vision_config"], config["llm_config"], weights

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, x: torch.Tensor, kind: str, eps: float) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        if kind == "layer_norm":
            return F.layer_norm(x, weight.shape, weight, self.weights[f"{name}.bias"], eps)
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight

    def tiles(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Tokens of the LLM for each tile [N, T, D]: the tower, 2x2 neighbours joined, the MLP."""
        vision, embeddings = self.vision, "vision_model.embeddings"
        n, p, c = len(pixels_NCHW), vision["patch_size"], vision["hidden_size"]
        side = vision["image_size"] // p
        cut = pixels_NCHW.unfold(2, p, p).unfold(3, p, p)  # [N, 3, side, side, p, p]
        cut = cut.permute(0, 2, 3, 1, 4, 5).reshape(n, side * side, -1)
        kernel = self.weights[f"{embeddings}.patch_embedding.weight"].reshape(c, -1)
        patches = F.linear(cut, kernel, self.weights[f"{embeddings}.patch_embedding.bias"])
        x = torch.cat([self.weights[f"{embeddings}.class_embedding"].expand(n, 1, c), patches], dim=1)
        x = x + self.weights[f"{embeddings}.position_embedding"]
        kind, eps = vision["norm_type"], vision["layer_norm_eps"]
        for number in range(vision["num_hidden_layers"]):
            layer = f"vision_model.encoder.layers.{number}"
            attended = self.vision_attention(f"{layer}.attn", self.norm(f"{layer}.norm1", x, kind, eps))
            x = x + self.weights[f"{layer}.ls1"] * attended
            hidden = self.linear(f"{layer}.mlp.fc1", self.norm(f"{layer}.norm2", x, kind, eps))
            hidden = ACTIVATIONS[vision["hidden_act"]](hidden)
            x = x + self.weights[f"{layer}.ls2"] * self.linear(f"{layer}.mlp.fc2", hidden)
        grid = x[:, 1:].reshape(n, side, side, c)
        quarters = [grid[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        joined = torch.cat(quarters, dim=-1).reshape(n, side * side // 4, 4 * c)
        normed = self.norm("mlp1.0", joined, "layer_norm", 1e-5)
        return self.linear("mlp1.3", F.gelu(self.linear("mlp1.1", normed)))

    def vision_attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.linear(f"{name}.qkv", x).split(x.shape[-1], dim=-1)
        if self.vision["qk_normalization"]:
            q = self.norm(f"{name}.q_norm", q, "rms_norm", self.vision["layer_norm_eps"])
            k = self.norm(f"{name}.k_norm", k, "rms_norm", self.vision["layer_norm_eps"])
        size, out = x.shape[-1] // self.vision["num_attention_heads"], torch.empty_like(x)
        for start in range(0, x.shape[-1], size):
            head = slice(start, start + size)
            scores = q[..., head] @ k[..., head].transpose(1, 2) * size**-0.5
            out[..., head] = scores.softmax(-1) @ v[..., head]
        return self.linear(f"{name}.proj", out)

    def logits(self, ids_BT: torch.Tensor, pixels_NCHW: torch.Tensor | None = None) -> torch.Tensor:
        x = self.weights["language_model.model.tok_embeddings.weight"][ids_BT]
        if pixels_NCHW is not None:
            x[ids_BT == IMAGE] = self.tiles(pixels_NCHW).flatten(0, 1)
        eps = self.llm["rms_norm_eps"]
        for number in range(self.llm["num_hidden_layers"]):
            layer = f"language_model.model.layers.{number}"
            attention, ffn = f"{layer}.attention", f"{layer}.feed_forward"
            x = x + self.attention(attention, self.norm(f"{layer}.attention_norm", x, "rms_norm", eps))
            normed = self.norm(f"{layer}.ffn_norm", x, "rms_norm", eps)
            gate = ACTIVATIONS[self.llm["hidden_act"]](self.linear(f"{ffn}.w1", normed))
            x = x + self.linear(f"{ffn}.w2", gate * self.linear(f"{ffn}.w3", normed))
        return self.linear("language_model.output", self.norm("language_model.model.norm", x, "rms_norm", eps))

    def attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Grouped-query attention head by head; the fused rows run group by group: its queries, its key, its value."""
        length, heads, groups = x.shape[1], self.llm["num_attention_heads"], self.llm["num_key_value_heads"]
        size, each = x.shape[-1] // heads, heads // groups
        blocks = self.linear(f"{name}.wqkv", x).split(size, dim=-1)
        future = torch.ones(length, length).triu(1).bool()
        outputs = []
        for group in range(groups):
            *queries, key, value = blocks[group * (each + 2) : (group + 1) * (each + 2)]
            for query in queries:
                scores = self.rotated(query) @ self.rotated(key).transpose(1, 2) * size**-0.5
                outputs.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ value)
        return self.linear(f"{name}.wo", torch.cat(outputs, dim=-1))

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary positions; beyond the trained length, dynamic scaling raises the base."""
        length, size = x.shape[1:]
        base, scaling, trained = self.llm["rope_theta"], self.llm["rope_scaling"], self.llm["max_position_embeddings"]
        if scaling and length > trained:
            factor = scaling["factor"]
            base *= (factor * length / trained - (factor - 1)) ** (size / (size - 2))
        angles = torch.outer(torch.arange(length).float(), base ** -(torch.arange(0, size, 2) / size))
        turned = torch.view_as_complex(torch.stack(x.chunk(2, dim=-1), dim=-1).contiguous())
        turned = turned * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag], dim=-1)


def write_release(folder: Path, config: dict, weights: Weights) -> Path:
    """A released folder: two shards, sentencepiece model, settings, the code that is not to be run."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = list(weights)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: weights[name] for name in part}, folder / f"model-{number:05}-of-00002.safetensors")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    contents = dict(enumerate(["<unk>", "<s>", "</s>"]))
    contents |= {TURN_END: "<|im_end|>", TURN_START: "<|im_start|>"} | dict(enumerate(ADDED, start=PIECES))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "added_tokens_decoder": {str(i): {"content": content, **flags} for i, content in contents.items()},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 8192,
        "tokenizer_class": "InternLM2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "conversation.py").write_text(CONVERSATION)
    return folder


@pytest.fixture(scope="module")
def weights() -> Weights:
    return released_weights(EIGHT_B)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Path:
    return write_release(tmp_path_factory.mktemp("internvl2") / "released", EIGHT_B, weights)


@pytest.fixture(scope="module")
def converted(released: Path) -> Path:
    return convert_internvl2(released, released.with_name("converted"), notify=lambda line: None)


def ids(length: int, tiles: int) -> torch.Tensor:
    """Two rows of random text; the first tokens of the first row stand for an image's tiles."""
    drawn = torch.randint(3, PIECES, (2, length))
    drawn[0, 2 : 2 + 4 * tiles] = IMAGE
    return drawn


@pytest.mark.parametrize("config", [EIGHT_B, TWENTY_SIX_B], ids=["8B", "26B"])
def test_logits_are_those_of_the_published_architecture(tmp_path: Path, config: dict) -> None:
    weights = released_weights(config)
    source = write_release(tmp_path / "released", config, weights)
    target = convert_internvl2(source, tmp_path / "converted", notify=lambda line: None)
    model, loading = AutoModelForMultimodalLM.from_pretrained(target, output_loading_info=True)
    assert not any(loading.values())
    assert not model.config.tie_word_embeddings
    reference = Reference(config, weights)
    pixels = torch.randn(2, 3, 28, 28)
    # Within the trained length of 24 and beyond it.
    for length in (16, 40):
        text, image = ids(length, tiles=0), ids(length, tiles=2)
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=text).logits, reference.logits(text), atol=1e-4, rtol=0)
            found = model(input_ids=image, pixel_values=pixels).logits
        expected = reference.logits(image, pixels)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert (expected - reference.logits(image, pixels.flip(0))).abs().max() > 1e-2


def test_pickled_weights_that_hold_tensors_alone_convert_alike(
    tmp_path: Path, weights: Weights, released: Path, converted: Path
) -> None:
    source = write_release(tmp_path / "released", EIGHT_B, {})
    for path in source.glob("*.safetensors"):
        path.unlink()
    for number, path in enumerate(released.glob("*.safetensors")):
        torch.save(load_file(path), source / f"pytorch_model-{number}.bin")
    target = convert_internvl2(source, tmp_path / "converted", notify=lambda line: None)
    found, expected = load_file(target / "model.safetensors"), load_file(converted / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_weights_keep_their_dtype(tmp_path: Path, weights: Weights) -> None:
    halves = {name: weight.bfloat16() for name, weight in weights.items()}
    source = write_release(tmp_path / "released", EIGHT_B, halves)
    target = convert_internvl2(source, tmp_path / "converted", notify=lambda line: None)
    assert {weight.dtype for weight in load_file(target / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForMultimodalLM.from_pretrained(target, dtype="auto").dtype == torch.bfloat16


def test_generation_stops_where_a_turn_ends(converted: Path) -> None:
    generation = json.loads((converted / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [TURN_END, 2]
    assert generation["pad_token_id"] == 2


def test_every_step_is_told(tmp_path: Path, released: Path) -> None:
    lines: list[str] = []
    convert_internvl2(released, tmp_path / "converted", notify=lines.append)
    assert lines == [f"converting the weights of {released}"]


TEXTS = [
    "the string is there",
    " leading and    inner   spaces ",
    "Two\n\nlines\n",
    "Überraschung 日本 \x00 ▁",
    "a [UNUSED_TOKEN_0] piece",
    "<0x41> is no A",
    "",
]


@pytest.mark.parametrize("text", [*TEXTS, "<|im_start|>there<|im_end|> the<quad>re</quad> <IMG_CONTEXT>"])
def test_tokens_are_sentencepiece_s(converted: Path, text: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    reference = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    chat = {"<|im_end|>": TURN_END, "<|im_start|>": TURN_START} | {t: PIECES + i for i, t in enumerate(ADDED)}
    expected = [1]
    for part in re.split(f"({'|'.join(re.escape(token) for token in chat)})", text):
        expected += [chat[part]] if part in chat else reference.encode(part)
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer(text)["input_ids"] == expected
    assert tokenizer.decode(expected[1:]) == text.replace("▁", " ")


def test_chat_tokens_replace_the_pieces_kept_free_for_them(converted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.convert_ids_to_tokens([TURN_END, TURN_START]) == ["<|im_end|>", "<|im_start|>"]
    assert "[UNUSED_TOKEN_145]" not in tokenizer.get_vocab()
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.model_max_length == 8192


def test_tiles_follow_the_size_that_the_release_forces(tmp_path: Path, weights: Weights) -> None:
    source = write_release(tmp_path / "released", EIGHT_B | {"force_image_size": 42}, weights)
    processor = load_processor(Model(path=str(convert_internvl2(source, tmp_path / "out", notify=lambda line: None))))
    assert processor.image_processor.size == {"height": 42, "width": 42}
    assert processor.image_seq_length == 9


def test_processor_cuts_tiles_and_writes_the_chat_as_the_release_does(converted: Path) -> None:
    processor = load_processor(Model(path=str(converted)))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 120, 3), dtype=np.uint8))
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is there?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Stars."}]},
    ]
    text = processor.apply_chat_template(messages)
    assert text == (
        f"<s><|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n<IMG_CONTEXT>\nWhat is there?<|im_end|>"
        "<|im_start|>assistant\nStars.<|im_end|>"
    )
    assert processor.apply_chat_template(messages[:1], add_generation_prompt=True) == text.partition("Stars.")[0]
    own = [{"role": "system", "content": "Be brief."}, *messages]
    assert processor.apply_chat_template(own) == text.replace(SYSTEM, "Be brief.")

    batch = processor(images=[image], text=[text], add_special_tokens=False, return_tensors="pt")
    # 120 by 50 is nearest to a grid of 2 by 1; the thumbnail comes last.
    wide, thumbnail = image.resize((56, 28), Image.Resampling.BICUBIC), image.resize((28, 28), Image.Resampling.BICUBIC)
    tiles = np.stack([wide.crop((0, 0, 28, 28)), wide.crop((28, 0, 56, 28)), thumbnail])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(tiles).float() / 255 - mean) / std
    torch.testing.assert_close(batch["pixel_values"], expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)
    image_tokens = "<img>" + "<IMG_CONTEXT>" * 12 + "</img>"
    tokenizer = processor.tokenizer
    whole = tokenizer(text.replace("<IMG_CONTEXT>", image_tokens), add_special_tokens=False)["input_ids"]
    assert batch["input_ids"][0].tolist() == whole
    assert (batch["input_ids"] == IMAGE).sum() == 12
    assert (processor.image_processor.min_patches, processor.image_processor.max_patches) == (2, 4)


class NotATensor:
    """What a pickle may hold and a checkpoint may not."""


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_embeddings(folder: Path) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    parts = load_file(path)
    del parts["language_model.model.tok_embeddings.weight"]
    save_file(parts, path)


def pickled_object(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({"vision_model.embeddings.class_embedding": NotATensor()}, folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def other_pieces(section: str, **values: object) -> Callable[[Path], object]:
    model = import_protobuf().ModelProto()
    model.ParseFromString(sentencepiece_model())
    for name, value in values.items():
        setattr(getattr(model, section), name, value)
    return lambda folder: (folder / "tokenizer.model").write_bytes(model.SerializeToString())


OTHER_PIECES = {
    "unigram": other_pieces("trainer_spec", model_type=1),
    "no bytes": other_pieces("trainer_spec", byte_fallback=False),
    "space in front": other_pieces("normalizer_spec", add_dummy_prefix=True),
    "fewer spaces": other_pieces("normalizer_spec", remove_extra_whitespaces=True),
    "normal form": other_pieces("normalizer_spec", precompiled_charsmap=b"1"),
}
REFUSALS = {
    "missing": (without_embeddings, "weights missing: model.language_model.embed_tokens.weight"),
    "half the weights": (
        lambda folder: (folder / "model-00001-of-00002.safetensors").unlink(),
        " more",
    ),
    "extra": (
        lambda folder: save_file({"mlp1.4.weight": torch.ones(2)}, folder / "extra.safetensors"),
        "weights unexpected: mlp1.4.weight",
    ),
    "extra layer": (
        lambda folder: save_file(
            {"language_model.model.layers.2.attention.wqkv.weight": torch.ones(80, 48)}, folder / "extra.safetensors"
        ),
        "weights unexpected: language_model.model.layers.2.attention.wqkv.weight",
    ),
    "shape": (
        lambda folder: save_file({"mlp1.0.weight": torch.ones(2)}, folder / "replaced.safetensors"),
        "weights of another shape: mlp1.0.weight [2]",
    ),
    "heads": (
        lambda folder: edit(folder / "config.json", llm_config=EIGHT_B["llm_config"] | {"num_key_value_heads": 3}),
        "attention.wqkv.weight [80, 48]",
    ),
    "pickle": (pickled_object, "pytorch_model.bin is refused: only tensors are read"),
    "half a file": (cut_short, "model-00001-of-00002.safetensors is refused"),
    "model type": (
        lambda folder: edit(folder / "config.json", model_type="llava"),
        "model_type is 'llava'; 'internvl_chat' is converted",
    ),
    "other LLM": (
        lambda folder: edit(folder / "config.json", llm_config={"architectures": ["Qwen2ForCausalLM"]}),
        "the LLM is Qwen2ForCausalLM",
    ),
    "other shuffle": (
        lambda folder: edit(folder / "config.json", ps_version="v1"),
        "ps_version is 'v1'; only 'v2' is converted",
    ),
    "no vision setting": (
        lambda folder: edit(folder / "config.json", vision_config={"model_type": "intern_vit_6b"}),
        "intern_vit_6b has no hidden_size",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    "no image token": (
        lambda folder: edit(folder / "tokenizer_config.json", added_tokens_decoder={}),
        "no token <|im_start|>, <|im_end|>, <img>",
    ),
    "too many tokens": (
        lambda folder: edit(folder / "config.json", llm_config=EIGHT_B["llm_config"] | {"vocab_size": VOCABULARY - 1}),
        f"token {VOCABULARY - 1} is beyond the LLM's {VOCABULARY - 1} embeddings",
    ),
    "no sentencepiece": (
        lambda folder: (folder / "tokenizer.model").write_bytes(b"\xff" * 9),
        "tokenizer.model is no sentencepiece model",
    ),
    **{name: (spoil, "tokenizer.model is not InternLM2's") for name, spoil in OTHER_PIECES.items()},
    "no system message": (
        lambda folder: (folder / "conversation.py").write_text(CONVERSATION.replace("internlm2-chat", "phi3-chat")),
        "conversation.py has no system_message for the template 'internlm2-chat'",
    ),
    "no weights": (
        lambda folder: [path.unlink() for path in folder.glob("*.safetensors")],
        "holds no weights; *.safetensors or *.bin are read",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, weights: Weights, case: str) -> None:
    spoil, message = REFUSALS[case]
    source = write_release(tmp_path / "released", EIGHT_B, weights)
    spoil(source)
    with pytest.raises(RecipeError) as caught:
        convert_internvl2(source, tmp_path / "converted", notify=lambda line: None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_target_that_exists_is_left_alone(tmp_path: Path, released: Path) -> None:
    with pytest.raises(RecipeError, match="exists; name a folder that does not"):
        convert_internvl2(released, tmp_path, notify=lambda line: None)
    assert not list(tmp_path.iterdir())
