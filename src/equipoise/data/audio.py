"""Audio files as mono arrays at the rate a model's processor wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr


def load_audio(path: Path, sampling_rate: int = 16_000) -> np.ndarray:
    """Read a WAV, FLAC, Ogg or MP3 file.

    Of several channels the first is taken, as SALMONN's release does.

    Args:
        path: what libsndfile can read.
        sampling_rate: in Hz; other rates are resampled to it.

    Returns:
        float32 [samples], full scale at 1.

    Raises:
        OSError, soundfile.LibsndfileError: a file that is missing or no audio. ValueError: a file without a sample.
    """
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        channels = file.read(dtype="float32", always_2d=True)
    if not len(channels):
        raise ValueError("it holds no sample")
    mono = np.ascontiguousarray(channels[:, 0])
    return mono if rate == sampling_rate else soxr.resample(mono, rate, sampling_rate)
