"""Tux Paint's stamps: what each kind of task makes of them, and that no split knows another's."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from equipoise.data.audio import load_audio
from equipoise.data.readers import tuxpaint
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import TUXPAINT

SPLITS = ("train", "validation", "test")
SIX = {"bg": "Bulgarian", "ca": "Catalan", "es": "Spanish", "fr": "French", "ro": "Romanian", "ru": "Russian"}


def stamp(root: Path, name: str, captions: dict[str, str], *files: str) -> None:
    """Write one stamp: its captions, and files named by what follows the stamp's name."""
    folder = root / "usr/share/tuxpaint/stamps" / Path(name).parent
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(name).name
    lines = [captions["en"], *(f"{language}.utf8={text}" for language, text in captions.items() if language != "en")]
    (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    for file in files:
        path = folder / f"{name}{file}"
        if file == ".png":
            Image.new("RGBA", (4, 4)).save(path)
        elif file == ".svg":
            path.write_text("<svg/>")
        else:
            soundfile.write(path, np.zeros(2205), 22050)


def every(root: Path, kind: str) -> dict[str, Sample]:
    """All samples of a kind by id; an id that two splits share is caught."""
    samples = [sample for split in SPLITS for sample in tuxpaint.read("t", split, path=root, kind=kind)]
    assert len({sample.id for sample in samples}) == len(samples)
    return {sample.id: sample for sample in samples}


def texts(sample: Sample) -> tuple[str, str]:
    user, assistant = sample.turns
    assert (user.role, assistant.role) == ("user", "assistant")
    assert sample.references == (assistant.text,)
    return user.text, assistant.text


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    spoken = [f"_desc_{language}.ogg" for language in SIX]
    stamp(
        tmp_path, "animals/cow", {"en": "A cow.", "fr": "Une vache.", "da": "En ko."},
        ".png", ".ogg", ".dat.wav", "_desc.ogg", "_desc_da.wav", *spoken,
    )  # fmt: skip
    stamp(tmp_path, "animals/cow_bell", {"en": "A bell.", "fr": " "}, ".svg", ".wav", "_desc_fr.ogg", "_desc_xx.ogg")
    stamp(tmp_path, "symbols/math/7", {"en": "Seven."}, ".png", ".ogg", "_fr.ogg")
    return tmp_path


def test_captions_are_of_pictures_that_pillow_opens(stamps):
    samples = every(stamps, "caption")
    assert {name: texts(sample) for name, sample in samples.items()} == {
        "animals/cow": ("Describe the picture.", "A cow."),
        "symbols/math/7": ("Describe the picture.", "Seven."),
    }
    cow = samples["animals/cow"]
    assert (cow.task, cow.audios) == ("t", ())
    assert [path.name for path in cow.images] == ["cow.png"]
    assert cow.images[0].is_file()


def test_sounds_are_what_things_make_and_no_spoken_names(stamps):
    samples = every(stamps, "sound")
    assert {name: texts(sample) for name, sample in samples.items()} == {
        "animals/cow": ("What makes this sound?", "A cow."),
        "animals/cow_bell": ("What makes this sound?", "A bell."),
    }
    assert [sample.audios[0].name for sample in samples.values()] == ["cow.ogg", "cow_bell.wav"]
    assert all(sample.images == () for sample in samples.values())


def test_speech_is_written_down_where_there_is_a_caption_in_its_language(stamps):
    samples = every(stamps, "speech")
    assert {name: texts(sample) for name, sample in samples.items()} == {
        "animals/cow/en": ("What is said? It is English.", "A cow."),
        "animals/cow/fr": ("What is said? It is French.", "Une vache."),
        "animals/cow/da": ("What is said? It is Danish.", "En ko."),
    }
    assert {name: sample.audios[0].name for name, sample in samples.items()} == {
        "animals/cow/en": "cow_desc.ogg",
        "animals/cow/fr": "cow_desc_fr.ogg",
        "animals/cow/da": "cow_desc_da.wav",
    }


def test_the_language_of_stamps_that_all_six_languages_describe(stamps):
    samples = every(stamps, "spoken_language")
    assert {name: texts(sample) for name, sample in samples.items()} == {
        f"animals/cow/{code}": ("Which language is spoken?", name) for code, name in SIX.items()
    }
    assert [sample.audios[0].name for sample in samples.values()] == [f"cow_desc_{code}.ogg" for code in SIX]
    assert load_audio(samples["animals/cow/ru"].audios[0], 16_000).shape == (1600,)


def test_most_stamps_are_for_training_and_every_split_has_some(tmp_path):
    for index in range(60):
        stamp(tmp_path, f"things/thing{index}", {"en": f"Thing {index}."}, ".png")
    sizes = {split: len(tuxpaint.read("t", split, path=tmp_path)) for split in SPLITS}
    assert sum(sizes.values()) == 60
    assert sizes["train"] > 40
    assert min(sizes.values()) > 0


def test_stamps_that_share_a_name_or_a_caption_share_a_split_over_any_number_of_steps(tmp_path):
    for index in range(40):
        stamp(tmp_path, f"a/one{index}", {"en": f"One {index}.", "qq": "of no spoken language"}, ".png")
        stamp(tmp_path, f"b/two{index}", {"en": f"Two {index}.", "es": f"Dos {index}"}, ".png")
        stamp(tmp_path, f"c/three{index}", {"en": f"Three {index}.", "es": f"DOS {index}!"}, ".png")
        stamp(tmp_path, f"d/two{index}", {"en": f"ONE {index}"}, ".png")
    sizes = []
    for split in SPLITS:
        names = Counter(re.sub(r"\D", "", sample.id) for sample in tuxpaint.read("t", split, path=tmp_path))
        assert set(names.values()) <= {4}
        sizes.append(len(names))
    assert min(sizes) > 0


def test_a_caption_in_a_language_that_nobody_speaks_joins_nothing(tmp_path):
    for index in range(60):
        stamp(tmp_path, f"things/thing{index}", {"en": f"Thing {index}.", "sv": "En sak."}, ".png")
    assert all(tuxpaint.read("t", split, path=tmp_path) for split in SPLITS)


def test_an_unknown_split_or_kind(stamps):
    with pytest.raises(DataError, match="task t: tuxpaint has no split 'dev'; allowed: train, validation, test"):
        tuxpaint.read("t", "dev", path=stamps)
    with pytest.raises(DataError, match="has no kind 'songs'; allowed: caption, sound, speech, spoken_language"):
        tuxpaint.read("t", "test", path=stamps, kind="songs")


def test_a_folder_without_stamps(tmp_path):
    with pytest.raises(DataError, match=r"task t: .* holds no stamps"):
        tuxpaint.read("t", "train", path=tmp_path)


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"\xff", "codec can't decode")])
def test_a_stamp_without_a_caption(stamps, content, reason):
    (stamps / tuxpaint.STAMPS / "animals" / "cow.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"task t: .*cow\.txt holds no caption \(.*{reason}"):
        tuxpaint.read("t", "train", path=stamps)


def test_data_that_was_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="equipoise data fetch tuxpaint"):
        tuxpaint.read("t", "train")


@pytest.mark.slow  # reads the real data, where it was fetched
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("caption", (643, 71, 71)),
        ("sound", (92, 4, 11)),
        ("speech", (5977, 650, 677)),
        ("spoken_language", (4344, 498, 492)),
    ],
)
def test_the_real_stamps(kind, sizes):
    if not TUXPAINT.folder.is_dir():
        pytest.skip("equipoise data fetch tuxpaint")
    splits = {split: tuxpaint.read("t", split, kind=kind) for split in SPLITS}
    assert tuple(len(samples) for samples in splits.values()) == sizes
    files = {
        split: {hashlib.sha256(f.read_bytes()).digest() for s in samples for f in (*s.images, *s.audios)}
        for split, samples in splits.items()
    }
    assert not files["train"] & (files["validation"] | files["test"])
    assert not files["validation"] & files["test"]
    if kind == "spoken_language":
        for samples in splits.values():
            assert len(set(Counter(sample.references[0] for sample in samples).values())) == 1
    else:
        assert not {s.references for s in splits["train"]} & {s.references for s in splits["test"]}
