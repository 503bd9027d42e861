"""The feature extractor: cutting, padding, channels, masks, and Kaldi's filter banks by a direct computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from _tiny_salmonn import clip, extractor
from transformers import WhisperFeatureExtractor

from equipoise.models.salmonn.features import SalmonnFeatureExtractor, fbank


def kaldi_frame(samples: np.ndarray) -> np.ndarray:
    """One frame of filter banks, written from Kaldi's description with plain loops."""
    frame = samples.astype(np.float64) * 32768
    frame = frame - frame.mean()
    emphasised = [frame[0] - 0.97 * frame[0]] + [frame[i] - 0.97 * frame[i - 1] for i in range(1, 400)]
    povey = [(0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85 for i in range(400)]
    power = np.abs(np.fft.rfft(np.array(emphasised) * povey, 512)) ** 2

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    low, step = mel(20), (mel(8000) - mel(20)) / 129
    energies = []
    for index in range(128):
        left, centre, right = (low + (index + k) * step for k in range(3))
        weights = [
            max(
                0.0,
                min((mel(16000 / 512 * b) - left) / (centre - left), (right - mel(16000 / 512 * b)) / (right - centre)),
            )
            for b in range(256)
        ]
        energies.append(float(np.dot(weights, power[:256])))
    return (np.log(np.maximum(energies, 2**-23)) - 15.41663) / (2 * 6.55582)


def test_filter_banks_are_kaldis() -> None:
    wave = clip(0.2)
    banks = fbank(wave)
    assert banks.shape == (1 + (3200 - 400) // 160, 128)
    assert banks.dtype == np.float32
    for index in (0, 7, 17):
        np.testing.assert_allclose(banks[index], kaldi_frame(wave[160 * index : 160 * index + 400]), atol=1e-5)


def test_silence_meets_the_floor() -> None:
    floor = (math.log(2**-23) - 15.41663) / (2 * 6.55582)
    np.testing.assert_allclose(fbank(np.zeros(400)), floor, rtol=1e-6)


def test_mel_is_whispers_on_the_same_samples() -> None:
    features = SalmonnFeatureExtractor()([clip(3)], return_tensors="np")
    expected = WhisperFeatureExtractor()([clip(3)], sampling_rate=16_000, return_tensors="np")["input_features"]
    assert features["input_features"].shape == (1, 80, 3000)
    np.testing.assert_array_equal(features["input_features"], expected)


def test_short_clips_count_as_one_second() -> None:
    short = clip(0.2)
    features = extractor()([short], return_tensors="np")
    padded = extractor()([np.pad(short, (0, 12_800))], return_tensors="np")
    assert features["fbank_mask"].sum() == features["fbank"].shape[1] == 98
    for name, value in features.items():
        np.testing.assert_array_equal(value, padded[name])


def test_long_clips_are_cut_to_whispers_span() -> None:
    long = clip(2.7)
    features, cut = (extractor()([wave], return_tensors="np") for wave in (long, long[:32_000]))
    assert features["input_features"].shape == (1, 80, 200)
    assert features["fbank"].shape == (1, 198, 128)
    for name, value in features.items():
        np.testing.assert_array_equal(value, cut[name])


def test_the_first_channel_counts() -> None:
    left, right = clip(1, seed=1), clip(1, seed=2)
    stereo = extractor()(np.stack([left, right], axis=1), return_tensors="np")
    for name, value in extractor()(left, return_tensors="np").items():
        np.testing.assert_array_equal(stereo[name], value)


def test_masks_of_a_batch() -> None:
    clips = [clip(seconds) for seconds in (1.0, 1.23, 2.0)]
    own = extractor()(clips, return_tensors="np")["fbank_mask"]
    assert own.sum(axis=1).tolist() == [98, 1 + (19_680 - 400) // 160, 198]
    # The release: 32,000 samples in 198 shares of 161; a share is padding if it begins after the clip's last sample.
    release = extractor(batch_invariant=False)(clips, return_tensors="np")["fbank_mask"]
    assert release.sum(axis=1).tolist() == [math.ceil(16_000 / 161), math.ceil(19_680 / 161), 198]


def test_without_beats_there_are_no_filter_banks() -> None:
    assert set(extractor(with_fbank=False)([clip(1)])) == {"input_features"}


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros((0, 2)), np.zeros((2, 3, 4))])
def test_clips_of_another_shape_are_refused(wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"found a clip of shape \("):
        extractor()([wave])


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="found clips at 8000 Hz; this extractor reads 16000 Hz"):
        extractor()([clip(1)], sampling_rate=8000)
