"""Gravis patches: what is read of their bytes, what a played note sounds like, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from data._gus_patches import Recording, patch_file, sine, tone
from equipoise.data.readers.gus_patch import PatchSample, play, read_patch


def loudest_frequency(sound: np.ndarray, rate: int = 16_000) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(sound)))) * rate / len(sound)


def one(recording: Recording) -> PatchSample:
    [sample] = read_patch(patch_file([recording]))
    return sample


def test_each_sample_has_its_notes_rate_and_loop():
    first = Recording(b"\0\0\1\0\2\0\3\0", root=220_500, low=100_000, high=300_250, rate=8_000, loop=(2, 6), modes=5)
    second = Recording(b"\0\0\1\0", rate=44_100)
    found = read_patch(patch_file([first, second]))
    assert [(s.rate, s.lowest, s.highest, s.root, s.loop, s.alternating) for s in found] == [
        (8_000, 100.0, 300.25, 220.5, (1, 3), False),
        (44_100, 0.001, 20_000.0, 440.0, None, False),
    ]
    assert one(first._replace(modes=13)).alternating


@pytest.mark.parametrize(
    ("pcm", "modes", "wave"),
    [
        (b"\x00\x80\x00\x00\x00\x40", 1, [-1, 0, 0.5]),
        (b"\x00\x00\x00\x80\x00\xc0", 3, [-1, 0, 0.5]),
        (b"\x80\x00\x40", 0, [-1, 0, 0.5]),
        (b"\x00\x80\xc0", 2, [-1, 0, 0.5]),
    ],
    ids=["16 bits", "16 bits unsigned", "8 bits", "8 bits unsigned"],
)
def test_the_wave_is_decoded_with_full_scale_at_one(pcm, modes, wave):
    sample = one(Recording(pcm, modes=modes))
    assert sample.wave.dtype == np.float32
    assert sample.wave.tolist() == wave


def test_a_looped_note_is_held_as_long_as_asked_and_faded_out():
    sound = play(one(tone(440)), 440, 1.5, 16_000)
    assert (sound.dtype, len(sound)) == (np.float32, 24_000)
    assert np.abs(sound).max() == pytest.approx(0.5)
    assert np.abs(sound[20_000:22_000]).max() == pytest.approx(0.5, abs=0.01)
    assert abs(sound[-1]) < 1e-3
    assert loudest_frequency(sound) == pytest.approx(440, abs=1)


def test_another_note_is_the_same_wave_faster_or_slower():
    sample = one(tone(440))
    assert loudest_frequency(play(sample, 880, 1.5, 16_000)) == pytest.approx(880, abs=1)
    assert loudest_frequency(play(sample, 220, 1.5, 16_000)) == pytest.approx(220, abs=1)
    assert len(play(one(Recording(sine(440))), 220, 1.5, 16_000)) == pytest.approx(6_400, abs=2)


def test_a_sound_without_a_loop_ends_where_it_does():
    sound = play(one(Recording(sine(440, 0.2))), 440, 1.5, 16_000)
    assert len(sound) == 3_200
    assert len(play(one(Recording(sine(440, 0.2))), 440, 0.1, 16_000)) == 1_600


@pytest.mark.parametrize(("modes", "wave"), [(5, [1, 2, 3, 4, 3, 4, 3, 4]), (13, [1, 2, 3, 4, 4, 3, 3, 4])])
def test_what_is_repeated_is_the_loop_forwards_or_by_turns(modes, wave):
    pcm = np.array([1, 2, 3, 4, 9, 9], dtype="<i2") * 4_000
    sample = one(Recording(pcm.tobytes(), loop=(4, 8), modes=modes))
    sound = play(sample, 440, 8 / 16_000, 16_000)
    assert sound == pytest.approx(np.array(wave) / 8 * np.linspace(1, 0, 8), abs=1e-6)


WHOLE = patch_file([tone(440)])
REFUSED = {
    "anything": (b"RIFF", "it is no patch in format GF1PATCH110"),
    "header": (WHOLE[:200], "it is cut short: 200 bytes, of which the header takes 239"),
    "no sample": (patch_file([]), "it has no sample"),
    "sample's header": (WHOLE[:300], "it is cut short: sample 1 of 1 is not there"),
    "sample": (WHOLE[:-1], "it is cut short: sample 1 says 6,400 bytes, of which 6,399 are there"),
    "another sample": (patch_file([tone(440)], count=2), "it is cut short: sample 2 of 2 is not there"),
    "instruments": (patch_file([tone(440)], instruments=2), "it has 2 instruments; expected 1"),
    "layers": (patch_file([tone(440)], layers=3), "it has 3 layers; expected 1"),
    "half a value": (patch_file([Recording(b"abc")]), "sample 1: it has 3 bytes of 16 bits"),
    "empty": (patch_file([Recording(b"")]), "sample 1: it has 0 bytes of 16 bits"),
    "rate": (patch_file([tone(440, rate=0)]), "sample 1: it has 0 samples a second; allowed are 1,000 to 1,000,000"),
    "root": (patch_file([tone(440, root=0)]), "sample 1: its note is of 0.0 Hz; allowed are 1 to 20,000"),
    "backwards": (patch_file([tone(440, modes=21)]), "sample 1: it is played backwards, which is not supported"),
    "loop's end": (patch_file([tone(440, loop=(0, 6_402))]), "sample 1: its loop is from byte 0 to 6,402 of 6,400"),
    "no loop": (patch_file([tone(440, loop=(8, 9))]), "sample 1: its loop is from byte 8 to 9 of 6,400"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_patch_is_refused(content, reason):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_patch(content)
    assert str(caught.value) == reason


def test_notes_that_cannot_be_played_are_refused():
    with pytest.raises(ValueError, match=r"^a note of 20,000.0 Hz needs 3,200,000 samples a second$"):
        play(one(tone(100)), 20_000, 1.5, 16_000)
    with pytest.raises(ValueError, match=r"^a note of 440.0 Hz is silent$"):
        play(one(Recording(bytes(100))), 440, 1.5, 16_000)
