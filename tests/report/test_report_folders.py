"""What a report can be of, and the line that anything else gets."""

import sys

import pytest
from _synthetic_balance import write_balance
from _synthetic_runs import answered, around, log_lines, write_run
from PIL import Image

from equipoise import cli
from equipoise.errors import RunError
from equipoise.report import report_on


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", log_lines({"llm": around(0, 0.3)})).path


@pytest.fixture
def balance(tmp_path):
    return write_balance(tmp_path / "balance", compare=())


def test_runs_and_a_balance_each_have_their_page(run, balance, tmp_path):
    assert report_on([run]) == run / "report.html"
    assert report_on([balance]) == balance / "report.html"
    assert "Task balance" in (balance / "report.html").read_text(encoding="utf-8")
    assert report_on([balance], tmp_path / "new" / "x.html") == tmp_path / "new" / "x.html"
    assert "Task balance" not in report_on([run, run], tmp_path / "two.html").read_text(encoding="utf-8")


def test_a_node_of_a_balance_is_a_run(balance):
    (node,) = (balance / "nodes").glob("cotbal-*")
    assert report_on([node]) == node / "report.html"


def test_a_balance_stands_alone(run, balance):
    for folders in ([run, balance], [balance, run], [balance, balance]):
        with pytest.raises(RunError, match=r"is a balance .* allowed are run directories, or one folder"):
            report_on(folders)
    assert not (balance / "report.html").exists()


def test_neither(tmp_path, run):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            RunError, match=r"has no recipe\.yaml, no metrics\.jsonl, no balance\.json and no nodes; allowed are"
        ):
            report_on([run, folder])
    with pytest.raises(RunError, match="no run"):
        report_on([])


def test_the_command(balance, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["equipoise", "report", str(balance), "--out", str(tmp_path / "r.html")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert "r.html" in capsys.readouterr().out.replace("\n", "")
    monkeypatch.setattr(sys, "argv", ["equipoise", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_leaves_pictures_out_where_it_is_told(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    asked = [answered(0, images=[str(tmp_path / "a.png")])]
    one = write_run(tmp_path / "run", log_lines({"llm": around(0, 0.3)}), predictions={"vqa": asked})
    for options, pictures in (([], 1), (["--no-media"], 0)):
        monkeypatch.setattr(sys, "argv", ["equipoise", "report", str(one.path), *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
        assert one.report_file.read_text(encoding="utf-8").count('alt="Picture ') == pictures
