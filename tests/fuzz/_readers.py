"""All readers of data, on files in the owners' layouts whose bytes or values are spoiled."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from hypothesis import strategies as st
from PIL import Image

from data._gus_patches import patch_file, tone
from equipoise.data.readers import find_reader
from equipoise.data.readers.reader import Flaw
from equipoise.data.tasks import _usable
from equipoise.errors import DataError
from fuzz._mutations import as_json, scalars, spoiled, spoiled_bytes, spoiled_json, values
from fuzz._surface import Cases, names, one_line

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@dataclass(frozen=True)
class Source:
    """One file that a reader opens.

    Attributes:
        reader: also the fixture's name, below which the file is.
        file: relative to the task's folder.
        path: what the recipe would name: "" for the folder, else the file.
    """

    reader: str
    file: str
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    path: str = ""


JSON = (
    Source("aokvqa", "aokvqa_v1p0_train.json"),
    Source("aokvqa", "aokvqa_v1p0_train.json", options={"form": "direct_answer"}),
    Source("chartqa", "ChartQA Dataset/train/train_human.json", options={"subset": "human"}),
    Source("gqa", "train_balanced_questions.json"),
    Source("iconqa", "iconqa_data/iconqa/train/choose_txt/17/data.json"),
    Source("iconqa", "iconqa_data/iconqa/train/choose_img/9/data.json", options={"subtask": "choose_img"}),
    Source("llava", "llava_v1_5_mix665k.json", path="llava_v1_5_mix665k.json"),
    Source("ocrvqa", "dataset.json"),
    Source("refcoco", "refcoco/instances.json", options={"kind": "caption", "square": True}),
    Source("sharegpt", "sharegpt_20230401_html_unsplit.json", path="sharegpt_20230401_html_unsplit.json"),
    Source("sharegpt", "sharegpt_20230401_html_unsplit.json", options={"html": True},
    path="sharegpt_20230401_html_unsplit.json"),
    Source("sharegpt4v", "sharegpt4v/sharegpt4v_instruct_gpt4-vision_cap100k.json"),
    Source("textvqa", "TextVQA_0.5.1_train.json"),
    Source("vqav2", "v2_OpenEnded_mscoco_train2014_questions.json"),
    Source("vqav2", "v2_mscoco_train2014_annotations.json"),
    Source("easy_vqa", "data/train/questions.json"),
    Source("easy_vqa", "data/train/questions.json", options={"kind": "region"}),
)  # fmt: skip
CSV = (Source("clothoaqa", "clotho_aqa_train.csv"), Source("sdd", "song_describer.csv"))
YAML = (Source("macs", "MACS.yaml"), Source("chatterbot", "data/english/ai.yml"))
OTHER = (
    Source("asterisk", "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"),
    Source("tuxpaint", "usr/share/tuxpaint/stamps/animals/cat.txt"),
    Source("tuxpaint", "usr/share/tuxpaint/stamps/animals/cat.png", options={"kind": "box"}),
    Source("easy_vqa", "data/train/images/1600.png", options={"kind": "box"}),
    Source("freepats", "usr/share/midi/freepats/Tone_000/000_Piano.pat"),
    Source("freepats", "usr/share/midi/freepats/Tone_000/000_Piano.pat", options={"kind": "pitch"}),
)
PICKLES = (
    Source("refcoco", "refcoco/refs(unc).p"),
    Source("refcoco", "refcocog/refs(umd).p", options={"dataset": "refcocog"}),
)
JSONL = Source("jsonl", "train.jsonl")
PARQUET = Source("parquet", "train.parquet")
SAVED = tuple(
    Source("saved", file) for file in ("train/data-00000-of-00001.arrow", "train/dataset_info.json",
    "train/state.json", "dataset_dict.json")
)  # fmt: skip
ROW: dict[str, Any] = {
    "id": "a", "prompt": "What?", "answer": "This.", "image": "a.png", "audio": ["a.wav"],
    "references": ["This.", "That."],
    "box": [0.1, 0.2, 0.3, 0.4],
}  # fmt: skip
TALK: dict[str, Any] = {
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"}],
    "images": ["a.png", "b.png"],
}  # fmt: skip
#: Pickles that would do something, or that stand for more than they are.
PICKLED = (
    b"cos\nsystem\n(S'touch pwned'\ntR.",
    b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
    b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x01h\x01h\x01" * 40 + b"e.",
    pickle.dumps([{"ref_id": 1 << 100_000, "split": "train"}]),
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"I" + b"9" * 10_000 + b"\n.",
    b"(lp0\ng0\na.",
    b"\x82\x01.", b"Pid\n.", b"]" * 100_000 + b".", b"(" * 100_000, b"",
)  # fmt: skip


def _bomb() -> bytes:
    """Lists of lists that are one: a billion billions of values, in a place whose value is shown."""
    inner: Any = ["x", "x"]
    for _ in range(60):
        inner = [inner, inner]
    return pickle.dumps([{"ref_id": inner, "split": "train", "sentences": [inner], "ann_id": inner, "image_id": inner}])


def make(reader: str, folder: Path) -> Path:
    """The dataset of a reader, in its owners' layout."""
    root = folder / reader
    if (FIXTURES / reader).is_dir() and reader != "parquet":
        return Path(shutil.copytree(FIXTURES / reader, root))
    root.mkdir()
    picture, clip = Image.new("RGB", (8, 8), "red"), np.zeros(800)
    if reader == "asterisk":
        file, sounds = root / OTHER[0].file, root / "usr/share/asterisk/sounds/en_US_f_Allison"
        file.parent.mkdir(parents=True)
        sounds.mkdir(parents=True)
        names = [f"p{number}" for number in range(12)]
        file.write_bytes(gzip.compress("\n".join(f"{name}: Press {name}." for name in names).encode()))
        for name in names:
            soundfile.write(sounds / f"{name}.wav", clip, 8_000)
    elif reader == "tuxpaint":
        stamps = root / "usr/share/tuxpaint/stamps/animals"
        stamps.mkdir(parents=True)
        for name in ("cat", "dog", "cow"):
            (stamps / f"{name}.txt").write_text(f"A {name}.\nfr.utf8=un {name}\n", encoding="utf-8")
            Image.new("RGBA", (4, 4), "blue").save(stamps / f"{name}.png")
            soundfile.write(stamps / f"{name}_desc.wav", clip, 8_000)
    elif reader == "freepats":
        file = root / OTHER[-1].file
        file.parent.mkdir(parents=True)
        file.write_bytes(patch_file([tone(110), tone(440)]))
    elif reader == "easy_vqa":
        images = root / "data/train/images"
        images.mkdir(parents=True)
        for number in (1600, 1601):
            picture.putpixel((number % 8, 3), (0, 0, 255))
            picture.save(images / f"{number}.png")
        rows = [["what shape", "circle", 1600], ["what color", "red", 1600], ["is it red", "yes", 1601]]
        (root / "data/train/questions.json").write_text(json.dumps(rows), encoding="utf-8")
    elif reader == "chatterbot":
        file = root / YAML[1].file
        file.parent.mkdir(parents=True)
        talks = [["Hello", "Hi", "How are you?", "Fine."], ["What?", "That."]]
        file.write_text(yaml.safe_dump({"categories": ["ai"], "conversations": talks}), encoding="utf-8")
    else:
        picture.save(root / "a.png")
        picture.save(root / "b.png")
        soundfile.write(root / "a.wav", clip, 16_000)
        (root / "train.jsonl").write_bytes(as_json(ROW) + b"\n" + as_json(TALK) + b"\n")
    return root


class Reading:
    """Reads a source with something else in its place."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.roots: dict[str, Path] = {}

    def root(self, source: Source) -> Path:
        if source.reader not in self.roots:
            self.roots[source.reader] = make(source.reader, self.folder)
        return self.roots[source.reader]

    def content(self, source: Source) -> bytes:
        return (self.root(source) / source.file).read_bytes()

    def check(self, case: tuple[Source, bytes]) -> None:
        source, content = case
        root = self.root(source)
        file = root / source.file
        kept = file.read_bytes() if file.exists() else None
        file.write_bytes(content)
        try:
            self._read(source, root)
        except DataError as error:
            names(error, root)
            raise
        finally:
            if kept is None:
                file.unlink()
            else:
                file.write_bytes(kept)

    def _read(self, source: Source, root: Path) -> None:
        refused = None
        path = root / source.path if source.path else root
        for row in find_reader(source.reader).read("own", source.split, path, **source.options):
            row = _usable(row, str(path), True)
            if isinstance(row, Flaw):
                one_line(row.line("own"))
                refused = row.line("own")
                continue
            for media in (*row.images, *row.audios):
                inside = media.is_relative_to(root.resolve()) or "drawn" in media.parts or "media" in media.parts
                assert inside, f"{media} lies outside the data"
        if refused is not None:
            raise DataError(f"{root}: {refused}")


def json_files(folder: Path) -> Cases:
    reading = Reading(folder)
    templates = [json.loads(reading.content(source)) for source in JSON]

    def case(number: int) -> st.SearchStrategy[tuple[Source, bytes]]:
        source = JSON[number]
        raw = reading.content(source)
        return st.tuples(st.just(source), st.one_of(spoiled_json(templates[number]), spoiled_bytes(raw, 2)))

    return st.integers(0, len(JSON) - 1).flatmap(case), reading.check


def _spoiled_files(
    sources: tuple[Source, ...], extra: Callable[[Source], st.SearchStrategy[bytes]] | None = None
) -> Callable[[Path], Cases]:
    def prepare(folder: Path) -> Cases:
        reading = Reading(folder)

        def case(source: Source) -> st.SearchStrategy[tuple[Source, bytes]]:
            spoilt = spoiled_bytes(reading.content(source)) | spoiled_bytes(reading.content(source), 1)
            return st.tuples(st.just(source), spoilt if extra is None else st.one_of(spoilt, extra(source)))

        return st.sampled_from(sources).flatmap(case), reading.check

    return prepare


def _yaml_of(source: Source) -> st.SearchStrategy[bytes]:
    from fuzz._recipes import BOMBS

    content = yaml.safe_load((FIXTURES / "macs" / "MACS.yaml").read_text()) if source.reader == "macs" else {
        "categories": ["ai"], "conversations": [["Hello", "Hi"], ["What?", "That."]]
    }  # fmt: skip
    return st.one_of(spoiled(content).map(as_json), st.sampled_from(BOMBS[:6]))


def _pickles(source: Source) -> st.SearchStrategy[bytes]:
    template = [
        {
            "ref_id": 1, "ann_id": 2, "image_id": 3, "category_id": 4, "split": "train", "sent_ids": [1],
            "sentences": [{"sent_id": 1, "sent": "red", "raw": "red", "tokens": ["red"]}],
        }
    ]  # fmt: skip
    return st.one_of(spoiled(template).map(_pickled), st.sampled_from((*PICKLED, _bomb())))


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except (RecursionError, UnicodeError):
        return b"."


def jsonl_files(folder: Path) -> Cases:
    reading = Reading(folder)
    line = st.one_of(spoiled_json(ROW), spoiled_json(TALK), spoiled_bytes(as_json(ROW)), values.map(as_json))
    lines = st.lists(line, min_size=1, max_size=3).map(b"\n".join)
    return st.tuples(st.just(JSONL), lines), reading.check


def parquet_files(folder: Path) -> Cases:
    import pyarrow
    import pyarrow.parquet

    reading = Reading(folder)
    written = sorted((FIXTURES / "parquet").glob("*.parquet"))

    def table(case: tuple[list[Any], str]) -> bytes:
        rows, compression = case
        file = io.BytesIO()
        columns = dict.fromkeys(key for row in rows for key in row)
        arrays = {}
        for key in columns:
            try:
                arrays[key] = pyarrow.array([row.get(key) for row in rows])
            except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
                arrays[key] = pyarrow.nulls(len(rows))
        try:
            pyarrow.parquet.write_table(pyarrow.table(arrays), file, compression=compression)
        except (pyarrow.ArrowException, ValueError, OverflowError, TypeError):
            return b"PAR1"
        return file.getvalue()

    bytes_row = {**ROW, "image": {"bytes": b"\x89PNG", "path": "../x.png"}}
    keyed = st.dictionaries(
        st.sampled_from(sorted(ROW)), scalars | st.lists(scalars, max_size=2) | st.binary(max_size=6), max_size=5
    )
    row = st.one_of(spoiled(ROW, 1).filter(lambda found: isinstance(found, dict)), st.just(bytes_row), keyed)
    tables = st.tuples(st.lists(row, min_size=1, max_size=3), st.sampled_from(["snappy", "gzip", "zstd", "none"])).map(
        table
    )
    spoilt = st.sampled_from(range(len(written))).flatmap(lambda number: spoiled_bytes(written[number].read_bytes(), 2))
    return st.tuples(st.just(PARQUET), st.one_of(tables, tables.flatmap(spoiled_bytes), spoilt)), reading.check


csv_files = _spoiled_files(CSV)
yaml_files = _spoiled_files(YAML, _yaml_of)
pickle_files = _spoiled_files(PICKLES, _pickles)
other_files = _spoiled_files(OTHER)
arrow_files = _spoiled_files(SAVED)
