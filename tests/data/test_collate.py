"""Collation: labels on the answers alone, padding by use, image tokens where images are, and refusals that say why."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ProcessorMixin

from equipoise.data.collate import IGNORED, Collator
from equipoise.data.media import load_images
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError
from equipoise.models.embedded import IMAGE_TOKEN

END = "<|im_end|>"


def sample(*texts: str, images: tuple[Path, ...] = (), system: str | None = None) -> Sample:
    """A conversation whose turns alternate from the user's."""
    turns = [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]
    return Sample("s1", "task", (*([Turn("system", system)] if system else []), *turns), images, (texts[-1],))


@pytest.fixture
def collator(processor: ProcessorMixin) -> Collator:
    return Collator(processor)


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    paths = (tmp_path / "red.png", tmp_path / "blue.png")
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (40, 20), colour).save(path)
    return paths


def supervised(collator: Collator, batch: dict[str, torch.Tensor], row: int = 0) -> str:
    return collator.processor.tokenizer.decode(batch["labels"][row][batch["labels"][row] != IGNORED])


def text_of(collator: Collator, batch: dict[str, torch.Tensor], row: int = 0) -> str:
    return collator.processor.tokenizer.decode(batch["input_ids"][row][batch["attention_mask"][row] == 1])


@pytest.mark.parametrize("answer", ["Paris", "two words.", "", " yes", "yes ", "12\n", "ünï 日本", "a\nb", f"{END}x"])
def test_labels_are_the_answer_and_its_end(collator, answer):
    batch = collator([sample("Where?", answer)])
    assert supervised(collator, batch) == answer + END


def test_labels_lie_where_the_input_holds_the_answer(collator, images):
    batch = collator([sample("Where?", "Paris", images=images[:1])])
    kept = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])
    positions = kept[0].nonzero().flatten().tolist()
    assert positions == list(range(positions[0], batch["input_ids"].shape[1]))  # the answer ends the sequence


def test_the_answer_in_the_question_is_not_supervised(collator):
    batch = collator([sample("Is Paris Paris?", "Paris")])
    tokens = collator.processor.tokenizer("Paris", add_special_tokens=False)["input_ids"]
    assert (batch["labels"][0] != IGNORED).sum() == len(tokens) + 1


def test_every_answer_of_a_conversation_is_supervised(collator, images):
    batch = collator([sample("One?", "1", "Two?", "2 is it", "Three?", "3", images=images[:1], system="Count.")])
    assert supervised(collator, batch) == f"1{END}2 is it{END}3{END}"
    assert text_of(collator, batch) == (
        f"<|im_start|>system\nCount.{END}\n<|im_start|>user\n{IMAGE_TOKEN * 16}One?{END}\n"
        f"<|im_start|>assistant\n1{END}\n<|im_start|>user\nTwo?{END}\n<|im_start|>assistant\n2 is it{END}\n"
        f"<|im_start|>user\nThree?{END}\n<|im_start|>assistant\n3{END}"
    )


def test_each_row_of_a_batch_is_labelled_as_it_is_alone(collator, images):
    samples = [sample("a longer question?", "no"), sample("q?", "a much longer answer", images=images[:1])]
    batch = collator(samples)
    for row, one in enumerate(samples):
        assert supervised(collator, batch, row) == one.references[0] + END
        alone = collator([one])
        length = alone["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, :length], alone["input_ids"][0])
        assert torch.equal(batch["labels"][row, :length], alone["labels"][0])


def test_training_pads_on_the_right(collator):
    batch = collator([sample("short?", "a"), sample("a much longer question here?", "b")])
    mask, pad = batch["attention_mask"][0], collator.processor.tokenizer.pad_token_id
    assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    assert 0 < mask.sum() < len(mask)
    assert set(batch["input_ids"][0][mask == 0].tolist()) == {pad}
    assert set(batch["labels"][0][mask == 0].tolist()) == {IGNORED}


def test_prompts_pad_on_the_left_and_hold_no_answer(collator):
    batch = collator.prompts([sample("short?", "secret"), sample("a much longer question here?", "secret")])
    mask = batch["attention_mask"][0]
    assert mask.tolist() == sorted(mask.tolist())
    assert 0 < mask.sum() < len(mask)
    assert "labels" not in batch
    assert text_of(collator, batch) == f"<|im_start|>user\nshort?{END}\n<|im_start|>assistant\n"


def test_prompts_keep_earlier_answers(collator):
    batch = collator.prompts([sample("One?", "1", "Two?", "2")])
    assert text_of(collator, batch).endswith(f"1{END}\n<|im_start|>user\nTwo?{END}\n<|im_start|>assistant\n")


def test_a_prompt_is_what_precedes_the_labels(collator, images):
    one = sample("What?", "red", images=images[:1])
    prompt, batch = collator.prompts([one])["input_ids"][0], collator([one])
    assert torch.equal(batch["input_ids"][0, : len(prompt)], prompt)
    assert (batch["labels"][0, : len(prompt)] == IGNORED).all()
    assert (batch["labels"][0, len(prompt) :] != IGNORED).all()


def test_each_image_is_sixteen_tokens_in_its_own_row(collator, images):
    batch = collator([sample("q", "a", images=images), sample("q", "a"), sample("q", "a", images=images[:1])])
    counts = (batch["input_ids"] == collator.processor.image_token_id).sum(dim=1)
    assert counts.tolist() == [32, 0, 16]
    assert batch["pixel_values"].shape == (3, 3, 128, 128)


def test_images_are_given_in_the_order_of_the_samples_and_scaled_for_the_tower(collator, images):
    red, blue = images
    pixels = collator([sample("q", "a", images=(blue,)), sample("q", "a", images=(red,))])["pixel_values"]
    full, empty = (255 - 127) / 128, -127 / 128
    torch.testing.assert_close(pixels[0, :, 64, 64], torch.tensor([empty, empty, full]))
    torch.testing.assert_close(pixels[1, :, 64, 64], torch.tensor([full, empty, empty]))


def test_a_batch_without_images_has_no_pixels(collator):
    assert "pixel_values" not in collator([sample("q", "a")])


@pytest.mark.parametrize("extra", [0, -1])
def test_max_length_bounds_the_longest_sample_images_included(processor, images, extra):
    samples = [sample("q", "a"), Sample("long", "vqa", (Turn("user", "q"), Turn("assistant", "a")), images[:1], ("a",))]
    length = Collator(processor)(samples)["input_ids"].shape[1]
    bounded = Collator(processor, max_length=length + extra)
    if extra == 0:
        bounded(samples)
        return
    with pytest.raises(
        DataError, match=rf"^task vqa: sample long has {length} tokens; max_length allows {length - 1} "
    ):
        bounded(samples)


def test_what_is_cut_keeps_its_beginning_and_its_images(processor, images):
    whole, turns = Collator(processor), (Turn("user", "q"), Turn("assistant", "first answer")) * 2
    samples = [Sample("long", "vqa", turns, images[:1]), sample("q", "a")]
    batch = whole(samples)
    for kept in range(1, batch["labels"].shape[1]):
        cut = Collator(processor, max_length=kept, cut=True)
        if not (batch["labels"][0, :kept] != IGNORED).any():
            with pytest.raises(
                DataError, match=rf"sample long has .* max_length allows {kept} \(.*nothing of an answer"
            ):
                cut(samples)
            continue
        shorter = cut(samples)
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(shorter[name], batch[name][:, :kept])
        assert torch.equal(shorter["pixel_values"], batch["pixel_values"])


def test_what_is_short_enough_is_not_cut(processor):
    samples = [sample("q", "a")]
    length = Collator(processor)(samples)["labels"].shape[1]
    assert Collator(processor, max_length=length, cut=True)(samples)["labels"].shape[1] == length


def with_template(processor: ProcessorMixin, template: str | None) -> ProcessorMixin:
    changed = copy.copy(processor)
    changed.chat_template = template
    return changed


def test_a_template_that_renders_turns_differently_later_is_refused(processor):
    # As "thinking" templates do: an answer loses a part of itself once another turn follows.
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content[0].text }}{% if loop.last %} (the last){% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    collator = Collator(with_template(processor, template))
    with pytest.raises(DataError, match=r"task task: sample s1: .* the chat template must render each turn alike"):
        collator([sample("One?", "first answer", "Two?", "second answer")])


def test_where_the_template_does_not_end_answers_the_last_one_gets_the_end_of_text(processor):
    template = (
        "{% for m in messages %}{{ m.role }}:\n{{ m.content[0].text }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    collator = Collator(with_template(processor, template))
    assert supervised(collator, collator([sample("One?", "answer")])) == "answer<|im_end|>"


def test_a_processor_without_a_template_is_refused(processor):
    with pytest.raises(DataError, match="the processor has no chat template"):
        Collator(with_template(processor, None))


def test_images_open_as_rgb(tmp_path):
    Image.new("LA", (4, 4)).save(tmp_path / "grey.png")
    assert [image.mode for image in load_images(sample("q", "a", images=(tmp_path / "grey.png",)))] == ["RGB"]


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_cannot_be_read_is_named(collator, tmp_path, content):
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"^task task: sample s1: .*bad\.png: image cannot be read \(") as caught:
        collator([sample("q", "a", images=(path,))])
    assert len(str(caught.value).splitlines()) == 1


def test_a_text_that_holds_the_image_token_is_no_image(collator):
    batch = collator([sample(f"What is {IMAGE_TOKEN}?", "a token")])
    text = collator.processor.tokenizer.decode(batch["input_ids"][0])
    assert f"What is {IMAGE_TOKEN[0]} {IMAGE_TOKEN[1:]}?" in text
    assert IMAGE_TOKEN not in text


def test_an_answer_that_begins_with_spaces_is_refused(collator):
    with pytest.raises(DataError, match="white space"):
        collator([sample("q", "  indented")])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_and_the_rest_as_it_is(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))  # black, but transparent
    image.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "P":
        image = image.quantize(4)
    image.convert(mode).save(tmp_path / "a.png")
    [loaded] = load_images(Sample("s", "t", (), (tmp_path / "a.png",)))
    assert loaded.mode == "RGB"
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]
