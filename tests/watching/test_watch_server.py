"""The served report over HTTP: what it shows while a run is written, what an unchanged one costs, what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
from _served import ask, served, update

from equipoise.errors import RunError
from equipoise.training.run_directory import RunDirectory
from equipoise.watching import live as live_module
from equipoise.watching.live import FINISHED, RUNNING, WAITING, Live
from equipoise.watching.server import WatchServer, check_folders
from report._html_page import Page
from report._synthetic_runs import around, log_lines, write_run

LOG = log_lines({"llm": around(2.2, 0.4)})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return write_run(tmp_path / "bias", LOG)


def append(run: RunDirectory, text: str) -> None:
    run.path.mkdir(exist_ok=True)
    with run.metrics_file.open("a", encoding="utf-8") as log:
        log.write(text)


def test_a_run_is_watched_from_before_its_beginning_to_its_end(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with served([run.path]) as server:
        found = update(server)
        assert (found["state"], found["charts"]) == (WAITING, [])
        assert "does not exist yet" in found["main"]
        run.path.mkdir()
        assert "has no metrics.jsonl yet" in update(server)["main"]
        run.recipe_file.write_text("model: {path: x}\n", encoding="utf-8")
        assert "no step is written yet" in update(server)["main"]

        whole, half = json.dumps(LOG[0]) + "\n", json.dumps(LOG[1])
        append(run, whole + half[:40])
        found = update(server)
        assert (found["state"], found["progress"]) == (RUNNING, "step 1")
        kappa = next(chart for chart in found["charts"] if chart["id"] == "kappa")
        assert kappa["data"][0]["x"] == [1]
        append(run, half[40:] + "\n")
        assert update(server)["progress"] == "step 2"

        append(run, "".join(json.dumps(line) + "\n" for line in LOG[2:]))
        found = update(server)
        assert "Biased toward the LLM" in found["main"]
        assert found["state"] == RUNNING
        run.done_file.write_text("{}", encoding="utf-8")
        assert update(server)["state"] == FINISHED


def test_an_unchanged_run_is_neither_read_nor_sent_again(run, monkeypatch):
    built = []
    build = live_module.build
    monkeypatch.setattr(live_module, "build", lambda *given: built.append(1) or build(*given))
    with served([run.path]) as server:
        status, headers, body = ask(server, "/update")
        tag = headers["ETag"]
        assert (status, tag) == (200, f'"{json.loads(body)["etag"]}"')
        for _ in range(3):
            status, headers, body = ask(server, "/update", If_None_Match=tag)
            assert (status, body, headers["ETag"]) == (304, "", tag)
            assert float(headers["X-Age"]) >= 0
        assert len(built) == 1
        run.metrics_file.touch()  # looked at again, found equal
        assert ask(server, "/update", If_None_Match=tag)[0] == 304
        assert len(built) == 2
        append(run, json.dumps({"step": 61, "loss": 0.4}) + "\n")
        assert ask(server, "/update", If_None_Match=tag)[0] == 200
        run.report_file.write_text("drawn meanwhile", encoding="utf-8")
        update(server)
        assert len(built) == 3


def test_a_slow_report_is_built_seldom(run, monkeypatch):
    """Ten times as long as it took is waited at least, and the pause in any case."""
    clock = [100.0]
    monkeypatch.setattr(live_module.time, "monotonic", lambda: clock[0])
    build = live_module.build

    def slow(*given):
        clock[0] += 3.0
        return build(*given)

    monkeypatch.setattr(live_module, "build", slow)
    live = Live([run.path], pause=2.0)
    first = live.snapshot().etag
    for elapsed, anew in ((29.0, False), (1.5, True)):
        append(run, json.dumps({"step": 62, "loss": 0.1 * elapsed}) + "\n")
        clock[0] += elapsed
        assert (live.snapshot().etag != first) is anew
    monkeypatch.setattr(live_module, "build", build)
    live = Live([run.path], pause=2.0)
    first = live.snapshot().etag
    for elapsed, anew in ((1.9, False), (0.2, True)):
        append(run, json.dumps({"step": 63, "loss": elapsed}) + "\n")
        clock[0] += elapsed
        assert (live.snapshot().etag != first) is anew


def test_the_page_is_the_report_with_one_more_source(run):
    with served([run.path]) as server:
        status, headers, body = ask(server)
        assert status == 200
        page = Page(body)
        assert "Biased toward the LLM" in page.text
        assert {chart["id"] for chart in page.charts} >= {"kappa", "drift", "loss"}
        (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
        header = headers["Content-Security-Policy"]
        for found in (policy, header):
            assert re.search(r"(^|; )connect-src 'self'(;|$)", found or "")
            assert (found or "").startswith("default-src 'none'")
        assert header == f"{policy}; frame-ancestors 'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        begun = json.loads(next(text for text in page.scripts if '"etag"' in text[:20]))
        assert begun["etag"] == update(server)["etag"]
    report = run.report_file
    from equipoise.report import build_report

    build_report([run], report)
    assert "connect-src" not in report.read_text(encoding="utf-8")


def test_several_runs_keep_their_places_while_one_is_not_there_yet(tmp_path, run):
    late = tmp_path / "late"
    with served([late, run.path]) as server:
        found = update(server)
        boxes = [box["value"] for box in Page(found["main"]).all("input")]
        assert boxes == ["0", "1"]
        assert found["state"] == RUNNING
        assert "late: no step yet" in found["progress"]
        write_run(late, LOG)
        assert update(server)["state"] == FINISHED


def test_a_balance_is_served(tmp_path):
    folder = tmp_path / "balance"
    write_run(folder / "nodes" / "final-0000", LOG)
    with served([folder]) as server:
        found = update(server)
        assert (found["heading"], found["state"]) == ("Task balance", RUNNING)
        assert "1 of 1 runs begun are trained" in found["progress"]
        (folder / "results.json").write_text("{}", encoding="utf-8")
        assert update(server)["state"] == FINISHED
        (folder / "nodes" / "final-0000" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n', encoding="utf-8")
        assert update(server)["etag"] != found["etag"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.7", "[::2]", ""]
)
def test_other_hosts_are_refused(run, host):
    """A page elsewhere whose name points here (DNS rebinding) sends its own name."""
    with served([run.path]) as server:
        for path in ("/", "/update"):
            status, _, body = ask(server, path, Host=host)
            assert status == 403
            assert "kappa" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8765"])
def test_this_machine_is_answered_through_any_port(run, host):
    with served([run.path]) as server:
        assert ask(server, "/update", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("host", "named", "status"),
    [
        ("0.0.0.0", "box.lan", 403), ("0.0.0.0", "box", 200), ("0.0.0.0", "10.0.0.7:1", 200),
        ("0.0.0.0", "localhost", 200), ("127.0.0.1", "box", 403),
    ],
)  # fmt: skip
def test_an_open_address_answers_to_numbers_and_the_bare_name(run, monkeypatch, host, named, status):
    monkeypatch.setattr("equipoise.watching.server.socket.gethostname", lambda: "Box")
    with served([run.path], host) as server:
        assert ask(server, "/update", Host=named)[0] == status


def test_a_name_that_is_listened_at_is_answered(monkeypatch):
    monkeypatch.setattr("equipoise.watching.server.ThreadingHTTPServer.__init__", lambda *_: None)  # no such address
    server = WatchServer(Live([]), "box.lan", 0)
    assert server.answers_to("Box.lan:80")
    assert not server.answers_to("other.lan")


def test_no_file_is_served(run):
    secret = run.path / "environment.json"
    secret.write_text('{"secret": 1}', encoding="utf-8")
    with served([run.path]) as server:
        for path in (
            "/metrics.jsonl", "/environment.json", str(secret), "/../bias/recipe.yaml", "/%2e%2e/bias/recipe.yaml",
            "//etc/passwd", "/update/", "/favicon.ico",
        ):  # fmt: skip
            status, _, body = ask(server, path)
            assert (status, body) == (404, "there is nothing here but /\n"), path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_get_alone_is_answered(run, method):
    with served([run.path]) as server:
        status, headers, _ = ask(server, "/update", method=method)
        assert (status, headers["Allow"]) == (405, "GET")


def test_hostile_names_are_text(tmp_path):
    evil = "<script>alert(1)<:script>‮"
    log = [{"step": 1, f"kappa/{evil}": 2.0, "drift/a": 1.0, f"drift/{evil}": 2.0, f"task_loss/{evil}": 1.0}]
    run = write_run(tmp_path / evil, log, scores={"tasks": {evil: {"metric": evil, "value": 1}}})
    with served([run.path]) as server:
        page = Page(ask(server)[2])
        assert [attributes.get("id") for attributes in page.all("script")] == ["charts", "update", None, None, None]
        assert evil[:-1] in page.text
        assert "‮" not in page.text
        assert "<script" not in page.scripts[1]
        assert not [words for words in ("title", "heading", "subtitle") if "‮" in update(server)[words]]
        found = Page(update(server)["main"])
        assert not found.all("script")
    with served([tmp_path / "not <b>here</b>"]) as server:
        assert not Page(update(server)["main"]).all("b")


def test_what_cannot_be_read_keeps_the_last_page_and_says_it_once(run, monkeypatch, capfd):
    with served([run.path]) as server:
        before = update(server)

        def broken(*_):
            raise RuntimeError("half a copy \x1b[2J")

        build = live_module.build
        monkeypatch.setattr(live_module, "build", broken)
        for _ in range(2):
            append(run, "\n")
            assert update(server) == before
        errors = capfd.readouterr().err
        assert errors.count("could not be built (RuntimeError: half a copy") == 1
        assert "\x1b" not in errors
        monkeypatch.setattr(live_module, "build", build)
        shutil.rmtree(run.path)
        assert "does not exist yet" in update(server)["main"]


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"^port {port} of 127\.0\.0\.1 is in use; --port names another"):
            WatchServer(Live([]), port=port)


def test_an_address_of_another_machine_is_refused_in_one_line():
    with pytest.raises(RunError, match=r"port 0 of 192\.0\.2\.1 cannot be used \("):
        WatchServer(Live([]), "192.0.2.1", 0)


def test_what_cannot_be_watched(tmp_path, run):
    with pytest.raises(RunError, match="is a file; allowed are run directories"):
        check_folders([run.recipe_file])
    (tmp_path / "balance" / "nodes").mkdir(parents=True)
    with pytest.raises(RunError, match="is a balance and has a page of its own; found 2 folders"):
        check_folders([run.path, tmp_path / "balance"])
    check_folders([tmp_path / "not there yet", run.path])
