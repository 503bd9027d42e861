"""Opening images and clips: what cannot be opened is one line with task, sample and path, when needed or before."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from _flawed import huge_png
from PIL import Image

from equipoise.data import media
from equipoise.data.images import load_image
from equipoise.data.media import checked, load_audios, load_images
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError

RATE = 16_000


def encoded(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def about(*images: Path, audios: tuple[Path, ...] = (), id: str = "7") -> Sample:
    return Sample(id, "vqa", exchange("q", "a"), images=images, audios=audios)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 3), "red").save(path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(800, 0.25), 8_000)
    return path


def test_images_come_in_order_as_rgb(tmp_path, image):
    grey = tmp_path / "b.png"
    Image.new("L", (2, 2), 9).save(grey)
    found = load_images(about(grey, image))
    assert [(one.mode, one.size, one.getpixel((0, 0))) for one in found] == [
        ("RGB", (2, 2), (9, 9, 9)), ("RGB", (4, 3), (255, 0, 0)),
    ]  # fmt: skip
    assert load_images(about()) == []


def test_what_is_transparent_is_white(tmp_path):
    for name, made in (("rgba", Image.new("RGBA", (1, 1), (9, 9, 9, 0))), ("la", Image.new("LA", (1, 1), (9, 0)))):
        made.save(tmp_path / f"{name}.png")
        assert load_image(tmp_path / f"{name}.png").getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1), 3)
    palette.putpalette([shade for number in range(4) for shade in (number, number, number)])
    palette.save(tmp_path / "p.png", transparency=3)
    assert load_image(tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("RGBA", (1, 1), (9, 8, 7, 255)).save(tmp_path / "opaque.png")
    assert load_image(tmp_path / "opaque.png").getpixel((0, 0)) == (9, 8, 7)


def test_clips_come_at_the_rate_that_is_asked_for(clip):
    [wave] = load_audios(about(audios=(clip,)), RATE)
    assert (wave.dtype, len(wave)) == (np.float32, 1_600)
    assert len(load_audios(about(audios=(clip, clip)), 8_000)[1]) == 800


#: Name to a file that cannot be opened, and what is said of it.
IMAGES: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "missing": (lambda: None, "No such file or directory"),
    "empty": (lambda: b"", "no image that Pillow knows"),
    "text": (lambda: b"<html>not found</html>", "no image that Pillow knows"),
    "cut PNG": (lambda: encoded("PNG")[:2_000], "image file is truncated"),
    "cut JPEG": (lambda: encoded("JPEG")[:1_000], "image file is truncated"),
    "corrupt PNG": (lambda: encoded("PNG")[:60] + bytes(500) + encoded("PNG")[560:], "broken data stream"),
    "20,000 x 20,000": (lambda: huge_png(20_000), "Image size (400000000 pixels) exceeds limit of 178956970 pixels"),
}
CLIPS: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "missing": (lambda: None, "No such file"),
    "no bytes": (lambda: b"", "Format not recognised."),
    "text": (lambda: b"<html>not found</html>", "Format not recognised."),
    "no sample": (lambda: wav(0), "it holds no sample"),
    "a header alone": (lambda: wav(100)[:30], "Error in WAV file"),
}


def wav(samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(samples), RATE, format="WAV")
    return file.getvalue()


def put(folder: Path, name: str, content: bytes | None) -> Path:
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    return path


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_cannot_be_opened_is_one_line(tmp_path, image, name):
    make, reason = IMAGES[name]
    bad = put(tmp_path, "bad.png", make())
    with pytest.raises(DataError) as caught:
        load_images(about(image, bad))
    line = one_line(caught)
    assert line.startswith(f"task vqa: sample 7: {bad}: image cannot be read ({reason}")
    assert line.count(str(bad)) == 1
    before = list(checked([about(image), about(image, bad, id="8"), about(image, id="9")]))
    assert [row.id for row in before] == ["7", "8", "9"]
    assert [isinstance(row, Flaw) for row in before] == [False, True, False]
    assert before[1].line("vqa") == line.replace("sample 7", "sample 8")


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_that_cannot_be_opened_is_one_line(tmp_path, clip, name):
    make, reason = CLIPS[name]
    bad = put(tmp_path, "bad.wav", make())
    with pytest.raises(DataError) as caught:
        load_audios(about(audios=(clip, bad)), RATE)
    line = one_line(caught)
    assert line.startswith(f"task vqa: sample 7: {bad}: audio cannot be read ({reason}")
    assert line.count(str(bad)) == 1
    good, flaw = checked([about(audios=(clip,)), about(audios=(clip, bad))])
    assert (good, flaw.line("vqa")) == (about(audios=(clip,)), line)


def test_a_large_image_below_the_limit_is_read(tmp_path):
    path = put(tmp_path, "large.png", huge_png(4_000))
    assert load_images(about(path))[0].size == (4_000, 4_000)


@pytest.mark.parametrize("error", [RuntimeError("Failed to decode"), MemoryError("Unable to allocate"), EOFError()])
def test_whatever_a_decoder_raises_is_said_of_the_file(image, monkeypatch, error):
    def broken(path: Path) -> Image.Image:
        raise error

    monkeypatch.setattr(media, "load_image", broken)
    said = str(error) or "EOFError"
    with pytest.raises(DataError, match=rf"^task vqa: sample 7: {image}: image cannot be read \({said}\)$"):
        load_images(about(image))
    [flaw] = checked([about(image)])
    assert flaw == Flaw("7", str(image), f"image cannot be read ({said})")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it found on the way
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF"])
def test_no_damage_is_more_than_a_line(tmp_path, kind):
    """Bytes cut off and changed at random: the image is read, or refused as all others are."""
    whole, draw = encoded(kind), random.Random(kind)
    for _ in range(40):
        damaged = bytearray(whole[: draw.randrange(len(whole)) if draw.random() < 0.3 else None])
        for _ in range(draw.choice([1, 3, 20])):
            if damaged:
                damaged[draw.randrange(min(len(damaged), draw.choice([80, len(whole)])))] = draw.randrange(256)
        path = put(tmp_path, "damaged", bytes(damaged))
        for row in checked([about(path)]):
            assert isinstance(row, Sample) or row.reason.startswith("image cannot be read (")


# ---------------------------------------------------------------------- before training


def test_rows_pass_in_order_and_flaws_stay_flaws(tmp_path, image, clip):
    rows = [about(image, id=str(number)) for number in range(600)]
    rows[300] = Flaw("300", "train.jsonl", "bad")
    rows[7] = about(id="7")
    rows[599] = about(image, audios=(clip,), id="599")
    assert list(checked(rows)) == rows


def test_rows_are_taken_a_few_at_a_time(image):
    taken: list[int] = []

    def rows() -> Iterator[Sample]:
        for number in range(10_000):
            taken.append(number)
            yield about(image, id=str(number))

    assert next(checked(rows())).id == "0"
    assert len(taken) <= 1_000


def test_an_image_of_many_questions_is_opened_once(image, monkeypatch):
    opened: list[Path] = []
    lock = threading.Lock()

    def load(path: Path) -> Image.Image:
        with lock:
            opened.append(path)
        return load_image(path)

    monkeypatch.setattr(media, "load_image", load)
    assert len(list(checked(about(image, id=str(number)) for number in range(1_000)))) == 1_000
    assert len(opened) < 50, "several threads may ask at once"


def test_a_mended_image_is_good_the_next_time(tmp_path, image):
    bad = put(tmp_path, "bad.png", b"no image")
    assert isinstance(next(checked([about(bad)])), Flaw)
    bad.write_bytes(image.read_bytes())
    assert next(checked([about(bad)])) == about(bad)


def test_what_ends_the_reading_ends_the_checking(image):
    def rows() -> Iterator[Sample]:
        yield about(image)
        raise DataError("cut short")

    found = checked(rows())
    with pytest.raises(DataError, match=r"^cut short$"):
        list(found)
