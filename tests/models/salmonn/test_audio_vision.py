"""One LLM with both towers: placeholders of both kinds in any rows, three modules, saving, generation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from _tiny_salmonn import TOKENS, assert_close, audio_vision_config, clip, extractor, tokenizer
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from equipoise.models.audio_vision import AudioVisionForConditionalGeneration, AudioVisionProcessor
from equipoise.models.salmonn import SalmonnFeatureExtractor

TEXTS = ["<image> What do you hear? <audio>", "hello", "<audio> and <image><image>"]
CLIPS = [clip(1.1, 1), clip(2.0, 2)]
IMAGES = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]


def model() -> AudioVisionForConditionalGeneration:
    torch.manual_seed(5)
    return AudioVisionForConditionalGeneration(audio_vision_config()).eval()


def processor() -> AudioVisionProcessor:
    size = {"height": 16, "width": 16}
    images = LlavaImageProcessorPil(size=size, crop_size=size)
    return AudioVisionProcessor(
        images, extractor(), tokenizer("<image>"), num_audio_tokens=TOKENS, num_image_tokens=4
    )  # fmt: skip


def batch(side: str = "right") -> dict[str, torch.Tensor]:
    made = processor()(
        text=TEXTS, audio=CLIPS, images=IMAGES, padding=True, padding_side=side, return_tensors="pt"
    )  # fmt: skip
    return dict(made)


def alone(row: int) -> dict[str, torch.Tensor]:
    audio, images = ([CLIPS[:1], None, CLIPS[1:]][row], [IMAGES[:1], None, IMAGES[1:]][row])
    return dict(processor()(text=TEXTS[row : row + 1], audio=audio, images=images, return_tensors="pt"))


def test_both_kinds_of_placeholders_grow() -> None:
    ids, made = batch()["input_ids"], processor()
    assert (ids == made.audio_token_id).sum(dim=1).tolist() == [TOKENS, 0, TOKENS]
    assert (ids == made.image_token_id).sum(dim=1).tolist() == [4, 0, 8]


def test_template_names_both() -> None:
    content = [{"type": "image"}, {"type": "audio"}, {"type": "text", "text": "What?"}]
    text = processor().apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )  # fmt: skip
    assert text == "<s> USER: <image>\n<Speech><audio> </Speech> What?\nASSISTANT:"


@torch.no_grad()
def test_mixed_rows_are_what_they_are_alone() -> None:
    logits = model()(**batch()).logits
    for row in range(3):
        expected = model()(**alone(row)).logits[0]
        assert_close(logits[row, : len(expected)], expected, 1e-4)
    swapped = {**batch(), "pixel_values": batch()["pixel_values"].flip(0)}
    assert (model()(**swapped).logits - logits)[2].abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
def test_batched_generation_is_one_by_one(beams: int) -> None:
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    together = model().generate(**batch("left"), **options)[:, -6:]
    for row in range(3):
        assert together[row].tolist() == model().generate(**alone(row), **options)[0, -6:].tolist()


def test_images_alone_are_llavas() -> None:
    """The image branch is LLaVA's: the tower's layer, without the class token, through the projector."""
    seeing = model().model
    pixels = batch()["pixel_values"]
    with torch.no_grad():
        states = seeing.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        assert_close(seeing.get_image_features(pixels), seeing.multi_modal_projector(states[:, 1:]))


def test_missing_images_are_refused() -> None:
    inputs = batch()
    inputs.pop("pixel_values")
    with pytest.raises(ValueError, match=r"found 12 image placeholders .* and 0 items in pixel_values"):
        model()(**inputs)


def test_three_modules_learn() -> None:
    learner = model()
    learner.requires_grad_(False)
    for path in ("multi_modal_projector", "qformer", "language_model"):
        learner.model.get_submodule(path).requires_grad_(True)
    inputs = batch()
    learner(**inputs, labels=inputs["input_ids"]).loss.backward()
    with_gradient = {name.split(".")[1] for name, p in learner.named_parameters() if p.grad is not None}
    assert with_gradient == {"multi_modal_projector", "qformer", "language_model"}


def test_saving_keeps_everything(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    opened, made = AutoModelForMultimodalLM.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert type(opened) is AudioVisionForConditionalGeneration
    assert type(made) is AudioVisionProcessor
    assert type(made.feature_extractor) is SalmonnFeatureExtractor
    assert (made.num_audio_tokens, made.num_image_tokens) == (TOKENS, 4)
    assert made.chat_template == processor().chat_template
    inputs = made(text=TEXTS, audio=CLIPS, images=IMAGES, padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(opened(**inputs).logits, model()(**batch()).logits)
