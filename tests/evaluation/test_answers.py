"""Results kept on disk, batch by batch: which of them count, and what they depend on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import PartialState

from equipoise.data.sample import Sample, Turn, exchange
from equipoise.evaluation.answers import Unfinished, fingerprint, in_batches

SAMPLES = [Sample(str(number), "t", exchange(f"question {number}", "answer")) for number in range(5)]


class Work:
    """Answers each sample with its id and notes the batches."""

    def __init__(self, fails_at: int = 99) -> None:
        self.batches: list[list[str]] = []
        self.fails_at = fails_at

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        if len(self.batches) == self.fails_at:
            raise KeyboardInterrupt
        self.batches.append([sample.id for sample in samples])
        return [f"“{sample.id}”" for sample in samples]


def answers(folder: Path, work: Work, digest: str = "digest", advance: Callable[[int], None] = lambda _: None) -> list:
    return in_batches(work, SAMPLES, 2, Unfinished(folder, "t", digest), PartialState(), advance)


ALL = [["“0”", "“1”"], ["“2”", "“3”"], ["“4”"]]


def test_all_batches_in_order(tmp_path):
    finished: list[int] = []
    work = Work()
    assert answers(tmp_path, work, advance=finished.append) == ALL
    assert work.batches == [["0", "1"], ["2", "3"], ["4"]]
    assert finished == [0, 2, 2, 1]


def test_what_is_done_is_not_done_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        answers(tmp_path, Work(fails_at=2))
    finished: list[int] = []
    work = Work()
    assert answers(tmp_path, work, advance=finished.append) == ALL
    assert work.batches == [["4"]]
    assert finished == [4, 1]
    work = Work()
    assert answers(tmp_path, work) == ALL
    assert work.batches == []


def test_another_digest_s_results_are_not_taken_and_not_kept(tmp_path):
    answers(tmp_path, Work())
    work = Work()
    answers(tmp_path, work, digest="other")
    assert len(work.batches) == 3
    assert Unfinished(tmp_path, "t", "digest").read() == {}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_was_cut_short_is_done_again(tmp_path, cut):
    """Wherever it was cut: in the brackets, in a text, in one of the three bytes of a quotation mark."""
    answers(tmp_path, Work())
    file = tmp_path / "t.0.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    work = Work()
    assert answers(tmp_path, work) == ALL
    assert work.batches == ([["4"]] if cut > 1 else [])  # the line break alone is no loss
    assert Unfinished(tmp_path, "t", "digest").read() == dict(enumerate(ALL))


def test_other_processes_results_count(tmp_path):
    for process, number in enumerate((0, 2)):
        unfinished = Unfinished(tmp_path, "t", "digest", process)
        unfinished.begin()
        unfinished.append(number, ALL[number])
    work = Work()
    assert answers(tmp_path, work) == ALL
    assert work.batches == [["2", "3"]]


def test_other_names_results_do_not(tmp_path):
    for name in ("t+shuffled", "t.more", "other"):
        unfinished = Unfinished(tmp_path, name, "digest")
        unfinished.begin()
        unfinished.append(0, ["wrong", "wrong"])
    work = Work()
    assert answers(tmp_path, work, digest="mine") == ALL
    assert len(work.batches) == 3


# ------------------------------------------------------------------ what results depend on


def test_the_fingerprint_tells_samples_and_settings_apart(tmp_path):
    image, copy = tmp_path / "a.png", tmp_path / "b.png"
    for file in (image, copy):
        file.write_bytes(b"picture")
        os.utime(file, ns=(1, 1))
    turns = (Turn("user", "first"), Turn("assistant", "yes"), Turn("user", "second"), Turn("assistant", "no"))
    sample = Sample("1", "t", turns, (image,))
    others = [
        replace(sample, id="2"),
        replace(sample, turns=(Turn("user", "before"), *turns[1:])),
        replace(sample, turns=(*turns[:2], Turn("user", "other"), turns[3])),
        replace(sample, turns=(Turn("system", "first"), *turns[1:])),
        replace(sample, images=(copy,)),
        replace(sample, images=(image, image)),
        replace(sample, images=(tmp_path / "gone.png",)),
    ]
    found = [fingerprint({"tokens": 4}, [one]) for one in (sample, *others)]
    found += [fingerprint({"tokens": 5}, [sample]), fingerprint({"tokens": 4}, [sample, sample])]
    found += [fingerprint({"tokens": 4}, [sample, others[0]]), fingerprint({"tokens": 4}, [others[0], sample])]
    assert len(set(found)) == len(found)
    assert fingerprint({"tokens": 4}, [replace(sample)]) == found[0]


@pytest.mark.parametrize("change", [lambda file: os.utime(file, ns=(2, 2)), lambda file: file.write_bytes(b"pictures")])
def test_the_fingerprint_changes_with_a_file(tmp_path, change):
    clip = tmp_path / "a.wav"
    clip.write_bytes(b"picture")
    os.utime(clip, ns=(1, 1))
    sample = Sample("1", "t", exchange("q", "a"), audios=(clip,))
    before = fingerprint([], [sample])
    change(clip)
    assert fingerprint([], [sample]) != before
