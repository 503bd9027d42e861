"""The served page in a real Chromium: it updates itself, and what the reader did stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _served import served

from equipoise.training.run_directory import RunDirectory
from report._browser import Browser
from report._synthetic_runs import around, log_lines, write_run


@pytest.fixture
def chromium(browser: Browser) -> Iterator[Any]:
    """The session's browser, on an empty page, without messages of the one before; left so, for a page asks on."""
    browser.resize(1000)
    browser.prefer(dark=False)
    browser.driver.get("about:blank")
    browser.driver.get_log("browser")
    yield browser.driver
    browser.driver.get("about:blank")


def until(browser: Any, script: str, seconds: float = 90) -> Any:
    """What a script returns, once that is true."""
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(script)):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.1)
    return found


def begin(path: Path, centre: float) -> tuple[RunDirectory, Callable[[int], None]]:
    """A run without its end, and what writes a number of further steps of it."""
    lines = log_lines({"llm": around(centre, 0.3, 80)})
    run = write_run(path, lines[:8])
    run.done_file.unlink()
    left = iter(lines[8:])

    def write(count: int) -> None:
        with run.metrics_file.open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(line) + "\n" for _, line in zip(range(count), left, strict=False))

    return run, write


DRAWN = "return document.querySelectorAll('#kappa .main-svg').length > 0"
POINTS = "return Math.max(...document.getElementById('kappa').data.map(trace => trace.x.length))"


def test_the_page_updates_itself_and_leaves_the_reader_alone(chromium, tmp_path):
    runs, writers = zip(*(begin(tmp_path / name, centre) for name, centre in (("one", 2.5), ("two", 0.0))), strict=True)
    with served([run.path for run in runs]) as server:
        chromium.get(server.url)
        until(chromium, DRAWN)
        assert chromium.execute_script(POINTS) == 8
        chromium.execute_script("""
          document.querySelectorAll('.legend input')[1].click();
          document.querySelector('#settings').parentElement.querySelector('details').open = true;
          window.same = document.getElementById('kappa');
          window.loaded = true;
          Plotly.relayout('loss', {'xaxis.range[0]': 2, 'xaxis.range[1]': 5});
          Plotly.relayout('drift', {'yaxis.range[0]': -6, 'yaxis.range[1]': -5});
          scrollTo(0, 1500);
        """)
        for writer in writers:
            writer(40)
        chromium.execute_script("document.dispatchEvent(new Event('visibilitychange'))")  # asks at once
        until(chromium, POINTS.replace("return", "return 40 <="))
        found = chromium.execute_script("""
          const kappa = document.getElementById('kappa');
          return {
            hidden: kappa.data.map(trace => [trace.meta.run, trace.visible]),
            boxes: [...document.querySelectorAll('.legend input')].map(box => box.checked),
            open: document.querySelector('#settings').parentElement.querySelector('details').open,
            same: kappa === window.same, loaded: window.loaded, scroll: scrollY,
            x: document.getElementById('loss').layout.xaxis.range,
            y: document.getElementById('drift').layout.yaxis.range,
            state: document.querySelector('#live b').textContent,
            verdict: document.querySelector('.verdicts').textContent,
          };""")
        assert {(run, visible) for run, visible in found["hidden"]} == {(0, True), (1, False)}
        assert found["boxes"] == [True, False]
        assert found["open"]
        assert found["same"]
        assert found["loaded"]
        assert found["scroll"] == 1500
        assert found["x"] == [2, 5]
        assert found["y"] == [-6, -5]
        assert found["state"] == "Live"
        assert "Biased toward the LLM" in found["verdict"]

        chromium.execute_script("document.querySelectorAll('.legend input')[1].click()")
        assert chromium.execute_script("return document.getElementById('kappa').data.every(trace => trace.visible)")
        for run, writer in zip(runs, writers, strict=True):
            writer(100)
            run.done_file.write_text("{}", encoding="utf-8")
        chromium.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
        until(chromium, "return document.querySelector('#live b').textContent === 'Finished'")
        assert "one: step 80; two: step 80" in chromium.execute_script(
            "return document.querySelector('#live').textContent"
        )
        refused = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        assert refused == []


def test_a_run_that_does_not_exist_becomes_a_report_without_a_reload(chromium, tmp_path):
    folder = tmp_path / "later"
    with served([folder]) as server:
        chromium.get(server.url)
        until(chromium, "return document.querySelector('#live b').textContent === 'Waiting'")
        chromium.execute_script("window.loaded = true")
        write_run(folder, log_lines({"llm": around(2.5, 0.3, 20)}))
        until(chromium, DRAWN)
        found = chromium.execute_script("return [window.loaded, document.querySelector('#live b').textContent]")
        assert found == [True, "Finished"]
        assert chromium.get_log("browser") == []
    chromium.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
    until(chromium, "return document.querySelector('#live b').textContent === 'No longer live'")


def predict(run: RunDirectory, count: int) -> None:
    rows = [
        {"id": f"q{i}", "prompt": f"how many {i}?", "prediction": str(i), "references": ["1"], "score": float(i == 1)}
        for i in range(count)
    ]
    run.predictions.mkdir(exist_ok=True)
    (run.predictions / "vqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_predictions_that_arrive_can_be_searched_and_the_search_stays(chromium, tmp_path):
    run = write_run(tmp_path / "run", log_lines({"llm": around(0.0, 0.3, 20)}))
    shown = "return [...document.querySelectorAll('.cards > li')].filter(card => !card.hidden).length"
    news = "document.dispatchEvent(new Event('visibilitychange'))"
    with served([run.path]) as server:
        chromium.get(server.url)
        until(chromium, DRAWN)
        assert chromium.execute_script(shown) == 0
        predict(run, 4)
        chromium.execute_script(news)
        until(chromium, shown)
        assert chromium.execute_script(shown) == 4
        chromium.execute_script("""
          const find = document.querySelector('.controls input');
          find.focus();
          find.value = 'many 1';
          find.dispatchEvent(new Event('input'));
          document.querySelector('[data-order=best]').click();
        """)
        assert chromium.execute_script(shown) == 1
        predict(run, 12)
        chromium.execute_script(news)
        until(chromium, shown + " === 3")  # 1, 10 and 11
        found = chromium.execute_script("""return [
          document.querySelector('.controls input').value,
          document.querySelector('[data-order=best]').getAttribute('aria-pressed'),
          document.querySelector('.cards > li:not([hidden]) h4').textContent,
          document.activeElement === document.querySelector('.controls input')];""")
        assert found == ["many 1", "true", "q1", True]
        assert chromium.get_log("browser") == []
