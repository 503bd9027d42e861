"""The four backbones at full size, without weights: what trains, counted, against arithmetic from published sizes.

LoRA of rank r on a linear layer from `a` to `b` features adds r * a + b * r numbers; a linear layer with bias has
a * b + b, a layer norm 2 * a.
"""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
    PreTrainedModel,
)

from equipoise.models.loading import divide, prepare
from equipoise.models.salmonn import SalmonnConfig, SalmonnForConditionalGeneration
from equipoise.modules.partition import Partition
from equipoise.recipe import Lora, Model

SETTINGS = Model(path="full-size", lora=Lora(rank=16))
LAYERS = 32  # of each of the four LLMs


def llava_7b() -> PreTrainedModel:
    """Vicuna-7B; CLIP ViT-L/14 at 336 pixels."""
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=LAYERS, vocab_size=32064)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))


def blip2_opt() -> PreTrainedModel:
    """OPT-2.7B; EVA-CLIP ViT-g/14 without its last layer; Q-Former of BERT-base's size, which are the defaults."""
    text = OPTConfig(
        hidden_size=2560,
        ffn_dim=10240,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        word_embed_proj_dim=2560,
        vocab_size=50304,
    )
    return Blip2ForConditionalGeneration(Blip2Config(text_config=text.to_dict(), num_query_tokens=32))


def internvl2_8b() -> PreTrainedModel:
    """InternLM2.5-7B as Llama; InternViT-300M at 448 pixels."""
    vision = InternVLVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        attention_bias=True,
        use_qk_norm=False,
        norm_type="layer_norm",
    )
    text = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=92553,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000},
    )
    config = InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=92546, downsample_ratio=0.5, tie_word_embeddings=False
    )
    return InternVLForConditionalGeneration(config)


def salmonn_7b() -> PreTrainedModel:
    """Vicuna-7B; Whisper large-v2; BEATs iter3+; a Q-Former of two layers, which are the defaults."""
    return SalmonnForConditionalGeneration(SalmonnConfig())


# Self-attention of a Q-Former layer (BERT-base, 768 wide): four linear layers and a norm.
SELF_ATTENTION = (
    768 * 768 + 768  # query
    + 768 * 768 + 768  # key
    + 768 * 768 + 768  # value
    + 768 * 768 + 768  # output
    + 2 * 768  # norm
)  # fmt: skip
# Its feed-forward part, four times as wide, and norm.
FEED_FORWARD = 768 * 3072 + 3072 + 3072 * 768 + 768 + 2 * 768


def cross_attention(width: int) -> int:
    """Of a Q-Former layer that looks at features of some width."""
    return (
        768 * 768 + 768  # query
        + width * 768 + 768  # key
        + width * 768 + 768  # value
        + 768 * 768 + 768  # output
        + 2 * 768  # norm
    )  # fmt: skip


VICUNA_LORA = LAYERS * (
    4 * (16 * 4096 + 4096 * 16)  # q, k, v, o
    + 2 * (16 * 4096 + 11008 * 16)  # gate, up
    + (16 * 11008 + 4096 * 16)  # down
)  # fmt: skip

LLAVA_PROJECTOR = (
    1024 * 4096 + 4096  # CLIP's features to Vicuna's width
    + 4096 * 4096 + 4096
)  # fmt: skip

BLIP2_QFORMER = (
    32 * 768  # query tokens
    + 2 * 768  # their norm
    + 12 * (SELF_ATTENTION + FEED_FORWARD)
    + 6 * cross_attention(1408)  # every other layer, ViT-g's width
    + 768 * 2560 + 2560  # to OPT's width
)  # fmt: skip
OPT_LORA = LAYERS * (
    4 * (16 * 2560 + 2560 * 16)  # q, k, v, out
    + (16 * 2560 + 10240 * 16)  # fc1
    + (16 * 10240 + 2560 * 16)  # fc2
)

INTERNVL2_PROJECTOR = (
    2 * 4096  # norm of four patches of 1024 side by side
    + 4096 * 4096 + 4096
    + 4096 * 4096 + 4096
)  # fmt: skip
INTERNLM2_LORA = LAYERS * (
    2 * (16 * 4096 + 4096 * 16)  # q, o
    + 2 * (16 * 4096 + 1024 * 16)  # k, v: 8 heads of 128
    + 2 * (16 * 4096 + 14336 * 16)  # gate, up
    + (16 * 14336 + 4096 * 16)  # down
)  # fmt: skip

SALMONN_QFORMER = (
    2 * 1280 + 2 * 768  # norms of Whisper's and BEATs' features
    + 768  # one query token
    + 2 * 768  # its norm
    + 2 * (SELF_ATTENTION + cross_attention(1280 + 768) + FEED_FORWARD)
    + 768 * 4096 + 4096  # to Vicuna's width
)  # fmt: skip

BACKBONES = {
    "LLaVA-1.5-7B": (llava_7b, "projector", LLAVA_PROJECTOR, VICUNA_LORA),
    "BLIP-2 OPT-2.7B": (blip2_opt, "qformer", BLIP2_QFORMER, OPT_LORA),
    "InternVL2-8B": (internvl2_8b, "projector", INTERNVL2_PROJECTOR, INTERNLM2_LORA),
    "SALMONN-7B": (salmonn_7b, "qformer", SALMONN_QFORMER, VICUNA_LORA),
}


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> tuple[str, Partition, int]:
    """Name, modules as tuned, and all numbers of the model before it was given LoRA."""
    with torch.device("meta"):
        model = BACKBONES[request.param][0]()
    size = model.num_parameters()
    return request.param, divide(prepare(model, SETTINGS), SETTINGS), size


def test_trainable_parameters_are_those_that_arithmetic_gives(backbone: tuple[str, Partition, int]) -> None:
    name, division, _ = backbone
    _, connector, connector_size, lora_size = BACKBONES[name]
    assert {module: found.size for module, found in division.trainable.items()} == {
        connector: connector_size,
        "llm": lora_size,
    }
    assert division.modules[connector].kind == "full"
    assert division.modules["llm"].kind == "LoRA"


def test_the_whole_model_has_the_size_it_is_known_by(backbone: tuple[str, Partition, int]) -> None:
    """Else the arithmetic above might hold on a model that is not the released one."""
    name, division, size = backbone
    billions = {
        "LLaVA-1.5-7B": 7.06,
        "BLIP-2 OPT-2.7B": 3.74,
        "InternVL2-8B": 8.08,
        "SALMONN-7B": 7.49,  # Vicuna 6.738, Whisper's encoder 0.637, BEATs 0.090, Q-Former 0.026
    }
    assert round(size / 1e9, 2) == billions[name]
    frozen = sum(module.frozen for module in division.modules.values())
    assert frozen == size - BACKBONES[name][2]
