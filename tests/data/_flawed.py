"""Samples that cannot be read, one of each kind, with the line that each must give."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image

GOOD = {"prompt": "q", "answer": "a", "references": ["a"]}
OUTSIDE = "image lies outside the task's folder and its media_roots"
#: Name to a line of a JSONL file, the file to look at and the reason, as the one line says them.
LINES: dict[str, tuple[dict[str, Any] | str, str, str]] = {
    "a corrupt image": ({"image": "corrupt.png"}, "corrupt.png", "image cannot be read (image file is truncated"),
    "a missing image": ({"image": "none.png"}, "none.png", "image does not exist"),
    "no references": ({"references": []}, "train.jsonl", "references is []; expected a list of at least one item"),
    "an empty clip": ({"audio": "empty.wav"}, "empty.wav", "audio cannot be read (it holds no sample)"),
    "20,000 x 20,000": ({"image": "huge.png"}, "huge.png", "image cannot be read (Image size (400000000 pixels)"),
    "a path up": ({"image": "../outside.png"}, "../outside.png", OUTSIDE),
    "an absolute path": ({"image": "/etc/passwd"}, "/etc/passwd", OUTSIDE),
    "a link": ({"image": "link.png"}, "link.png", OUTSIDE),
    "a cut line": ('{"prompt": "q", "ans', "train.jsonl", "Unterminated string"),
    "a line that is no UTF-8": ('{"prompt": "\udcff"}', "train.jsonl", "'utf-8' codec can't decode byte 0xff"),
    "half a character": ({"prompt": "\ud800"}, "", "it holds half of a character (a lone surrogate); expected Unicode"),
}


def huge_png(side: int) -> bytes:
    """A black PNG of that many pixels a side, one bit each: whole and right, and small on disk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_media(folder: Path) -> Path:
    """The files that LINES name, but for the link."""
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(folder / "good.png")
    (folder / "corrupt.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "huge.png").write_bytes(huge_png(20_000))
    soundfile.write(folder / "empty.wav", [], 16_000)
    return folder


def write_task(folder: Path, media: Path, name: str) -> Path:
    """Three samples, the second of which is LINES' of this name; an image outside lies beside the folder."""
    line, _, _ = LINES[name]
    folder.mkdir(parents=True)
    for file in media.iterdir():
        (folder / file.name).hardlink_to(file)
    (folder.parent / "outside.png").write_bytes((folder / "good.png").read_bytes())
    (folder / "link.png").symlink_to("../outside.png")
    good = {**GOOD, "image": "good.png"}
    text = line if isinstance(line, str) else json.dumps({**GOOD, **line})
    lines = "".join(f"{one}\n" for one in (json.dumps(good), text, json.dumps(good)))
    (folder / "train.jsonl").write_bytes(lines.encode("utf-8", "surrogateescape"))
    return folder


def assert_line(line: str, folder: Path, name: str) -> None:
    """The line names the task, the sample, the file and what is wrong with it."""
    _, file, reason = LINES[name]
    assert len(line.splitlines()) == 1
    place = line.split(": ")[1]
    assert place in ("sample 2", "sample line 2")
    assert line.startswith(f"task own: {place}: {folder / file}: {reason}")
