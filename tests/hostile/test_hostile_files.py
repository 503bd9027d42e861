"""Files that are no files, links that lead elsewhere, files that stand for more than they are: a line, no waiting."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from PIL import Image

from data._flawed import huge_png
from equipoise import tables
from equipoise.data import audio
from equipoise.data.images import load_image
from equipoise.data.media import load_audios, load_images
from equipoise.data.readers import asterisk, files, jsonl, parquet, saved
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample, exchange
from equipoise.data.tasks import read_task
from equipoise.errors import DataError, EquipoiseError
from equipoise.opening import open_plain, read_plain
from equipoise.recipe import Task
from equipoise.recipe_reading import load_recipe
from equipoise.report.folders import page_on
from equipoise.report.view import view_one
from equipoise.tables import read_validation_scores
from equipoise.training.run_directory import RunDirectory
from report._synthetic_runs import around, log_lines, write_run

ROW = {"prompt": "q", "answer": "a"}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], None]] = {"pipe": _pipe, "endless": _endless, "folder": Path.mkdir}
READERS: dict[str, Callable[[Path], object]] = {
    "recipe": load_recipe,
    "table": read_validation_scores,
    "jsonl": lambda path: list(jsonl.read("own", path.stem, path.parent)),
    "image": lambda path: load_images(Sample("s", "own", exchange("q", "a"), images=(path,))),
    "audio": lambda path: load_audios(Sample("s", "own", exchange("q", "a"), audios=(path,)), 16_000),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_a_device_or_a_folder_in_the_place_of_a_file_is_refused(reader, kind, tmp_path):
    path = tmp_path / "train.jsonl"
    KINDS[kind](path)
    with pytest.raises(EquipoiseError) as caught:
        READERS[reader](path)
    reason = "Is a directory" if kind == "folder" else "it is no plain file"
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_goes_on_without_what_is_no_file(kind, tmp_path):
    for name in ("metrics.jsonl", "recipe.yaml", "scores.json", "timings.jsonl", "data.json"):
        KINDS[kind](tmp_path / name)
    view = view_one(RunDirectory(tmp_path), "run")
    assert view.recipe is None
    assert not view.columns


def test_a_link_to_a_plain_file_is_followed(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_plain(tmp_path / "b", 3) == b"abc"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_plain(tmp_path / "b", 2)
    with pytest.raises(OSError, match="no file can have that path"):
        open_plain(Path("a\0b"))


def rows(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps({**ROW, **line}) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Pictures beside the task's folder, in which a link leads to them."""
    folder = tmp_path / "coco"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    data = rows(
        tmp_path / "data", {"image": "images/a.png"}, {"image": str(folder / "a.png")}, {"image": "../coco/a.png"}
    )
    (data / "images").symlink_to(folder)
    return folder


def test_data_names_files_below_its_folder_alone(elsewhere, tmp_path):
    found = list(jsonl.read("own", "train", tmp_path / "data"))
    assert all(isinstance(row, Flaw) and "lies outside the task's folder" in row.reason for row in found)
    assert len(found) == 3
    assert not any("coco/a.png: image does not" in row.reason for row in found), (
        "not even whether a file is there is told"
    )


def test_media_roots_of_the_recipe_allow_further_folders(elsewhere, tmp_path):
    task = Task(name="own", reader="jsonl", path=tmp_path / "data", media_roots=[elsewhere])
    samples = read_task(task, "train", seed=0)
    assert samples is not None
    assert [sample.images for sample in samples] == [((elsewhere / "a.png").resolve(),)] * 3
    bare = task.model_copy(update={"media_roots": []})
    with pytest.raises(DataError, match="lies outside the task's folder and its media_roots"):
        read_task(bare, "train", seed=0)  # the index of the other is not taken for it


def test_an_image_that_goes_after_it_was_indexed_is_a_line(tmp_path):
    Image.new("RGB", (8, 8)).save(rows(tmp_path / "data", {"image": "a.png"}) / "a.png")
    samples = read_task(Task(name="own", reader="jsonl", path=tmp_path / "data"), "train", seed=0)
    assert samples is not None
    (tmp_path / "data" / "a.png").unlink()
    with pytest.raises(DataError, match=r"sample 1: .*a\.png: image cannot be read \(No such file or directory\)"):
        load_images(samples[0])
    os.mkfifo(tmp_path / "data" / "a.png")
    with pytest.raises(DataError, match="no plain file"):
        load_images(samples[0])


def test_a_file_cut_short_while_it_is_read_ends_the_reading(tmp_path):
    folder = rows(tmp_path / "data", *({"prompt": "long " * 400} for _ in range(200)))
    found = jsonl.read("own", "train", folder)
    next(found)
    os.truncate(folder / "train.jsonl", 5_000)
    assert len(list(found)) < 199


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 1_000)
    folder = rows(tmp_path / "data", {}, {"prompt": "x" * 2_000})
    with pytest.raises(DataError, match=r"train\.jsonl: line 2 has more than 1,000 bytes"):
        list(jsonl.read("own", "train", folder))


def test_a_conversation_without_end_is_a_flaw(tmp_path):
    folder = rows(tmp_path / "data", {"prompt": "x" * 1_000_001})
    with pytest.raises(DataError, match=r"sample 1: .*it has 1,000,002 characters; 1,000,000 are allowed"):
        read_task(Task(name="own", reader="jsonl", path=folder), "train", seed=0)


# ---------------------------------------------------------------------- images


def test_an_image_of_more_pixels_than_pillow_warns_of_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(huge_png(10_000))
    with pytest.raises(DataError, match=r"it has 100,000,000 pixels; allowed are 89,478,485"):
        load_images(Sample("s", "own", exchange("q", "a"), images=(tmp_path / "a.png",)))


def test_a_thread_of_an_image_is_refused(tmp_path):
    Image.new("RGB", (1_000, 4)).save(tmp_path / "wide.png")
    Image.new("RGB", (1_000, 5)).save(tmp_path / "ribbon.png")
    with pytest.raises(ValueError, match="1,000 x 4 pixels; one side may be 200 times the other"):
        load_image(tmp_path / "wide.png")
    assert load_image(tmp_path / "ribbon.png").size == (1_000, 5)


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_16_bits_of_grey_become_8(kind, tmp_path):
    grey = np.array([[0, 255, 256, 32_768, 65_535]] * 3, kind)
    Image.fromarray(grey).save(tmp_path / "a.tiff")
    assert np.asarray(load_image(tmp_path / "a.tiff"))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_of_a_moving_picture_the_first_is_seen_and_no_camera_turns_one(tmp_path):
    first, second = Image.new("RGB", (8, 4), "red"), Image.new("RGB", (8, 4), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    first.save(tmp_path / "a.jpg", exif=turned)
    assert load_image(tmp_path / "a.jpg").size == (8, 4)


def test_a_program_is_no_image(tmp_path):
    """Pillow would give EPS to Ghostscript."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="no image that Pillow knows"):
        load_images(Sample("s", "own", exchange("q", "a"), images=(tmp_path / "a.png",)))


# ---------------------------------------------------------------------- sound


def clip(path: Path, samples: np.ndarray, rate: int = 16_000, **options: Any) -> Sample:
    soundfile.write(path, samples, rate, **options)
    return Sample("s", "own", exchange("q", "a"), audios=(path,))


def test_a_clip_that_unpacks_to_hours_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 100_000)
    sample = clip(tmp_path / "a.flac", np.zeros((300_000, 2)))
    assert (tmp_path / "a.flac").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"it has more than 100,000 samples at 16,000 a second"):
        load_audios(sample, 16_000)
    assert len(load_audios(clip(tmp_path / "b.flac", np.zeros(100_000)), 16_000)[0]) == 100_000


def test_a_slow_clip_counts_as_what_it_becomes(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 100_000)
    with pytest.raises(DataError, match=r"it has more than 6,250 samples at 1,000 a second"):
        load_audios(clip(tmp_path / "a.wav", np.zeros(7_000), 1_000), 16_000)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf"), (1e30, "1e\\+30")])
def test_what_is_no_sound_is_refused(value, said, tmp_path):
    samples = np.zeros(100)
    samples[50] = value
    with pytest.raises(DataError, match=f"it holds a sample of {said}; full scale is 1"):
        load_audios(clip(tmp_path / "a.wav", samples, subtype="FLOAT"), 16_000)


@pytest.mark.parametrize("rate", [1, 2_000_000])
def test_an_absurd_rate_is_refused(rate, tmp_path):
    with pytest.raises(DataError, match=r"samples a second; allowed are 1,000 to 1,000,000"):
        load_audios(clip(tmp_path / "a.wav", np.zeros(100), rate), 16_000)


def test_a_clip_of_which_nothing_is_left_at_the_rate_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"it holds 12 samples at 600,000 a second, none at 16,000"):
        load_audios(clip(tmp_path / "a.wav", np.full(12, 0.1), 600_000), 16_000)


def test_a_thousand_channels_are_read_as_one(tmp_path):
    [mono] = load_audios(clip(tmp_path / "a.wav", np.full((50, 1_024), 0.25)), 16_000)
    assert mono.tolist() == pytest.approx([0.25] * 50, abs=1e-4)


# ---------------------------------------------------------------------- archives and tables


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(asterisk, "LARGEST", 1_000_000)
    file = tmp_path / asterisk.TRANSCRIPTS
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"a: a\n" * 1_000_000))
    with pytest.raises(DataError, match=r"core-sounds-en\.txt\.gz holds more than 1,000,000 bytes"):
        list(asterisk.read("own", "train", tmp_path))


def test_a_parquet_file_that_says_it_does_not_fit_is_not_unpacked(tmp_path, monkeypatch):
    """A run of a million equal texts is a few bytes."""
    table = pyarrow.table({"prompt": ["q"] * 1_000_000, "answer": ["a"] * 1_000_000})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < 20_000
    monkeypatch.setattr(parquet, "MOST_ROWS", 999_999)
    with pytest.raises(DataError, match=r"row group 0 has 1,000,000 rows"):
        list(parquet.read("own", "train", tmp_path))


def test_bytes_that_are_no_text_in_a_parquet_file_are_a_line(tmp_path):
    broken = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"prompt": broken, "answer": ["a"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet is cut short or no Parquet after 0 rows"):
        list(parquet.read("own", "train", tmp_path))


def test_a_saved_dataset_names_files_of_its_own_folder_alone(tmp_path):
    import datasets

    datasets.Dataset.from_list([ROW]).save_to_disk(str(tmp_path / "other"))
    datasets.Dataset.from_list([ROW]).save_to_disk(str(tmp_path / "data"))
    assert len(list(saved.read("own", "train", tmp_path / "data"))) == 1
    state = tmp_path / "data" / "state.json"
    plain = json.loads(state.read_text())
    plain["_data_files"] = [{"filename": "../other/data-00000-of-00001.arrow"}]
    state.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=r"state\.json: data file lies outside"):
        list(saved.read("own", "train", tmp_path / "data"))


def test_an_arrow_file_whose_places_lead_elsewhere_is_a_line(tmp_path):
    """Texts in Arrow are found by places that nobody has checked."""
    import datasets

    datasets.Dataset.from_list([{"prompt": "q" * 50, "answer": "a" * 50}] * 3).save_to_disk(str(tmp_path / "data"))
    [file] = (tmp_path / "data").glob("*.arrow")
    content = bytearray(file.read_bytes())
    places = np.array([0, 50, 100, 150], "<i4").tobytes()
    assert places in content
    content[content.index(places) : content.index(places) + 16] = np.array([0, 2**30, 100, 150], "<i4").tobytes()
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read after 0 rows"):
        list(saved.read("own", "train", tmp_path / "data"))


def test_a_table_of_scores_is_bounded_and_its_width_costs_no_square(tmp_path, monkeypatch):
    names = [f"t{number}" for number in range(200_000)]
    (tmp_path / "wide.csv").write_text("run," + ",".join(names) + "\nmini," + ",".join("1" * len(names)) + "\n")
    assert len(read_validation_scores(tmp_path / "wide.csv")["mini"]) == 200_000
    monkeypatch.setattr(tables, "LARGEST", 1_000_000)
    with pytest.raises(DataError, match="it is larger than 1,000,000 bytes"):
        read_validation_scores(tmp_path / "wide.csv")


def test_keys_that_come_twice_in_json_are_the_last(tmp_path):
    """As in all of JSON's readers; in a recipe they are refused."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "q", "answer": "a", "answer": "b"}\n')
    [sample] = jsonl.read("own", "train", folder)
    assert isinstance(sample, Sample)
    assert sample.turns[-1].text == "b"


def test_hundreds_of_thousands_of_keys_are_read(tmp_path):
    file = io.StringIO()
    json.dump({**ROW, **{f"k{number}": 0 for number in range(200_000)}}, file)
    (tmp_path / "train.jsonl").write_text(file.getvalue())
    assert len(list(jsonl.read("own", "train", tmp_path))) == 1


def test_a_name_of_any_length_is_cut_in_what_is_said_of_it(tmp_path):
    (tmp_path / "scores.csv").write_text(f"run,{'A' * 9_000}\nmini,x\n")
    with pytest.raises(DataError) as caught:
        read_validation_scores(tmp_path / "scores.csv")
    assert len(str(caught.value)) < 500


def test_scores_whose_metric_is_no_name_are_shown(tmp_path):
    write_run(
        tmp_path / "run",
        log_lines({"llm": around(0.3, 0.4, 6)}),
        scores={"tasks": {"vqa": {"metric": [1], "value": 0.5, "samples": 9}}},
    )
    assert "[1]" in page_on([tmp_path / "run"]).body()
