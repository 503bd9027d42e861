"""What counts as a change: every file a report reads, and none of those it does not."""

from __future__ import annotations

from equipoise.watching.files import newest, signature
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
