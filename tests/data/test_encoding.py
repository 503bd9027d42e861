"""Texts, images and clips to tensors: the families whose processors need help, and the one form of the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ProcessorMixin

from equipoise.data.encoding import Row, encode
from models.zoo import audio, cross_attention, images, speech

RATE = 16_000


def picture(colour: str = "red", size: tuple[int, int] = (20, 12)) -> Image.Image:
    return Image.new("RGB", size, colour)


def clip(seconds: float, frequency: float = 400) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def text(processor: ProcessorMixin, batch: dict[str, torch.Tensor], row: int = 0) -> str:
    return processor.tokenizer.decode(batch["input_ids"][row][batch["attention_mask"][row] == 1])


@pytest.fixture(scope="module")
def llava() -> ProcessorMixin:
    return images.llava()[1]


@pytest.fixture(scope="module")
def blip2() -> ProcessorMixin:
    return images.blip2()[1]


@pytest.fixture(scope="module")
def paligemma() -> ProcessorMixin:
    return images.paligemma()[1]


@pytest.fixture(scope="module")
def idefics() -> ProcessorMixin:
    return cross_attention.idefics()[1]


# ------------------------------------------------------------------ the one form


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_are_padded_on_the_side_asked_for_and_nothing_is_added(llava: ProcessorMixin, side: str) -> None:
    batch = encode(llava, [Row("red"), Row("what colour is it")], side)
    assert batch.keys() == {"input_ids", "attention_mask"}
    tokens = llava.tokenizer("red", add_special_tokens=False)["input_ids"]
    kept = batch["input_ids"][0, : len(tokens)] if side == "right" else batch["input_ids"][0, -len(tokens) :]
    assert kept.tolist() == tokens
    assert int(batch["attention_mask"][0].sum()) == len(tokens) < batch["input_ids"].shape[1]


def test_images_go_in_the_order_of_the_rows(llava: ProcessorMixin) -> None:
    rows = [Row("<image>a", [picture("red")]), Row("b"), Row("<image><image>c", [picture("blue"), picture("white")])]
    batch = encode(llava, rows, "right")
    counts = (batch["input_ids"] == llava.tokenizer.convert_tokens_to_ids("<image>")).sum(dim=1)
    assert counts.tolist() == [4, 0, 8]
    assert batch["pixel_values"].shape[0] == 3
    brightest = batch["pixel_values"].mean(dim=(2, 3)).argmax(dim=1).tolist()
    assert brightest[:2] == [0, 2]


def test_clips_go_in_the_order_of_the_rows_at_the_extractors_rate() -> None:
    _, processor = speech.salmonn()
    rows = [Row("<audio>a", audios=[clip(1.0, 300)]), Row("b"), Row("<audio><audio>", audios=[clip(1), clip(1, 3_000)])]
    batch = encode(processor, rows, "right")
    alone = [encode(processor, [Row("<audio>", audios=[one])], "right") for row in rows for one in row.audios]
    assert batch["input_features"].shape[0] == 3
    for number, one in enumerate(alone):
        torch.testing.assert_close(batch["input_features"][number], one["input_features"][0])
        torch.testing.assert_close(batch["fbank"][number], one["fbank"][0])
    assert not torch.allclose(batch["fbank"][0], batch["fbank"][2])


# ------------------------------------------------------------------ BLIP-2


def test_blip2s_image_tokens_are_in_the_rows_with_images_alone(blip2: ProcessorMixin) -> None:
    rows = [Row("</s>red", [picture()]), Row("</s>blue"), Row("</s>both", [picture(), picture("blue")])]
    batch = encode(blip2, rows, "left")
    assert [text(blip2, batch, row) for row in range(3)] == [
        "<image>" * 4 + "</s>red", "</s>blue", "<image>" * 8 + "</s>both",
    ]  # fmt: skip
    assert batch["pixel_values"].shape == (3, 3, 16, 16)
    assert batch["attention_mask"][0].tolist() == sorted(batch["attention_mask"][0].tolist())


def test_blip2_is_shown_a_blank_where_a_batch_has_no_image(blip2: ProcessorMixin) -> None:
    batch = encode(blip2, [Row("red"), Row("blue")], "right")
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
    for channel in batch["pixel_values"][0]:
        assert channel.unique().numel() == 1
    assert text(blip2, batch) == "red"


def test_a_blank_changes_nothing_for_blip2() -> None:
    model, processor = images.blip2()
    batch = encode(processor, [Row("</s>what colour is it")], "right")
    with torch.no_grad():
        logits = model.eval()(**batch).logits
        of_text = model.language_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(logits, of_text)


# ------------------------------------------------------------------ PaliGemma


def test_paligemmas_texts_stay_as_they_are(paligemma: ProcessorMixin) -> None:
    rows = [Row("<image><bos>red\nblue<eos>", [picture()]), Row("<bos>what colour is it\nred<eos>")]
    batch = encode(paligemma, rows, "right")
    assert text(paligemma, batch, 0) == "<image>" * 4 + "<bos>red\nblue<eos>"
    assert text(paligemma, batch, 1) == "<bos>what colour is it\nred<eos>"
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
    assert "labels" not in batch
    assert "pixel_values" not in encode(paligemma, rows[1:], "right")


# ------------------------------------------------------------------ Idefics


def test_idefics_images_stand_where_the_text_has_them(idefics: ProcessorMixin) -> None:
    around = "<fake_token_around_image>"
    rows = [Row("<s>a<image>b<image>c", [picture(), picture("blue")]), Row("<s>d")]
    batch = encode(idefics, rows, "right")
    assert text(idefics, batch, 0) == f"<s>a{around}<image>{around}b{around}<image>{around}c"
    assert text(idefics, batch, 1) == "<s>d"
    assert batch["pixel_values"].shape == (2, 2, 3, 16, 16)
    brightest = batch["pixel_values"][0].mean(dim=(2, 3)).argmax(dim=1)
    assert brightest.tolist() == [0, 2]
    assert not batch["image_attention_mask"][1].any()


def test_idefics_takes_a_batch_of_text(idefics: ProcessorMixin) -> None:
    batch = encode(idefics, [Row("<s>a"), Row("<s>what colour")], "left")
    assert [text(idefics, batch, row) for row in range(2)] == ["<s>a", "<s>what colour"]


# ------------------------------------------------------------------ Voxtral


def test_voxtral_has_a_token_for_each_of_its_models_features() -> None:
    model, processor = audio.voxtral(seconds=30)
    for seconds, windows in ((1, 1), (30, 1), (31, 2)):
        batch = encode(processor, [Row("<s>[BEGIN_AUDIO][AUDIO]what", audios=[clip(seconds)])], "right")
        tokens = int((batch["input_ids"] == processor.audio_token_id).sum())
        assert tokens == 375 * windows
        assert batch["input_features"].shape == (windows, 16, 3000)
        with torch.no_grad():
            features = model.get_audio_features(batch["input_features"]).pooler_output
        assert features.shape[0] == tokens


def test_voxtrals_windows_are_its_own_processors() -> None:
    _, processor = audio.voxtral(seconds=2)
    wave = clip(5, 700)
    batch = encode(processor, [Row("[AUDIO]", audios=[wave])], "right")
    theirs = processor._retrieve_input_features(
        [wave], max_source_positions=200, sampling_rate=RATE, padding=True, truncation=False,
        pad_to_multiple_of=2 * RATE, return_tensors="pt",
    )  # fmt: skip
    assert batch["input_features"].shape == (3, 16, 200)
    torch.testing.assert_close(batch["input_features"], theirs)


def test_voxtral_puts_each_clip_where_its_row_has_it() -> None:
    _, processor = audio.voxtral(seconds=2)
    rows = [Row("a[AUDIO]b[AUDIO]c", audios=[clip(1), clip(3)]), Row("d"), Row("[AUDIO]e", audios=[clip(2)])]
    batch = encode(processor, rows, "left")
    assert [text(processor, batch, row) for row in range(3)] == [
        "a" + "[AUDIO]" * 25 + "b" + "[AUDIO]" * 50 + "c", "d", "[AUDIO]" * 25 + "e",
    ]  # fmt: skip
    assert batch["input_features"].shape[0] == 4
    assert encode(processor, rows[1:2], "left").keys() == {"input_ids", "attention_mask"}
