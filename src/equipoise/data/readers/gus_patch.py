"""Gravis Ultrasound patches (`.pat`): the samples of one instrument, and the notes that a sampler plays with them.

Layout, little-endian (Forte's and Gravis' patch format 1.10, as TiMidity++'s `instrum.c` reads it):

| bytes | |
| --- | --- |
| 129 | `GF1PATCH110\\0`, `ID#000002\\0`, 60 of description; the number of instruments at 82 |
| 63 | the instrument; the number of layers at 22 |
| 47 | the layer; the number of samples at 6 |
| 96 + size | each sample: `SAMPLE` below, then its PCM |

Played is the recorded wave: the attack, then the loop again and again. Envelopes, tremolo and vibrato, which a sampler
adds, are left out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import ceil

import numpy as np
import soxr

from equipoise.data.audio import RATES

MAGIC = b"GF1PATCH110\0"
INSTRUMENTS, LAYERS, COUNT = 82, 129 + 22, 192 + 6  # where the file says how many it has
FIRST = 239  # where the first sample begins
# name, fractions; size, loop's start and end in bytes; rate; lowest, highest and root note in mHz; tune; balance,
# envelope, tremolo, vibrato; modes; scale, reserved
SAMPLE = struct.Struct("<8x3IH3I2x19xB40x")
SIXTEEN_BITS, UNSIGNED, LOOPED, ALTERNATING, BACKWARDS = 1, 2, 4, 8, 16  # of `modes`
PITCHES = (1.0, 20_000.0)  # Hz
FADE = 0.05  # seconds


@dataclass(frozen=True)
class PatchSample:
    """One recording, and the notes that it stands for.

    Attributes:
        wave: float32 [samples], full scale at 1.
        rate: samples a second at which it was recorded.
        lowest, highest: the notes that are played with it, in Hz.
        root: the note that was recorded, in Hz.
        loop: the part that is repeated as long as a note is held, [first, end) in samples; None for a sound that ends.
        alternating: whether it is repeated forwards and backwards by turns.
    """

    wave: np.ndarray
    rate: int
    lowest: float
    highest: float
    root: float
    loop: tuple[int, int] | None
    alternating: bool


def read_patch(content: bytes) -> list[PatchSample]:
    """Read the samples of a patch.

    Raises:
        ValueError: it is none, is cut short, has several instruments or layers, or a sample that cannot be played.
    """
    if not content.startswith(MAGIC):
        raise ValueError("it is no patch in format GF1PATCH110")
    if len(content) < FIRST:
        raise ValueError(f"it is cut short: {len(content)} bytes, of which the header takes {FIRST}")
    for place, name in ((INSTRUMENTS, "instruments"), (LAYERS, "layers")):
        if content[place] > 1:  # 0 is written for 1
            raise ValueError(f"it has {content[place]} {name}; expected 1")
    samples, place = [], FIRST
    for number in range(1, content[COUNT] + 1):
        size, *fields = _header(content, place, number)
        place += SAMPLE.size
        if size > len(content) - place:
            raise ValueError(
                f"it is cut short: sample {number} says {size:,} bytes, of which {len(content) - place:,} are there"
            )
        try:
            samples.append(_sample(content[place : place + size], *fields))
        except ValueError as error:
            raise ValueError(f"sample {number}: {error}") from None
        place += size
    if not samples:
        raise ValueError("it has no sample")
    return samples


def _header(content: bytes, place: int, number: int) -> tuple[int, ...]:
    if len(content) - place < SAMPLE.size:
        raise ValueError(f"it is cut short: sample {number} of {content[COUNT]} is not there")
    return SAMPLE.unpack_from(content, place)


def _sample(pcm: bytes, start: int, end: int, rate: int, low: int, high: int, root: int, modes: int) -> PatchSample:
    width = 2 if modes & SIXTEEN_BITS else 1
    if not pcm or len(pcm) % width:
        raise ValueError(f"it has {len(pcm)} bytes of {8 * width} bits")
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"it has {rate:,} samples a second; allowed are {RATES[0]:,} to {RATES[1]:,}")
    if not PITCHES[0] <= root / 1000 <= PITCHES[1]:
        raise ValueError(f"its note is of {root / 1000:,} Hz; allowed are {PITCHES[0]:,.0f} to {PITCHES[1]:,.0f}")
    if modes & BACKWARDS:
        raise ValueError("it is played backwards, which is not supported")
    if modes & LOOPED and not start // width < end // width <= len(pcm) // width:
        raise ValueError(f"its loop is from byte {start:,} to {end:,} of {len(pcm):,}")
    wave = np.frombuffer(pcm, dtype=f"<{'u' if modes & UNSIGNED else 'i'}{width}").astype(np.float32)
    wave /= 1 << (8 * width - 1)
    return PatchSample(
        wave=wave - 1 if modes & UNSIGNED else wave,
        rate=rate,
        lowest=low / 1000,
        highest=high / 1000,
        root=root / 1000,
        loop=(start // width, end // width) if modes & LOOPED else None,
        alternating=bool(modes & ALTERNATING),
    )


def play(sample: PatchSample, note: float, seconds: float, rate: int) -> np.ndarray:
    """Play a note: the wave, faster or slower than it was recorded, its loop repeated until `seconds` are over.

    Args:
        note: in Hz.
        seconds: how long it is held; a sound without a loop may be shorter.
        rate: samples a second of what is returned.

    Returns:
        float32 [samples], its loudest at 0.5; then faded out at the end where it was cut.

    Raises:
        ValueError: the note is too far from the recorded one, or silent.
    """
    speed = sample.rate * note / sample.root
    if not RATES[0] <= speed <= RATES[1]:
        raise ValueError(f"a note of {note:,.1f} Hz needs {speed:,.0f} samples a second")
    held = _held(sample, ceil(seconds * speed))
    sound = np.asarray(soxr.resample(held, speed, rate), dtype=np.float32)
    loudest = np.abs(sound).max(initial=0)
    if not loudest > 0:
        raise ValueError(f"a note of {note:,.1f} Hz is silent")
    if sample.loop is not None or len(held) < len(sample.wave):
        fade = min(len(sound), int(FADE * rate))
        sound[len(sound) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return sound * np.float32(0.5 / loudest)


def _held(sample: PatchSample, length: int) -> np.ndarray:
    if sample.loop is None:
        return sample.wave[:length]
    first, end = sample.loop
    turn = sample.wave[first:end]
    if sample.alternating:
        turn = np.concatenate((turn[::-1], turn))
    missing = max(0, length - end)
    return np.concatenate((sample.wave[:end], np.resize(turn, missing)))[:length]
