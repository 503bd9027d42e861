"""Audio files as arrays: channel, rate, formats, and what is no audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from equipoise.data.audio import load_audio

RATE = 16_000


def tone(frequency: float, seconds: float = 1.0, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def loudest(wave: np.ndarray, rate: int = RATE) -> float:
    """The frequency, in Hz, of most energy."""
    return float(np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave))


def middle(wave: np.ndarray) -> np.ndarray:
    """Without the edges, where a resampling filter rings."""
    return wave[len(wave) // 8 : -len(wave) // 8]


def rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(middle(wave) ** 2)))


def test_a_clip_at_the_wanted_rate_is_read_as_it_is(tmp_path: Path) -> None:
    wave = tone(440).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    read = load_audio(tmp_path / "a.wav", RATE)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    assert np.array_equal(read, wave)


def test_full_scale_is_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0, 2**14, -(2**15)], dtype=np.int16), RATE)
    assert load_audio(tmp_path / "a.wav").tolist() == [0.0, 0.5, -1.0]


def test_of_two_channels_the_first_is_taken(tmp_path: Path) -> None:
    left, right = tone(300).astype(np.float32), tone(900).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    read = load_audio(tmp_path / "a.wav")
    assert read.flags.c_contiguous
    assert np.array_equal(read, left)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1_000, 1.5, rate), rate)
    read = load_audio(tmp_path / "a.wav", RATE)
    assert read.dtype == np.float32
    assert len(read) == pytest.approx(1.5 * RATE, abs=2)
    assert loudest(read) == pytest.approx(1_000, abs=2)
    assert rms(read) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_the_wanted_rate_may_be_another(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1_000), RATE)
    read = load_audio(tmp_path / "a.wav", 8_000)
    assert len(read) == 8_000
    assert loudest(read, 8_000) == pytest.approx(1_000, abs=2)


def test_what_the_lower_rate_cannot_hold_is_filtered_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(11_000, rate=44_100), 44_100)  # would fold to 5 kHz
    assert rms(load_audio(tmp_path / "a.wav", RATE)) < 0.001


def test_stereo_at_another_rate(tmp_path: Path) -> None:
    channels = np.stack([tone(500, rate=8_000), tone(1_500, rate=8_000)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 8_000)
    read = load_audio(tmp_path / "a.wav", RATE)
    assert read.shape == (RATE,)
    assert loudest(read) == pytest.approx(500, abs=2)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4), ("a.wav", "PCM_24", 1e-6), ("a.wav", "PCM_U8", 1e-2), ("a.wav", "DOUBLE", 1e-7),
        ("a.wav", "ULAW", 3e-2), ("a.flac", "PCM_16", 1e-4), ("a.ogg", "VORBIS", 5e-2), ("a.mp3", None, 5e-2),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, name: str, subtype: str | None, tolerance: float) -> None:
    wave = tone(440, 0.5)
    soundfile.write(tmp_path / name, wave, RATE, subtype=subtype)
    read = load_audio(tmp_path / name)
    assert len(read) == pytest.approx(len(wave), abs=2_500 if name.endswith("mp3") else 0)
    assert loudest(middle(read)) == pytest.approx(440, abs=3)
    if not name.endswith("mp3"):  # whose coder shifts it
        assert np.abs(middle(read) - middle(wave)).max() < tolerance


def test_a_file_without_a_sample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    with pytest.raises(ValueError, match="it holds no sample"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"not audio", b"RIFF\x24\x00\x00\x00WAVEfmt "])
def test_what_is_no_audio(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(soundfile.SoundFileError):
        load_audio(tmp_path / "a.wav")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((OSError, soundfile.SoundFileError)):
        load_audio(tmp_path / "a.wav")
