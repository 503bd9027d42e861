"""Small patches in Gravis Ultrasound's format, written by hand from its table."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Recording(NamedTuple):
    """One sample of a patch: `pcm` as in the file, loop in bytes, notes in mHz."""

    pcm: bytes
    root: int = 440_000
    low: int = 1
    high: int = 20_000_000
    rate: int = 16_000
    loop: tuple[int, int] = (0, 0)
    modes: int = 1


def sine(frequency: float, seconds: float = 0.2, rate: int = 16_000, loudness: float = 0.5) -> bytes:
    """16 bits."""
    wave = loudness * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)
    return np.round(wave * 32_767).astype("<i2").tobytes()


def tone(frequency: float, **fields: Any) -> Recording:
    """A sine that loops over all of itself, and says which note it is."""
    pcm = sine(frequency)
    return Recording(pcm, root=round(frequency * 1000), loop=(0, len(pcm)), modes=5)._replace(**fields)


def patch_file(
    recordings: Sequence[Recording], instruments: int = 1, layers: int = 1, count: int | None = None
) -> bytes:
    """The bytes of a `.pat` file."""
    count = len(recordings) if count is None else count
    header = struct.pack("<12s10s60sBBBHHI36x", b"GF1PATCH110", b"ID#000002", b"made up", instruments, 14, 0, 1, 127, 0)
    instrument = struct.pack("<H16sIB40x", 0, b"instrument", 0, layers)
    layer = struct.pack("<BBIB40x", 0, 0, 0, count)
    samples = b"".join(
        struct.pack(
            "<7sBIIIHIIIHB6s6sBBBBBBBHH36x", b"one", 0, len(one.pcm), *one.loop, one.rate, one.low, one.high, one.root,
            512, 7, b"", b"", 0, 0, 0, 0, 0, 0, one.modes, 60, 1024,
        ) + one.pcm
        for one in recordings
    )  # fmt: skip
    return header + instrument + layer + samples
