"""Which files a report may hold: a run directory may be a stranger's, and a report is made to be sent on."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from _html_page import Page
from _synthetic_runs import answered, around, log_lines, write_run
from PIL import Image, ImageDraw

from equipoise.data.images import load_image
from equipoise.report import build_report, inlined
from equipoise.report.allowed import allowed_file, media_roots
from equipoise.report.inlined import HIDDEN, Inliner


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a private picture, a folder of data and the cache in it."""
    for name in ("home/data/pictures", "home/cache/data", "home/private", "home/runs"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "home/cache"))
    for name in ("private/mine.png", "data/pictures/a.png", "cache/data/b.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "home" / name)
    return tmp_path / "home"


def shown(home, path, images, **task):
    """Names of the pictures that the page shows, and its text."""
    recipe = {"tasks": [{"name": "vqa", "reader": "jsonl", "path": path, **task}], "train": {}}
    lines = [answered(n, 0.0, images=[str(image)]) for n, image in enumerate(images)]
    one = write_run(
        home / "runs/mine", log_lines({"llm": around(0, 0.3, 8)}), recipe=recipe, predictions={"vqa": lines}
    )
    Image.new("RGB", (8, 8)).save(one.path / "own.png")
    page = Page(build_report([one], home / "report.html").read_text(encoding="utf-8"))
    return [image["title"] for image in page.all("img")], page.text


def test_the_recipe_s_folders_the_cache_and_the_run_s_own_are_shown_and_nothing_else(home):
    (home / "data/link.png").symlink_to(home / "private/mine.png")
    private = [home / "private/mine.png", home / "data/../private/mine.png", home / "data/link.png"]
    images = [home / "data/pictures/a.png", home / "cache/data/b.png", home / "runs/mine/own.png", *private]
    names, text = shown(home, str(home / "data"), images)
    assert names == ["a.png", "b.png", "own.png"]
    assert text.count(HIDDEN) == 3
    assert "Pictures and clips that are not shown: 3." in text


def test_a_stranger_s_recipe_does_not_open_the_home_folder(home):
    for number, path in enumerate(("/", str(home), str(home.parent), str(home / "data/.."), f"{home}/x/..")):
        roots = media_roots({"tasks": [{"path": path}]}, home / "runs")
        assert roots == [home / "cache", home / "runs"], number
    assert media_roots({"tasks": [{"path": str(home / "data")}]}, home)[-1] == home / "data"
    assert home not in media_roots(None, home)


def test_paths_count_from_the_working_directory_and_options_are_folders_too(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "data/rows.json").write_text("[]")
    Image.new("RGB", (8, 8)).save(home / "data/c.png")
    names, _ = shown(home, "data/rows.json", ["data/c.png", "private/mine.png"])
    assert names == ["c.png"]
    settings = {"tasks": [{"path": None, "options": {"image_folder": "private", "kind": "data"}}]}
    assert media_roots(settings, home / "runs")[2:] == [home / "private"]


def test_each_run_opens_its_own_folders_alone(home):
    one, two = (
        write_run(
            home / f"runs/{name}",
            log_lines({"llm": around(0, 0.3, 8)}),
            recipe={"tasks": [{"name": "vqa", "path": str(home / folder)}]},
            predictions={name: [answered(0, images=[str(home / "private/mine.png")])]},
        )
        for name, folder in (("x", "data"), ("y", "private"))
    )
    page = Page(build_report([one, two], home / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 1
    assert page.text.count(HIDDEN) == 1


@pytest.mark.parametrize("settings", [None, [], "x", {"tasks": 3}, {"tasks": [[], {"path": 3, "options": [1]}]}])
def test_a_recipe_that_is_none_names_no_folder(home, settings):
    assert media_roots(settings, home / "runs") == [home / "cache", home / "runs"]


def test_refused_absent_and_unreadable_look_alike(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (8, 8)).save(outside / "a.png")
    inliner = Inliner()
    said = {inliner.picture(str(folder / "a.png"), "", [inside]) for folder in (inside, outside, tmp_path / "none")}
    assert said == {f'<p class="missing">a.png {HIDDEN}</p>'.replace("'", "&#x27;")}
    assert (inliner.hidden, inliner.left_out) == (3, 0)


def test_what_is_no_plain_file_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("pipe.png", "loop.png", "gone.png", "a\0b.png", "x" * 5_000, "."):  # the first would wait for ever
        assert allowed_file(str(tmp_path / name), [tmp_path]) is None


def test_pillow_s_other_formats_are_not_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.ppm")
    for name in ("a.eps", "a.ppm"):
        assert HIDDEN in unescaped(Inliner().picture(str(tmp_path / name), "", [tmp_path]))
    for name in ("a.png", "a.jpg", "a.gif", "a.bmp", "a.tiff", "a.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        assert "<img" in Inliner().picture(str(tmp_path / name), "", [tmp_path])


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    image = Image.new("L", (100, 50))
    ImageDraw.Draw(image).point((3, 3), 255)
    image.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", largest=5_000).size == (100, 50)
    with pytest.raises(ValueError, match="5,000 pixels; allowed are 4,999"):
        load_image(tmp_path / "a.png", largest=4_999)
    monkeypatch.setattr(inlined, "PIXELS", 4_999)
    assert "<img" not in Inliner().picture(str(tmp_path / "a.png"), "", [tmp_path])


def test_a_clip_of_too_many_samples_is_not_decoded(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros((1_000, 2)), 16_000)
    monkeypatch.setattr(inlined, "SAMPLES", 2_000)
    assert "<audio" in Inliner().clip(str(tmp_path / "a.wav"), "", [tmp_path])
    monkeypatch.setattr(inlined, "SAMPLES", 1_999)
    inlined._decoded.cache_clear()
    assert "<audio" not in Inliner().clip(str(tmp_path / "a.wav"), "", [Path(tmp_path)])


def unescaped(element: str) -> str:
    return element.replace("&#x27;", "'")
