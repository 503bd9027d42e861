"""The index of samples: what goes in comes out, from a file that is made once and never wrong; memory stays flat."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from equipoise.data import store
from equipoise.data.readers.files import note
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, Turn, exchange
from equipoise.data.store import AUDIO, IMAGE, Samples, Store, index
from equipoise.errors import AssetError, DataError

HERE = Path(__file__)
Rows = Iterable[Sample | Flaw]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where indexes are kept."""
    monkeypatch.setenv("EQUIPOISE_INDEX", str(tmp_path / "index"))
    return tmp_path / "index"


def kept(rows: Rows, key: Any = "key", notify: Callable[[int], None] = lambda _: None) -> Store:
    """The index of these rows."""
    return index(key, lambda: rows, lambda flaw: None, notify)


def sample(number: int, text: str = "", **fields: Any) -> Sample:
    return Sample(str(number), "own", exchange(f"question {number}{text}", f"answer {number}"), **fields)


def ids(samples: Iterable[Sample]) -> list[str]:
    return [one.id for one in samples]


class Source:
    """A file whose lines are samples, and how often it was read."""

    def __init__(self, path: Path, *lines: str):
        self.path = path
        self.reads = 0
        path.write_text("\n".join(lines))

    def __call__(self) -> Iterator[Sample | Flaw]:
        self.reads += 1
        for number, line in enumerate(note(self.path).read_text().split("\n")):
            image = self.path.with_name(line)
            yield sample(number, line) if image.exists() else Flaw(str(number), str(image), "image does not exist")

    def index(self, key: Any = "key", **options: Any) -> Store:
        return index(key, self, lambda flaw: None, lambda count: None, **options)


# ---------------------------------------------------------------------- what goes in comes out


def test_every_field_comes_back():
    whole = Sample(
        "ä 1", "own", (Turn("system", "s"), Turn("user", "日本\n😀"), Turn("assistant", "")),
        images=(Path("/a/b.png"), Path("/c d.png")), references=("one", "two"), audios=(Path("/e.wav"),),
        box=(0.0, 0.25, 1 / 3, 1.0),
    )  # fmt: skip
    bare = Sample("2", "own", exchange("q", "a"))
    samples = Samples(kept([whole, bare]), "own")
    assert list(samples) == [whole, bare]
    assert [type(value) for value in (samples[0].images[0], samples[0].turns[0], samples[0].box)] == [
        type(whole.images[0]), Turn, tuple,
    ]  # fmt: skip


def test_more_samples_than_a_batch_holds_come_back_in_order():
    count = 2 * store.BATCH + 3
    samples = Samples(kept(sample(number) for number in range(count)), "own")
    assert len(samples) == count
    assert samples[:] == [sample(number) for number in range(count)]


def test_samples_are_counted_from_either_end():
    samples = Samples(kept(sample(number) for number in range(5)), "own")
    assert samples[-1] == samples[np.int64(4)] == sample(4)
    assert samples[-5] == sample(0)
    assert samples[1:4:2] == [sample(1), sample(3)]
    for outside in (5, -6):
        with pytest.raises(IndexError):
            samples[outside]


def test_no_samples_are_an_empty_sequence():
    samples = Samples(kept([]), "own")
    assert (len(samples), list(samples), samples.lengths.tolist(), samples.modalities.tolist()) == (0, [], [], [])
    assert len(samples.select([])) == 0


def test_columns_tell_of_samples_without_decoding_them():
    image, audio = (Path("/a.png"),), (Path("/a.wav"),)
    rows = [sample(0, "xyz"), sample(1, images=image), sample(2, audios=audio), sample(3, images=image, audios=audio)]
    samples = Samples(kept(rows), "own")
    assert samples.lengths.tolist() == [
        len("question 0xyz") + len("answer 0"),
        *[len("question 0") + len("answer 0")] * 3,
    ]
    assert samples.modalities.tolist() == [0, IMAGE, AUDIO, IMAGE | AUDIO]


def test_media_are_equal_where_samples_may_share_a_conversation():
    one, two = Path("/1.png"), Path("/2.png")
    system = Sample("s", "own", (Turn("system", "Be brief."), *exchange("q", "a")), images=(one,))
    rows = [
        sample(0, images=(one,)), sample(1, images=(one,)), sample(2), sample(3), sample(4, images=(two,)),
        sample(5, images=(one, two)), sample(6, images=(two, one)), sample(7, audios=(one,)), system,
    ]  # fmt: skip
    keys = kept(rows).media.tolist()
    assert keys[0] == keys[1] != 0
    assert keys[2] == keys[3] == 0
    assert len({keys[0], *keys[2:]}) == len(keys) - 2


def test_flaws_are_kept_and_are_no_samples():
    flaw = Flaw("line 2\x1b", "/ä\ud800.png", "image\ndoes not exist")
    seen: list[Flaw] = []
    made = index("key", lambda: [sample(0), flaw, sample(2)], seen.append, lambda _: None)
    assert ids(Samples(made, "own")) == ["0", "2"]
    assert made.flaws == seen == [flaw]
    assert kept([]).flaws == [flaw], "from the file as well"


def test_a_long_reading_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(store, "NOTIFY_EVERY", 2)
    counts: list[int] = []
    kept([sample(0), Flaw("1", "/a", "bad"), *map(sample, range(2, 6))], notify=counts.append)
    assert counts == [2, 4]


# ---------------------------------------------------------------------- some of them, merged, worded


def test_some_samples_in_another_order():
    samples = Samples(kept([sample(n, "x" * n) for n in range(6)]), "own").select([4, 1, 1])
    assert ids(samples) == ["4", "1", "1"]
    assert ids(samples.select(np.array([2, 0]))) == ["1", "4"]
    assert samples.lengths.tolist() == [22, 19, 19]


def test_a_response_format_goes_below_every_question():
    turns = (Turn("system", "s"), *exchange("one", "1"), *exchange("two", "2"))
    samples = Samples(kept([Sample("0", "own", turns)]), "own", response_format="Be brief.")
    said = [(turn.role, turn.text) for turn in samples.select([0])[0].turns]
    assert said == [
        ("system", "s"), ("user", "one\nBe brief."), ("assistant", "1"), ("user", "two\nBe brief."), ("assistant", "2"),
    ]  # fmt: skip


def about(image: str, number: int, **fields: Any) -> Sample:
    return sample(number, "x" * number, images=(Path(image),), references=(f"answer {number}",), **fields)


def test_conversations_about_one_image_are_merged():
    rows = [about("/a.png", 0), about("/b.png", 1), sample(2), about("/a.png", 3), about("/a.png", 4), sample(5)]
    samples = Samples(kept(rows), "own", response_format="F").merged("seed")
    assert len(samples) == 4
    first, *others = samples
    assert others == Samples(kept([]), "own", response_format="F").select([1, 2, 5])[:]
    assert first.images == (Path("/a.png"),)
    texts = [turn.text for turn in first.turns]
    asked = {f"question {n}{'x' * n}\nF": f"answer {n}" for n in (0, 3, 4)}
    assert dict(zip(texts[::2], texts[1::2])) == asked
    assert [turn.role for turn in first.turns] == ["user", "assistant"] * 3
    assert first.references == (texts[-1],)
    assert first.id == texts[1].removeprefix("answer ") + "+2"
    assert samples.lengths.tolist() == [sum(len(f"question {n}answer {n}") + n for n in (0, 3, 4)), 19, 18, 18 + 5 - 5]
    assert samples.modalities.tolist() == [IMAGE, IMAGE, 0, 0]


def test_of_merged_conversations_some_can_be_taken():
    rows = [about(f"/{number // 3}.png", number) for number in range(12)]
    merged = Samples(kept(rows), "own").merged("seed")
    chosen = merged.select([3, 0])
    assert chosen[:] == [merged[3], merged[0]]
    assert chosen.lengths.tolist() == merged.lengths[[3, 0]].tolist()
    assert chosen.select([1])[0] == merged[0]
    assert len(merged.select([])) == 0


def test_a_merged_conversation_has_its_system_turn_once_and_no_other():
    def told(system: str, number: int) -> Sample:
        turns = (Turn("system", system), *exchange(f"q{number}", "a"))
        return Sample(str(number), "own", turns, images=(Path("/a.png"),))

    merged = Samples(kept([told("Be brief.", 0), told("Be long.", 1), told("Be brief.", 2)]), "own").merged("seed")
    turns = [[turn.text for turn in one.turns] for one in merged]
    assert sorted(turns[0][1::2]) == ["q0", "q2"]
    assert turns[0][0] == "Be brief."
    assert [turn.role for turn in merged[0].turns] == ["system", "user", "assistant", "user", "assistant"]
    assert turns[1:] == [["Be long.", "q1", "a"]]


# ---------------------------------------------------------------------- made once


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    return Source(tmp_path / "lines.txt", "a.png", "b.png")


def test_what_has_not_changed_is_not_read_again(source):
    first, second = source.index(), source.index()
    assert source.reads == 1
    assert first.folder == second.folder
    assert ids(Samples(second, "own")) == ["0", "1"]


def test_two_tasks_share_the_index_of_the_same_data(source):
    assert Samples(source.index(), "one")[0].task == "one"
    assert Samples(source.index(), "two")[0].task == "two"
    assert source.reads == 1


@pytest.mark.parametrize("key", [["jsonl", {"image_folder": "a"}], ["jsonl", {"image_folder": "b"}], ["llava", {}]])
def test_another_key_is_another_index(source, root, key):
    source.index()
    source.index(key)
    source.index(key)
    assert source.reads == 2
    assert len(list(root.iterdir())) == 2


def test_the_order_of_options_is_no_difference(source):
    source.index({"a": 1, "b": 2})
    source.index({"b": 2, "a": 1})
    assert source.reads == 1


@pytest.mark.parametrize("how", ["longer", "newer", "gone and back"])
def test_a_file_that_changed_is_read_again(source, root, how):
    source.index()
    stat = source.path.stat()
    if how == "longer":
        source.path.write_text("a.png\nb.png\na.png")
        os.utime(source.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif how == "newer":
        os.utime(source.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    else:
        source.path.rename(source.path.with_suffix(".old"))
        source.path.write_text("a.png")
    changed = source.index()
    assert source.reads == 2
    assert ids(Samples(changed, "own")) == [str(n) for n in range(source.path.read_text().count("png"))]
    assert list(root.iterdir()) == [changed.folder], "the old one is swept away"


def test_a_flawed_image_that_is_mended_is_looked_at_again(source, tmp_path):
    source.path.write_text("a.png\nnone.png")
    assert len(source.index().flaws) == 1
    assert len(source.index().flaws) == 1
    assert source.reads == 1
    (tmp_path / "none.png").touch()
    mended = source.index()
    assert (mended.flaws, len(mended), source.reads) == ([], 2, 2)


def test_an_image_that_was_once_good_is_looked_at_again_when_asked(source, tmp_path, root):
    source.index()
    (tmp_path / "b.png").unlink()
    assert source.index().flaws == []
    flaws = source.index(fresh=True).flaws
    assert [flaw.path for flaw in flaws] == [str(tmp_path / "b.png")]
    assert source.index().flaws == flaws, "from now on"
    assert source.reads == 2
    assert len(list(root.iterdir())) == 1
    source.index(fresh=True)
    assert source.reads == 3


def test_other_code_makes_the_index_anew(source, root, monkeypatch):
    source.index()
    monkeypatch.setattr(store, "_code", lambda: "another")
    source.index()
    source.index()
    assert source.reads == 2
    assert len(list(root.iterdir())) == 1


def test_a_file_that_changes_while_it_is_read_is_not_trusted(source):
    def read() -> Iterator[Sample | Flaw]:
        yield from source()
        source.path.write_text("a.png\nb.png\na.png")

    made = index("key", read, lambda flaw: None, lambda count: None)
    assert len(made) == 2
    assert len(source.index()) == 3


@pytest.mark.parametrize("file", ["samples.arrow", "lengths.npy", "media.npy", "sources.json"])
@pytest.mark.parametrize("harm", ["gone", "empty", "short"])
def test_a_torn_index_is_made_anew(source, file, harm):
    torn = source.index().folder / file
    content = torn.read_bytes()
    torn.unlink()
    if harm != "gone":
        torn.write_bytes(content[: len(content) // 2 if harm == "short" else 0])
    assert ids(Samples(source.index(), "own")) == ["0", "1"]
    assert source.reads == 2


def test_who_reads_an_index_goes_on_with_it_when_it_is_replaced(source):
    old = Samples(source.index(), "own")
    source.path.write_text("b.png")
    new = Samples(source.index(), "own")
    assert not old.store.folder.exists()
    assert [one.prompt for one in old] == ["question 0a.png", "question 1b.png"]
    assert [one.prompt for one in new] == ["question 0b.png"]


# ---------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("error", [DataError("broken"), RuntimeError("a mistake of ours"), KeyboardInterrupt()])
def test_what_breaks_while_it_is_made_leaves_nothing(root, error):
    def read() -> Iterator[Sample]:
        yield from map(sample, range(store.BATCH + 1))
        raise error

    with pytest.raises(type(error)):
        index("key", read, lambda flaw: None, lambda count: None)
    assert list(root.iterdir()) == []


def test_a_flaw_that_is_not_allowed_ends_it(root):
    def refuse(flaw: Flaw) -> None:
        raise DataError(flaw.line("own"))

    with pytest.raises(DataError, match=r"^task own: sample 1: /a\.png: bad$"):
        index("key", lambda: [sample(0), Flaw("1", "/a.png", "bad")], refuse, lambda count: None)
    assert list(root.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EQUIPOISE_INDEX", str(tmp_path / "file/index"))
    with pytest.raises(
        AssetError, match=r"file/index: the samples' index cannot be written \(.*\); set EQUIPOISE_INDEX$"
    ):
        kept([sample(0)])


def test_indexes_are_kept_in_the_cache_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("EQUIPOISE_INDEX")
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    assert kept([sample(0)]).folder.parent == tmp_path / "cache/index"


KILLED = """
import os, signal, sys
sys.argv[0] = "equipoise"  # without transformers, as the command line
from pathlib import Path
from equipoise.data.sample import Sample, exchange
from equipoise.data.store import index

def read():
    for number in range(5_000):
        if number == 2_500:
            os.kill(os.getpid(), signal.SIGKILL)
        yield Sample(str(number), "own", exchange("q", "a"))

index("key", read, lambda flaw: None, lambda count: None)
"""


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_an_index(root):
    killed = subprocess.run([sys.executable, "-c", KILLED], env=dict(os.environ), timeout=120)
    assert killed.returncode == -signal.SIGKILL
    [left] = root.iterdir()
    assert left.name.startswith(".")
    assert len(kept(map(sample, range(3)))) == 3
    assert left.is_dir(), "another process might be at work there"
    os.utime(left, (time.time() - 90_000,) * 2)
    kept([], key="another")
    assert not left.exists(), "but not for a day"


def _index_at_once(barrier: Any, results: Any) -> None:
    def read() -> Iterator[Sample]:
        barrier.wait(timeout=60)  # both have found no index
        yield from map(sample, range(3_000))

    made = kept(read())
    results.put((str(made.folder), len(Samples(made, "own")[:])))


def test_two_processes_at_once_both_succeed(root):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_index_at_once, args=(barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    [folder] = root.iterdir()
    assert found == [(str(folder), 3_000)] * 2


# ---------------------------------------------------------------------- in other processes


def test_samples_travel_to_other_processes_without_their_contents():
    samples = Samples(kept(sample(number, "x" * 1_000) for number in range(100)), "own", response_format="F")
    samples = samples.select([5, 3]).merged("seed")
    sent = pickle.dumps(samples)
    assert len(sent) < 2_000
    assert pickle.loads(sent)[:] == samples[:]


@pytest.mark.parametrize("opened", [False, True])
def test_workers_of_a_data_loader_read_what_this_process_reads(opened):
    samples = Samples(kept(map(sample, range(2_500))), "own")
    expected = [samples[n] for n in range(2_500)] if opened else [sample(n) for n in range(2_500)]
    loader = DataLoader(samples, batch_size=100, num_workers=2, collate_fn=list, multiprocessing_context="fork")
    assert [one for batch in loader for one in batch] == expected


# ---------------------------------------------------------------------- however many


FLAT = """
import re, sys
sys.argv[0] = "equipoise"  # without transformers, as the command line
from pathlib import Path
import numpy as np
from equipoise.data.mixture import Mixture, MixtureSampler
from equipoise.data.tasks import read_task
from equipoise.recipe import Data, Task

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def used(reader, name):
    task = Task.model_validate({"name": "own", "reader": reader, "path": Path(sys.argv[1]) / name})
    mixture = Mixture({"own": read_task(task, "train", 0)})
    settings = Data(batches="every-modality", group_by_length=True)
    order = iter(MixtureSampler(mixture, settings, [1.0], 16, 1, 0))
    batch = [mixture[next(order)] for _ in range(16)]
    return len(mixture), peak()

for reader in ("jsonl", "llava"):
    (few, before), (many, after) = used(reader, "few"), used(reader, "many")
    assert (few, many) == (2_000, 20_000)
    print(after - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads its memory from /proc")
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    text = "a question of some length. " * 100
    for name, count in (("few", 2_000), ("many", 20_000)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "train.jsonl").open("w") as lines, (tmp_path / name / "train.json").open("w") as array:
            for number in range(count):
                lines.write(json.dumps({"prompt": f"{text}{number}?", "answer": "a"}) + "\n")
                turns = [{"from": "human", "value": f"{text}{number}?"}, {"from": "gpt", "value": "a"}]
                array.write(("," if number else "[") + json.dumps({"id": str(number), "conversations": turns}))
            array.write("]")
    size = (tmp_path / "many/train.jsonl").stat().st_size / 2**20
    assert size > 50
    ended = subprocess.run(
        [sys.executable, "-c", FLAT, tmp_path], env=dict(os.environ), capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    for grown in map(float, ended.stdout.split()):
        assert grown < 12, f"{size:.0f} MiB of samples took {grown:.0f} MiB"


@pytest.mark.slow
def test_a_million_samples():
    script = HERE.parents[2] / "scripts/million_samples.py"
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=1_800)
    assert ended.stderr == ""
    rows = re.findall(r"first batch, .* (\S+) s +(\S+) s +(\d+) MiB", ended.stdout)
    assert len(rows) == 6, ended.stdout
    for processor, _, memory in rows:  # of CPU: the machine may do other things too
        assert float(processor) < 5
        assert int(memory) < 500
