"""What SALMONN hears of a clip: Whisper's log-mel spectrogram, and Kaldi's filter banks for BEATs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from transformers import BatchFeature, WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank, window_function

# Kaldi's defaults at 16 kHz: frames of 25 ms every 10 ms; BEATs reads 128 bins.
FRAME, HOP, FFT, BINS = 400, 160, 512, 128
PREEMPHASIS = 0.97
# Mean and spread of AudioSet's filter banks, by which BEATs normalises.
MEAN, STD = 15.41663, 6.55582
SAMPLES_PER_POSITION = 320  # of Whisper's encoder
_WINDOW = window_function(FRAME, "povey", periodic=False)
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "At least one mel filter")  # the lowest bins are narrower than the FFT's
    _MEL = mel_filter_bank(
        num_frequency_bins=FFT // 2 + 1,
        num_mel_filters=BINS,
        min_frequency=20.0,
        max_frequency=8000.0,
        sampling_rate=16_000,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )


def num_frames(samples: np.ndarray) -> np.ndarray:
    """Whole frames in clips of so many samples; what is left at a clip's end is dropped."""
    return 1 + (samples - FRAME) // HOP


def fbank(waveform: np.ndarray) -> np.ndarray:
    """Log-mel filter banks as Kaldi computes them (no dither, DC removed), normalised as BEATs reads them.

    Args:
        waveform: [samples] at 16 kHz, full scale at 1, one frame (400 samples) at least.

    Returns:
        float32 [frames, 128].
    """
    frames = sliding_window_view(waveform.astype(np.float64) * 2**15, FRAME)[::HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - PREEMPHASIS * previous) * _WINDOW, n=FFT)
    energies = (spectrum.real**2 + spectrum.imag**2) @ _MEL
    logarithms = np.log(np.maximum(energies, np.finfo(np.float32).eps))
    return ((logarithms - MEAN) / (2 * STD)).astype(np.float32)


class SalmonnFeatureExtractor(WhisperFeatureExtractor):
    """Clips to `input_features`, `fbank` and `fbank_mask`.

    Args:
        max_source_positions: of the Whisper encoder; clips are cut to the 20 ms a position that it spans.
        min_seconds: shorter clips are padded with silence to it, and that silence counts as theirs.
        with_fbank: False without BEATs.
        batch_invariant: as the model's. The release's mask, over shares of the longest clip's samples, where False.
        feature_size, sampling_rate, ...: of `WhisperFeatureExtractor`.
    """

    model_input_names = ["input_features", "fbank", "fbank_mask"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = 80,
        max_source_positions: int = 1500,
        min_seconds: float = 1.0,
        with_fbank: bool = True,
        batch_invariant: bool = True,
        **kwargs: object,
    ):
        super().__init__(feature_size=feature_size, **kwargs)
        self.max_source_positions = max_source_positions
        self.min_seconds = min_seconds
        self.with_fbank = with_fbank
        self.batch_invariant = batch_invariant

    def __call__(  # type: ignore[override]
        self,
        raw_speech: np.ndarray | Sequence[np.ndarray],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **_: object,
    ) -> BatchFeature:
        """Extract the features of one clip or several.

        Args:
            raw_speech: clips [samples] or [samples, channels], full scale at 1; of several channels the first counts.
            sampling_rate: of the clips; None promises that it is the extractor's.

        Returns:
            `input_features` [B, mel, 2 * positions], float32; with BEATs also `fbank` [B, F, 128], float32, and
            `fbank_mask` [B, F], bool, with F the frames of the longest clip.

        Raises:
            ValueError: another sampling rate, or a clip without a sample or of more than two dimensions.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"found clips at {sampling_rate} Hz; this extractor reads {self.sampling_rate} Hz")
        clips = [raw_speech] if isinstance(raw_speech, np.ndarray) else raw_speech
        clips = [self._fit(np.asarray(clip)) for clip in clips]
        mel = super().__call__(
            clips,
            sampling_rate=self.sampling_rate,
            max_length=self.max_source_positions * SAMPLES_PER_POSITION,
            return_tensors="np",
        )
        features = {"input_features": mel["input_features"]}
        if self.with_fbank:
            features["fbank"], features["fbank_mask"] = self._filter_banks(clips)
        return BatchFeature(features, tensor_type=return_tensors)

    def _fit(self, clip: np.ndarray) -> np.ndarray:
        """The first channel, padded to the shortest clip allowed and cut to the longest."""
        if clip.ndim not in (1, 2) or not clip.size:
            raise ValueError(f"found a clip of shape {clip.shape}; allowed are [samples] and [samples, channels]")
        mono = clip if clip.ndim == 1 else clip[:, 0]
        shortest = int(self.min_seconds * self.sampling_rate)
        mono = np.pad(mono, (0, max(shortest - len(mono), 0)))
        return mono[: self.max_source_positions * SAMPLES_PER_POSITION]

    def _filter_banks(self, clips: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Filter banks of the clips padded with zeros to the longest, and the mask of each clip's own frames."""
        longest = max(len(clip) for clip in clips)
        lengths = np.array([len(clip) for clip in clips])
        banks = np.stack([fbank(np.pad(clip, (0, longest - len(clip)))) for clip in clips])
        frames = np.arange(banks.shape[1])
        if self.batch_invariant:
            return banks, frames < num_frames(lengths)[:, None]
        share = longest // len(frames)
        return banks, frames * share < lengths[:, None]
