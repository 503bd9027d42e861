"""Images and clips: spoiled bytes of every format, odd modes and odd numbers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from hypothesis import strategies as st
from PIL import Image

from equipoise.data.media import load_audios, load_images
from equipoise.data.sample import Sample, exchange
from equipoise.errors import DataError
from fuzz._mutations import any_of
from fuzz._surface import Cases, names

TURNS = exchange("q", "a")


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pictures() -> list[bytes]:
    """Small whole images of every format and mode that can be had."""
    grey = np.linspace(0, 65_535, 64).reshape(8, 8)
    colours = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    frames = [colours, colours.rotate(90)]
    turned = Image.Exif()
    turned[0x0112] = 6
    made = [
        _saved(colours, "PNG"), _saved(colours, "JPEG"), _saved(colours, "WEBP"), _saved(colours, "BMP"),
        _saved(colours, "PPM"), _saved(colours.convert("P"), "GIF"),
        _saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        _saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        _saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        _saved(colours, "JPEG", exif=turned), _saved(colours, "JPEG", progressive=True),
        _saved(colours.convert("CMYK"), "JPEG"), _saved(colours.convert("L"), "JPEG"),
        _saved(colours.convert("1"), "PNG"), _saved(colours.convert("RGBA"), "PNG"),
        _saved(colours.convert("LA"), "PNG"),
        _saved(colours.convert("P"), "PNG", transparency=3), _saved(Image.fromarray(grey.astype(np.uint16)), "PNG"),
        _saved(Image.fromarray(grey.astype(np.int32)), "TIFF"),
        _saved(Image.fromarray(grey.astype(np.float32)), "TIFF"),
        _saved(Image.fromarray(grey.astype(np.uint16)), "TIFF"), _saved(colours.convert("LAB"), "TIFF"),
        _saved(colours, "TIFF", compression="tiff_lzw"), _saved(colours, "TIFF", compression="tiff_deflate"),
        _saved(colours, "TIFF", compression="packbits"), _saved(colours.convert("1"), "TIFF", compression="group4"),
    ]  # fmt: skip
    for kind in ("AVIF", "ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000"):
        try:
            made.append(_saved(colours, kind))
        except (OSError, KeyError, ValueError):  # this Pillow was built without it
            continue
    return made


def png(width: int, height: int, depth: int = 8, kind: int = 2, lines: bytes = b"") -> bytes:
    """A PNG that says it is so large, with so many compressed zeros."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def bombs() -> list[bytes]:
    """Images that say they are larger, narrower or otherwise than they are."""
    text = zlib.compress(b"\0" * 50_000_000)
    chunk = struct.pack(">I", len(text) + 3) + b"zTXta\0\0" + text
    with_text = png(1, 1, lines=b"\0" * 4).replace(b"IDAT", b"IDAT", 1)
    return [
        png(50_000, 50_000), png(0, 0), png(1, 100_000, lines=b"\0" * 400_000), png(2**31 - 1, 1),
        png(30_000, 3_000, lines=b"\0" * 9_000),
        png(13_000, 13_000, 1, 0, b"\0" * 1_000), png(4, 4, 16, 6, b"\0" * 200), png(4, 4, 3, 2), png(4, 4, 8, 9),
        with_text[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + with_text[33:],
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;",
        b"BM" + b"\xff" * 60, b"P6\n999999 999999\n255\n", b"P6 4 4 65535\n" + b"\0" * 96,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"", b"\0" * 4_096, b"<svg/>",
    ]  # fmt: skip


def images(folder: Path) -> Cases:
    file = folder / "picture"
    sample = Sample("s", "own", TURNS, images=(file,))

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            [image] = load_images(sample)
        except DataError as error:
            names(error, file)
            raise
        assert image.mode == "RGB"
        image.load()
        assert max(image.size) <= 200 * min(image.size)

    whole = pictures()
    return st.one_of(any_of(whole), any_of(whole), any_of(whole), st.sampled_from([*bombs(), *whole])), check


def _written(samples: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes | None:
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    except (soundfile.LibsndfileError, ValueError, TypeError):
        return None
    return file.getvalue()


def clips() -> list[bytes]:
    """Short clips of every format, and with odd numbers in them."""
    tone = 0.5 * np.sin(np.arange(400) / 9)
    odd: list[np.ndarray] = [np.full(50, value) for value in (np.nan, np.inf, 1e30, 40_000.0, 0.0)]
    made = [
        _written(tone, 16_000, kind, subtype)
        for kind, subtype in (
            ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "MS_ADPCM"),
            ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None), ("AU", None), ("W64", None),
            ("RF64", None), ("CAF", None),
        )
    ]  # fmt: skip
    made += [_written(values, 16_000, "WAV", "FLOAT") for values in odd]
    made += [_written(np.zeros(0), 16_000, kind) for kind in ("WAV", "FLAC", "OGG")]
    made += [_written(tone, rate, "WAV") for rate in (1, 10, 999, 8_000, 44_100, 192_000, 655_350, 2**31 - 1)]
    made += [_written(np.zeros((30, channels)), 16_000, "WAV") for channels in (2, 8, 255, 1_024)]
    made += [_written(np.zeros((20_000, 8)), 96_000, "FLAC"), _written(np.zeros(2_000_000), 1_000, "FLAC")]
    return [one for one in made if one is not None]


def _header(channels: int, rate: int, bits: int, size: int, kind: int = 1) -> bytes:
    """The beginning of a WAV that says so."""
    block = (channels * bits // 8) & 0xFFFF
    form = struct.pack("<HHIIHH", kind, channels, rate & 0xFFFFFFFF, (rate * block) & 0xFFFFFFFF, block, bits)
    return (
        b"RIFF"
        + struct.pack("<I", size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + b"\0" * 64
    )


def audio(folder: Path) -> Cases:
    file = folder / "clip"
    sample = Sample("s", "own", TURNS, audios=(file,))

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            [clip] = load_audios(sample, 16_000)
        except DataError as error:
            names(error, file)
            raise
        assert clip.dtype == np.float32
        assert clip.ndim == 1
        assert len(clip)
        assert np.isfinite(clip).all()

    whole = clips()
    edge: Callable[[list[int]], st.SearchStrategy[int]] = st.sampled_from
    headers = st.builds(
        _header, edge([0, 1, 2, 1_024, 65_535]), edge([0, 1, 16_000, 2**31, 2**32 - 1]),
        edge([0, 1, 8, 16, 24, 32, 64]),
        edge([0, 64, 2**31, 2**32 - 1]), edge([1, 3, 6, 0xFFFE, 0x55]),
    )  # fmt: skip
    return st.one_of(any_of(whole), any_of(whole), any_of(whole), st.sampled_from(whole), headers), check
