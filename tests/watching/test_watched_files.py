"""What counts as a change: every file a report reads, and none of those it does not."""

from __future__ import annotations

import os
from pathlib import Path

from equipoise.watching.files import newest, signature
from equipoise.watching.live import WAITING, Live
from report._synthetic_runs import around, log_lines, write_run


def test_files_that_a_report_reads_are_seen_and_checkpoints_are_not(tmp_path):
    run = write_run(tmp_path / "balance" / "nodes" / "final-0000", log_lines({"llm": around(0, 0.1, 5)}))
    for folder in (run.path, tmp_path / "balance"):
        seen = signature([folder])
        assert seen
        for name in ("checkpoints/checkpoint-1/state", "model/weights", ".metrics.jsonl-x", "report.html"):
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).write_text("x", encoding="utf-8")
        assert signature([folder]) == seen
        for name in ("predictions/vqa.jsonl", "scores.json", "metrics.jsonl", "done.json"):
            file = run.path / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{folder}", encoding="utf-8")
            assert signature([folder]) != seen, name
            seen = signature([folder])


def entangle(folder: Path, target: Path) -> None:
    """Links in a circle and to `target`, in every place where one is looked at."""
    for place in (folder, folder / "predictions", folder / "nodes", folder / "nodes" / "mini-00"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "circle").symlink_to("circle")
        (place / "far").symlink_to(target)
    (folder / "nodes" / "mini-00" / "nodes").symlink_to("../../nodes")
    (folder / "nodes" / "mini-00" / "predictions").symlink_to("predictions")


def test_links_in_a_circle_and_out_of_the_folder(tmp_path):
    """os.DirEntry.is_file raises of the one, and would follow the other."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "far.jsonl").touch()
    folder = tmp_path / "balance"
    entangle(folder, tmp_path / "outside")
    (folder / "nodes" / "mini-00" / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    files = [path for path, *_ in signature([folder])]
    assert files == [str(folder), str(folder / "nodes" / "mini-00" / "metrics.jsonl")]
    assert "runs begun are trained" in Live([folder]).snapshot().progress


def test_a_link_into_a_closed_folder(tmp_path, monkeypatch):
    """Root may look into any folder, so what the system says to others is said here."""

    class Closed:
        name = path = "far"

        def is_file(self):
            raise PermissionError(13, "Permission denied")

        def is_dir(self, **_):
            raise PermissionError(13, "Permission denied")

    class Listing(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", lambda folder: Listing([Closed()]))
    for name in ("far", "predictions", "nodes"):
        Closed.name = name
        assert [path for path, *_ in signature([tmp_path])] == [str(tmp_path)]


def test_folders_that_cannot_be_looked_at_are_no_end_of_the_page(tmp_path, monkeypatch, capfd):
    def closed(folders):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("equipoise.watching.live.signature", closed)
    found = Live([tmp_path]).snapshot()
    assert found.state == WAITING
    assert "Permission denied" in found.update
    assert "could not be built" in capfd.readouterr().err


def test_a_folder_that_is_not_there(tmp_path):
    folder = tmp_path / "later"
    assert signature([folder]) == ()
    assert newest(()) is None
    folder.mkdir()
    empty = signature([folder])
    assert empty
    assert newest(empty) is None
    run = write_run(tmp_path / "run", [{"step": 1}])
    found = newest(signature([run.path]))
    assert found is not None
    assert abs(found - run.done_file.stat().st_mtime) < 60
