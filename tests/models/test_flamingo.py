"""Gated cross-attention against the formula written out, and what it leaves of the LLM alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForMultimodalLM, LlamaForCausalLM

from equipoise.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, GatedCrossAttention
from models.zoo.cross_attention import flamingo

IMAGE = 4  # the placeholder's id in the zoo's tokenizer
IDS = torch.tensor([[1, 9, IMAGE, 30, 31, IMAGE, 32, 33], [1, 9, 12, 13, 14, 15, 16, 17]])
MASK = torch.tensor([[True, True], [False, False]])
GATES = ("alpha_cross_attn", "alpha_dense")


@pytest.fixture
def model() -> FlamingoForConditionalGeneration:
    torch.manual_seed(3)
    return flamingo()[0].double().eval()


def cross_attention(model: FlamingoForConditionalGeneration) -> GatedCrossAttention:
    return model.model.language_model.layers[1].cross_attention


def open_gates(model: FlamingoForConditionalGeneration) -> None:
    for gate, value in zip(GATES, (0.7, -0.4), strict=True):
        getattr(cross_attention(model).layer, gate).data.fill_(value)


def logits(model: FlamingoForConditionalGeneration, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def llm_alone(model: FlamingoForConditionalGeneration) -> LlamaForCausalLM:
    """The same weights in transformers' own class."""
    alone = LlamaForCausalLM(model.config.text_config).double().eval()
    weights = {"lm_head.weight": model.lm_head.weight}
    for name, value in model.model.language_model.state_dict().items():
        if ".cross_attention." not in name:
            weights["model." + name.replace("layers.1.layer.", "layers.1.")] = value
    alone.load_state_dict(weights)
    return alone


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def rms(value: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return weight * value / (value.square().mean() + epsilon).sqrt()


def test_the_layer_is_its_formula(model):
    """x + tanh(a) attention(norm(x), images), then x + tanh(b) mlp(norm(x)): token by token, head by head."""
    open_gates(model)
    ours = cross_attention(model)
    layer, attention, mlp = ours.layer, ours.layer.cross_attn, ours.layer.mlp
    for norm in (layer.input_layernorm, layer.post_attention_layernorm, attention.q_layer_norm, attention.k_layer_norm):
        norm.weight.data.uniform_(0.5, 2.0)
    hidden, images = torch.randn(1, 3, 32).double(), torch.randn(1, 5, 16).double()
    seen = torch.tensor([[[False] * 5, [True, True, False, True, False], [True] * 5]])
    expected = hidden[0].clone()
    epsilon, width = layer.input_layernorm.variance_epsilon, 8
    with torch.no_grad():
        for token in (1, 2):  # the first sees nothing
            x = hidden[0, token]
            asked = attention.q_proj.weight @ rms(x, layer.input_layernorm.weight, epsilon)
            heads = []
            for head in range(4):
                part = slice(head * width, (head + 1) * width)
                query = rms(asked[part], attention.q_layer_norm.weight, epsilon)
                scores, values = [], []
                for place in seen[0, token].nonzero().flatten():
                    key = rms(
                        (attention.k_proj.weight @ images[0, place])[part], attention.k_layer_norm.weight, epsilon
                    )
                    scores.append(query @ key / width**0.5)
                    values.append((attention.v_proj.weight @ images[0, place])[part])
                heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
            x = x + torch.tanh(layer.alpha_cross_attn) * (attention.o_proj.weight @ torch.cat(heads))
            inner = rms(x, layer.post_attention_layernorm.weight, epsilon)
            inner = mlp.down_proj.weight @ (F.silu(mlp.gate_proj.weight @ inner) * (mlp.up_proj.weight @ inner))
            expected[token] = x + torch.tanh(layer.alpha_dense) * inner
        # Idefics' norms take their variance in float32.
        torch.testing.assert_close(ours(hidden, images, seen)[0], expected, rtol=1e-5, atol=1e-5)


def test_closed_gates_leave_the_llm_as_it_is(model):
    images = pixels(2, 2)
    with_images = logits(model, IDS, pixel_values=images, image_mask=MASK)
    torch.testing.assert_close(with_images, logits(llm_alone(model), IDS))
    open_gates(model)
    assert (logits(model, IDS, pixel_values=images, image_mask=MASK) - with_images)[0].abs().max() > 0.01


def test_open_gates_change_what_follows_an_image_alone(model):
    open_gates(model)
    ours = logits(model, IDS, pixel_values=pixels(2, 2), image_mask=MASK)
    change = (ours - logits(llm_alone(model), IDS)).abs().amax(dim=-1)
    assert change[0, :2].max() < 1e-9
    assert change[0, 2:].min() > 1e-4
    assert change[1].max() < 1e-9
    torch.testing.assert_close(logits(model, IDS[1:]), logits(llm_alone(model), IDS[1:]))


def test_a_token_sees_the_images_before_it_and_not_those_behind(model):
    open_gates(model)
    one, other = pixels(2, 2), pixels(2, 2)
    other[0, 1] = 0.3
    change = [logits(model, IDS, pixel_values=images, image_mask=MASK) for images in (one, other)]
    moved = (change[0] - change[1]).abs().amax(dim=-1)
    assert moved[0, :5].max() == 0
    assert moved[0, 5:].min() > 1e-5
    assert moved[1].max() == 0


def test_what_fills_places_is_not_looked_at(model):
    open_gates(model)
    ids, mask = IDS[:, :4], torch.tensor([[True, False], [False, False]])
    one, other = pixels(2, 2), pixels(2, 2)
    other[0, 1], other[1] = 5.0, -5.0
    assert torch.equal(*(logits(model, ids, pixel_values=images, image_mask=mask) for images in (one, other)))
    alone = logits(model, ids[:1], pixel_values=one[:1, :1], image_mask=mask[:1, :1])
    torch.testing.assert_close(alone, logits(model, ids, pixel_values=one, image_mask=mask)[:1])


def test_images_are_encoded_once_a_prompt_and_seen_by_every_token_that_follows(model, monkeypatch):
    open_gates(model)
    calls = []
    tower = model.model.vision_tower
    real = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *a, **k: calls.append(1) or real(*a, **k))
    ids, images, mask = IDS[:1, :4], pixels(1, 1), MASK[:1, :1]
    made = model.generate(
        ids, pixel_values=images, image_mask=mask, max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert made.shape == (1, 9)
    assert len(calls) == 1
    for length in range(4, 9):
        step = logits(model, made[:, :length], pixel_values=images, image_mask=mask)
        assert step[0, -1].argmax() == made[0, length]
    beams = model.generate(
        IDS, pixel_values=pixels(2, 2), image_mask=MASK, max_new_tokens=4, num_beams=3, eos_token_id=None
    )
    assert beams.shape == (2, 12)


def test_new_layers_are_drawn_as_the_config_says_and_not_as_the_llms():
    config = flamingo()[0].config
    config.gate, config.initializer_range = 0.25, 0.3
    layer = FlamingoForConditionalGeneration(config).model.language_model.layers[1].cross_attention.layer
    assert [getattr(layer, gate).item() for gate in GATES] == [0.25, 0.25]
    assert layer.mlp.up_proj.weight.std().item() == pytest.approx(0.3, abs=0.03)
    assert layer.cross_attn.v_proj.weight.std().item() == pytest.approx(0.3, abs=0.03)


def test_it_saves_and_loads(model, tmp_path):
    open_gates(model)
    model.float().save_pretrained(tmp_path)
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path).eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    inputs = {"pixel_values": pixels(2, 2).float(), "image_mask": MASK}
    torch.testing.assert_close(logits(loaded, IDS, **inputs), logits(model, IDS, **inputs))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"input_ids": IDS, "pixel_values": pixels(2, 2)}, "found pixel_values without image_mask"),
        ({"input_ids": IDS, "pixel_values": pixels(2, 2), "image_mask": ~MASK}, r"found \[2, 0\] image placeholders"),
        ({"input_ids": IDS}, "found image placeholders in input_ids and no images"),
        (
            {"inputs_embeds": torch.zeros(2, 8, 32).double(), "pixel_values": pixels(2, 2), "image_mask": MASK},
            "images need input_ids",
        ),
    ],
)
def test_inputs_that_do_not_fit(model, inputs, reason):
    with pytest.raises(ValueError, match=reason):
        model(**inputs)


@pytest.mark.parametrize("layers", [[], [2], [-1, 0]])
def test_cross_attention_before_a_layer_that_is_not_there(layers):
    text = flamingo()[0].config.text_config
    with pytest.raises(ValueError, match="decoder's layers are 0 to 1"):
        FlamingoConfig(text_config=text, cross_layers=layers)
