"""Audio files as mono arrays at the rate a model's processor wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from equipoise.opening import open_plain

LONGEST = 100_000_000
"""Most samples of a clip, before and after its rate is changed: 400 MB, 38 minutes at 44.1 kHz, 104 at 16 kHz."""

RATES = (1_000, 1_000_000)
"""Least and most samples a second."""

LOUDEST = 100_000.0
"""Full scale is 1; files of floats that hold 16-bit numbers reach 32,768."""

BLOCK = 1 << 20  # values of all channels that are decoded at once: a file may have a thousand channels


def load_audio(path: Path, sampling_rate: int = 16_000) -> np.ndarray:
    """Read a WAV, FLAC, Ogg or MP3 file.

    Of several channels the first is taken, as SALMONN's release does.

    Args:
        path: what libsndfile can read.
        sampling_rate: in Hz; other rates are resampled to it.

    Returns:
        float32 [samples], full scale at 1.

    Raises:
        OSError, soundfile.LibsndfileError: a file that is missing or no audio. ValueError: a file without a sample, or
            of which a bound above is passed, or that holds what is no number.
    """
    with open_plain(path) as opened, soundfile.SoundFile(opened.fileno(), closefd=False) as file:
        rate = file.samplerate
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"it has {rate:,} samples a second; allowed are {RATES[0]:,} to {RATES[1]:,}")
        most = min(LONGEST, LONGEST * rate // sampling_rate)
        mono = _first_channel(file, most)
    if not len(mono):
        raise ValueError("it holds no sample")
    loudest = float(np.abs(mono).max())
    if not loudest <= LOUDEST:  # nor is what is no number
        raise ValueError(f"it holds a sample of {loudest:g}; full scale is 1")
    if rate == sampling_rate:
        return mono
    resampled: np.ndarray = soxr.resample(mono, rate, sampling_rate)
    if not len(resampled):  # a handful of samples at a high rate
        raise ValueError(f"it holds {len(mono)} samples at {rate:,} a second, none at {sampling_rate:,}")
    return resampled


def _first_channel(file: soundfile.SoundFile, most: int) -> np.ndarray:
    """[frames]; what the file says of its length may be wrong either way."""
    blocks, count = [], 0
    while True:
        block = file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)
        count += len(block)
        if count > most:
            raise ValueError(f"it has more than {most:,} samples at {file.samplerate:,} a second, which are allowed")
        blocks.append(np.ascontiguousarray(block[:, 0]))
        if not len(block):
            return np.concatenate(blocks)
