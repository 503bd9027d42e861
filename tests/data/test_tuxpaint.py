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
from equipoise.data.readers.files import watching
from equipoise.data.readers.reader import Flaw
from equipoise.data.sample import Sample
from equipoise.errors import DataError
from equipoise.packages import TUXPAINT

SPLITS = ("train", "validation", "test")
SIX = {"bg": "Bulgarian", "ca": "Catalan", "es": "Spanish", "fr": "French", "ro": "Romanian", "ru": "Russian"}


def read(split: str, path: Path | None = None, kind: str = "caption") -> list[Sample]:
    """The samples of a split without flaws."""
    rows = list(tuxpaint.read("t", split, path, kind=kind))
    assert [row for row in rows if isinstance(row, Flaw)] == []
    return rows


def refused(split: str, path: Path | None = None, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        list(tuxpaint.read("t", split, path, **options))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


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


def everything(root: Path, kind: str) -> dict[str, Sample | Flaw]:
    return {row.id: row for split in SPLITS for row in tuxpaint.read("t", split, root, kind=kind)}


def every(root: Path, kind: str) -> dict[str, Sample]:
    """All samples of a kind by id; an id that two splits share is caught."""
    samples = [sample for split in SPLITS for sample in read(split, root, kind)]
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
    sizes = {split: len(read(split, tmp_path)) for split in SPLITS}
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
        names = Counter(re.sub(r"\D", "", sample.id) for sample in read(split, tmp_path))
        assert set(names.values()) <= {4}
        sizes.append(len(names))
    assert min(sizes) > 0


def test_a_caption_in_a_language_that_nobody_speaks_joins_nothing(tmp_path):
    for index in range(60):
        stamp(tmp_path, f"things/thing{index}", {"en": f"Thing {index}.", "sv": "En sak."}, ".png")
    assert all(read(split, tmp_path) for split in SPLITS)


def test_the_category_is_the_top_folder_where_it_is_one_of_the_sixteen(stamps):
    stamp(stamps, "my own/thing", {"en": "A thing."}, ".png")
    samples = every(stamps, "category")
    listed = (
        "animals, clothes, food, hobbies, household, medical, military, naturalforces, people, plants, seasonal, "
        "space, sports, symbols, town, vehicles"
    )
    assert {name: texts(sample) for name, sample in samples.items()} == {
        "animals/cow": (f"Which of these is it: {listed}?", "animals"),
        "symbols/math/7": (f"Which of these is it: {listed}?", "symbols"),
    }
    assert samples["animals/cow"].images[0].name == "cow.png"


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty stamps, each of a grey of its own, opaque in a part of its picture and faint beside it."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    for index in range(40):
        stamp(tmp_path, f"food/thing{index}", {"en": f"Thing {index}."})
        picture = Image.new("RGBA", (90, 60))
        picture.paste((*[index * 5] * 3, 63), (0, 0, 90, 60))
        picture.paste((*[index * 5] * 3, 255), (20, 10, 20 + 15 + index, 50))
        picture.save(tmp_path / tuxpaint.STAMPS / "food" / f"thing{index}.png")
    return tmp_path


def test_a_box_is_where_the_named_thing_was_pasted_and_another_thing_is_beside_it(things):
    samples = every(things, "box")
    assert len(samples) == 40
    sides, across = set(), set()
    for name, sample in samples.items():
        index = int(re.sub(r"\D", "", name))
        assert sample.prompt == (
            f"Provide the bounding box coordinate of the region this sentence describes: Thing {index}."
        )
        assert sample.turns[-1].text == "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]".format(*sample.box)
        assert sample.references == ("[{:.6f}, {:.6f}, {:.6f}, {:.6f}]".format(*sample.box),)
        with Image.open(sample.images[0]) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (256, 256, 3)
        ours, grey = (pixels == index * 5).all(axis=2), (pixels == pixels[:, :, :1]).all(axis=2)
        left, top, right, bottom = (round(edge * 256) for edge in sample.box)
        assert max(right - left, bottom - top) <= 112
        assert (right - left) / (bottom - top) == pytest.approx((15 + index) / 40, rel=0.05)
        assert ours[top:bottom, left:right].mean() > 0.95
        assert not np.delete(ours, np.s_[top:bottom], axis=0)[:, left:right].any()
        assert not np.delete(ours, np.s_[left:right], axis=1).any()
        grey[top:bottom, left:right] = pixels[0, 0, 0] == 0
        shades = {shade for shade in pixels[grey][:, 0].tolist() if shade % 5 == 0 and shade < 200}
        assert len(shades) == 1, "the other thing"
        sides.add((left < 128, top < 128))
        across.add((left < 128 < right, top < 128 < bottom))
    assert len(sides) == 4
    assert {(True, False), (False, True)} <= across, "beside one another, and above"


def test_a_thing_that_nothing_differs_from_is_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    for name in ("food/roll", "town/roll"):
        stamp(tmp_path, name, {"en": "A roll."})
        Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(tmp_path / tuxpaint.STAMPS / f"{name}.png")
    for sample in every(tmp_path, "box").values():
        with Image.open(sample.images[0]) as image:
            red = (np.asarray(image) == (255, 0, 0)).all(axis=2)
        left, top, right, bottom = (round(edge * 256) for edge in sample.box)
        assert red.sum() == (right - left) * (bottom - top) == red[top:bottom, left:right].sum()


def test_scenes_are_drawn_once_and_again_when_a_picture_changes(things):
    [first, *_] = read("test", things, "box")
    [again, *_] = read("test", things, "box")
    assert again == first
    before = first.images[0].read_bytes()
    picture = things / tuxpaint.STAMPS / f"{first.id}.png"
    with Image.open(picture) as image:
        other_colour = Image.merge("RGBA", [Image.new("L", image.size, 250)] * 3 + [image.getchannel("A")])
    other_colour.save(picture)
    with watching() as opened:
        [changed, *_] = read("test", things, "box")
    assert (changed.id, changed.box) == (first.id, first.box)
    assert changed.images != first.images
    assert changed.images[0].read_bytes() != before
    assert {picture, changed.images[0].parent} <= opened


def test_pictures_that_show_nothing_or_cannot_be_read_are_flaws_and_the_others_are_read(things):
    names = [sample.id for sample in read("train", things, "box")]
    pictures = [(things / tuxpaint.STAMPS / f"{name}.png").resolve() for name in names[:2]]
    Image.new("RGBA", (4, 4)).save(pictures[0])
    pictures[1].write_bytes(pictures[1].read_bytes()[:50])
    transparent, cut_short, *rest = tuxpaint.read("t", "train", things, kind="box")
    assert transparent == Flaw(names[0], str(pictures[0]), "image shows nothing: all of it is transparent")
    assert (cut_short.id, cut_short.path) == (names[1], str(pictures[1]))
    assert cut_short.reason.startswith("image cannot be read (")
    assert [sample.id for sample in rest] == names[2:]


def test_an_unknown_split_or_kind(stamps):
    assert refused("dev", stamps) == "task t: tuxpaint has no split 'dev'; allowed: train, validation, test"
    assert refused("test", stamps, kind="songs") == (
        "task t: tuxpaint has no kind 'songs'; allowed: caption, category, sound, speech, spoken_language, box"
    )
    assert tuxpaint.READER.splits == SPLITS
    assert not tuxpaint.READER.needs_path


def test_a_folder_without_stamps(tmp_path):
    assert refused("train", tmp_path) == f"task t: {tmp_path / tuxpaint.STAMPS} holds no stamps"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "its first line is empty"), (b" \nfr.utf8=Vache", "its first line is empty"), (b"\xff", "can't decode")],
)
def test_a_stamp_without_a_caption_is_a_flaw_and_the_others_are_read(stamps, content, reason):
    source = stamps / tuxpaint.STAMPS / "animals" / "cow.txt"
    source.write_bytes(content)
    rows = everything(stamps, "caption")
    assert set(rows) == {"animals/cow", "symbols/math/7"}
    assert (rows["animals/cow"].path, reason in rows["animals/cow"].reason) == (str(source), True)
    assert isinstance(rows["symbols/math/7"], Sample)


def test_a_picture_that_leads_outside_is_a_flaw(stamps):
    picture = stamps / tuxpaint.STAMPS / "animals" / "cow.png"
    outside = picture.rename(stamps / "cow.png")
    picture.symlink_to(outside)
    flaw = everything(stamps, "caption")["animals/cow"]
    assert (flaw.path, flaw.reason) == (str(picture), "image lies outside the task's folder and its media_roots")


def test_the_captions_and_the_folders_that_hold_them_are_watched(stamps):
    root = stamps / tuxpaint.STAMPS
    with watching() as opened:
        read("train", stamps)
    assert {root, root / "animals", root / "animals/cow.txt", root / "symbols/math/7.txt"} <= opened


def test_data_that_was_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    assert "equipoise data fetch tuxpaint" in refused("train")


@pytest.mark.slow  # reads the real data, where it was fetched
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("caption", (643, 71, 71)),
        ("category", (643, 71, 71)),
        ("box", (643, 71, 71)),
        ("sound", (92, 4, 11)),
        ("speech", (5977, 650, 677)),
        ("spoken_language", (4344, 498, 492)),
    ],
)
def test_the_real_stamps(kind, sizes):
    if not TUXPAINT.folder.is_dir():
        pytest.skip("equipoise data fetch tuxpaint")
    splits = {split: read(split, kind=kind) for split in SPLITS}
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
    elif kind not in ("category", "box"):
        assert not {s.references for s in splits["train"]} & {s.references for s in splits["test"]}
