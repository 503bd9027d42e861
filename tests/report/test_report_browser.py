"""The report in a real browser: drawn, quiet, offline, usable by keyboard, on paper and on a telephone."""

from __future__ import annotations

import base64
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from _synthetic_balance import TASKS, task_lines, write_balance
from _synthetic_runs import answered, around, log_lines, write_run
from PIL import Image

from equipoise.report import build_report, report_on
from equipoise.report.palette import DARK, LIGHT
from equipoise.report.predictions import EACH
from report import _browser
from report._browser import FAINT, Browser

EVIL = "<script>window.evil = 1</script>"
NAMES = (EVIL.replace("/", "∕"), "<img src=x onerror=window.evil=1>", "\"'><b>", "abc\u202egnp.", "x" * 120)
#: The figures in which something is drawn, and how many there are.
DRAWN = """
return [...document.querySelectorAll('.plot')].map(plot => {
  const marks = plot.querySelectorAll('.js-line, .bars .point path, .point, .hm image');
  return marks.length && [...marks].some(mark => mark.getBoundingClientRect().width > 0) &&
    plot.getBoundingClientRect().height > 100 ? '' : plot.id;
});
"""


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


NIGHT = rgb("#15181b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def media(folder):
    """A picture and a second of sound."""
    Image.new("RGB", (64, 48), "red").save(folder / "red.png")
    soundfile.write(folder / "hum.wav", np.sin(np.arange(16_000) / 20) / 4, 16_000)
    return {"images": [str(folder / "red.png"), str(folder / "gone.png")], "audios": [str(folder / "hum.wav")]}


def whole_log():
    """A log with all that a run can log."""
    log = log_lines({"llm": around(0.2, 0.5)}, moving=True)
    by_task = {line["step"]: line for line in task_lines(TASKS, "dwa", kappa=True)}
    return [{**by_task[line["step"]], **line} if "loss" in line else line for line in log]


@pytest.fixture(scope="module")
def one(folder, media):
    """The report of a whole run: the file."""
    answers = [answered(n, (n % 5) / 4, prediction=f"answer {n}", **(media if n == 0 else {})) for n in range(100)]
    predictions = {"vqa": answers, "caption": [answered(n, None) for n in range(3)]}
    run = write_run(folder / "one", whole_log(), "commit", predictions=predictions)
    return build_report([run], folder / "one.html")


@pytest.fixture(scope="module")
def several(folder):
    """The report of three runs."""
    runs = []
    for place, name in enumerate(("constant", "commit", "swings")):
        log = log_lines({"llm": around(place, 0.5)}, moving=place > 0)
        answers = [answered(n, float((n + place) % 3 == 0)) for n in range(4)]
        runs.append(write_run(folder / name, log, name, predictions={"vqa": answers}))
    return build_report(runs, folder / "several.html")


@pytest.fixture(scope="module")
def hostile(folder):
    """The report of two runs in which every name and text is out to harm."""
    log = [{**a, **b} for a, b in zip(task_lines(NAMES, "dwa"), log_lines({NAMES[0]: around(0, 1)}, NAMES[1]))]
    texts = [EVIL, f"</{EVIL[1:]}", "שלום עולם", "\u202eevil", "nul\0", "y" * 1_000_000, "a " * 300, ""]
    lines = [
        answered(
            n, 0.0, id=f"{text[:99]}{n}", prompt=text, prediction=text, references=[text], images=[text], audios=[EVIL]
        )
        for n, text in enumerate(texts)
    ]
    scores = {"split": EVIL, "tasks": {name: {"metric": EVIL, "value": 0.5, "samples": EVIL} for name in NAMES}}
    data = {EVIL: {EVIL: {"samples": 1, "skipped": 1, "flaws": [f"{EVIL}: \u202e{'z' * 1000}"]}}}
    recipe = {"tasks": [{"name": EVIL, "path": "</pre>" + EVIL}], "balance": {"modules": {"schedule": EVIL}}}
    more = {"scores": scores, "data": data, "recipe": recipe, "predictions": {NAMES[1]: lines}}
    names = (NAMES[1], "\u202e'\"")
    runs = [
        write_run(folder / "hostile" / name, log, modules=[{"module": EVIL, "kind": EVIL}], **more) for name in names
    ]
    return build_report(runs, folder / "hostile.html")


@pytest.fixture(scope="module")
def balance(folder):
    return report_on([write_balance(folder / "balance")], folder / "balance.html")


def quiet(browser: Browser) -> None:
    assert browser.console == []
    assert browser.requests == []


@pytest.mark.parametrize(("page", "figures"), [("one", 11), ("several", 7), ("balance", 7), ("hostile", 9)])
def test_a_page_is_drawn_and_can_be_read_by_everyone(browser, request, page, figures):
    browser.open(request.getfixturevalue(page))
    assert browser.ask(DRAWN) == [""] * figures
    assert browser.ask(FAINT) == []
    levels = browser.ask("return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert browser.ask("return [...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    for element in browser.seen("a, button, select, input, audio, summary, [tabindex='0']"):
        assert element.accessible_name, element.get_attribute("outerHTML")

    browser.prefer(dark=True)
    browser.wait("return getComputedStyle(document.querySelector('.main-svg')).backgroundColor === arguments[0]", NIGHT)
    assert browser.ask(FAINT) == []

    browser.resize(400)
    browser.wait("return document.querySelector('.plot .main-svg').getBoundingClientRect().width < 700")
    assert browser.ask("return document.documentElement.scrollWidth") == 400
    assert all(plot.rect["width"] > 300 for plot in browser.all(".plot"))
    quiet(browser)


def test_the_lines_follow_the_readers_colours(browser, several):
    stroke = "getComputedStyle(document.querySelector('#drift .js-line')).stroke"
    browser.open(several, dark=True)
    assert browser.ask(f"return {stroke}") == rgb(DARK[0])
    browser.prefer(dark=False)
    browser.wait(f"return {stroke} === arguments[0]", rgb(LIGHT[0]))
    quiet(browser)


def test_a_run_is_switched_off_everywhere(browser, several):
    lines = "return [...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.js-line').length)"
    browser.open(several)
    before = browser.ask(lines)
    box = browser.all(".legend input")[1]
    box.send_keys(" ")
    browser.wait(f"return (() => {{ {lines} }})()[0] < arguments[0]", before[0])
    assert [3 * left for left in browser.ask(lines)] == [2 * all for all in before]
    assert browser.seen('[data-run="0"]')
    assert not browser.seen('[data-run="1"]')
    box.send_keys(" ")
    browser.wait(f"return (() => {{ {lines} }})()[0] === arguments[0]", before[0])
    assert browser.seen('[data-run="1"]')


def cards(browser: Browser, task: int = 1) -> list[str]:
    script = "return arguments[0].map(card => card.textContent)"
    return browser.ask(script, browser.seen(f'.task[data-task="{task}"] h4'))


def test_predictions_are_browsed_by_keyboard(browser, one):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    browser.open(one)
    browser.ask("document.querySelector('.media').scrollIntoView()")  # pictures wait to be seen
    browser.wait("return document.querySelector('.media img').naturalWidth === 64")
    assert browser.all(".media img")[0].accessible_name == "Picture 1 of question q0"
    assert "gone.png is not shown: it cannot be read" in browser.all(".media")[0].text
    browser.ask("const clip = document.querySelector('audio'); clip.preload = 'auto'; clip.load()")
    assert browser.wait("return document.querySelector('audio').duration") == pytest.approx(1, abs=0.2)

    assert cards(browser) == ["q0", "q5", "q10", "q15", "q20", "q25"]
    assert f"{EACH} of 100 questions" in browser.all('.task[data-task="1"]')[0].text
    assert browser.all(".controls output")[0].text == f"9 of {EACH + 3} shown"
    browser.all('[data-order="best"]')[0].send_keys(Keys.ENTER)
    assert cards(browser) == ["q4", "q9", "q14", "q19", "q24", "q29"]
    assert [button.get_attribute("aria-pressed") for button in browser.all("[data-order]")] == ["false", "true"]
    more = browser.seen(".more")
    assert [button.text for button in more] == [f"Show 12 more of {EACH - 6}"]
    more[0].send_keys(Keys.ENTER)
    assert len(cards(browser)) == 18
    assert browser.ask("return document.activeElement.querySelector('h4').textContent") == cards(browser)[6]
    find = browser.all(".controls input")[0]
    find.send_keys("ANSWER 14")
    assert cards(browser) == ["q14"]
    find.send_keys("x")
    assert browser.all(".controls output")[0].text == "nothing found"
    find.clear()
    Select(browser.all(".controls select")[0]).select_by_visible_text("caption")
    assert cards(browser) == []
    assert cards(browser, 0) == ["q0", "q1", "q2"]
    quiet(browser)


def test_hostile_texts_are_shown_and_do_nothing(browser, hostile):
    browser.open(hostile)
    for button in browser.seen(".more"):
        button.click()
    assert browser.ask("return window.evil") is None
    shown = browser.all("main")[0].text
    for text in (EVIL, NAMES[1], "שלום עולם", "\\u202eevil", "nul\\x00", "(1,000,000 characters in all)", "(empty)"):
        assert text in shown
    assert "\u202e" not in browser.ask("return document.documentElement.textContent")
    assert browser.ask("return document.querySelectorAll('main script, main img').length") == 0
    assert hostile.stat().st_size < 5_500_000
    direction = (
        "return [...document.querySelectorAll('dd')].find(e => e.textContent.includes('שלום')).matches(':dir(rtl)')"
    )
    assert browser.ask(direction)
    quiet(browser)


def test_paper(browser, one):
    browser.open(one, dark=True)
    width = "return document.querySelector('#kappa .main-svg').getBoundingClientRect().width"
    before = browser.ask(width)
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(pdf))) > 3
    browser.wait(f"{width} === arguments[0]", before)
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    browser.wait(f"{width} === 680")
    assert browser.ask(FAINT) == []
    browser.ask("dispatchEvent(new Event('afterprint'))")
    browser.wait(f"{width} === arguments[0]", before)


def unevaluated(run):
    run.scores_file.unlink()


def killed(run):
    for file in (run.done_file, run.scores_file, run.timings_file):
        file.unlink()
    whole = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(whole[: len(whole) // 2])


def after_one_step(run):
    run.metrics_file.write_bytes(run.metrics_file.read_bytes().partition(b"\n")[0] + b"\n")


def before_any_step(run):
    run.metrics_file.write_bytes(b"")


def empty(run):
    for file in run.path.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("happens", "figures", "said"),
    [
        (unevaluated, 11, "not evaluated (scores.json)"),
        (killed, 11, "training has not finished"),
        (after_one_step, 9, "this run has 1 so far"),
        (before_any_step, 0, "no step was logged"),
        (empty, 0, "no recipe.yaml"),
    ],
)
def test_a_run_with_missing_pieces(browser, tmp_path, happens, figures, said):
    run = write_run(tmp_path / "run", whole_log())
    happens(run)
    browser.open(build_report([run], tmp_path / "report.html"))
    assert said in browser.all("main")[0].text
    assert browser.ask(DRAWN) == [""] * figures
    quiet(browser)


def test_a_spike_among_100_000_steps_is_drawn(browser, tmp_path):
    run = write_run(tmp_path / "run", [])
    losses = [99.0 if step == 70_001 else 1.0 for step in range(100_000)]
    run.metrics_file.write_text("".join(f'{{"step": {n}, "loss": {loss}}}\n' for n, loss in enumerate(losses)))
    page = build_report([run], tmp_path / "report.html")
    browser.open(page)
    # The highest point of the line of single steps, in pixels from the panel's top, and where 99 and 1 are.
    top, high, low = browser.ask(
        """const plot = document.getElementById('loss'), axis = plot._fullLayout.yaxis;
        const path = plot.querySelector('.js-line').getAttribute('d');
        const heights = path.match(/-?[\\d.]+/g).map(Number).filter((_, i) => i % 2);
        return [Math.min(...heights), axis.l2p(99), axis.l2p(1)];"""
    )
    assert high < low - 50
    assert top == pytest.approx(high, abs=1)
    assert page.stat().st_size < 5_200_000
    quiet(browser)


@pytest.fixture
def elsewhere():
    """A server that gives nothing, and the paths that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def test_the_page_refuses_what_would_leave_it(browser, several, tmp_path, elsewhere):
    """The policy holds even if a mistake of ours let an address through; without it the picture is asked for."""
    url, asked = elsewhere
    text = several.read_text(encoding="utf-8").replace("<main>", f'<main><img src="{url}/leaked.png">')
    for name, content in (("leaky", text), ("open", POLICY.sub("", text, count=1))):
        page = tmp_path / f"{name}.html"
        page.write_text(content, encoding="utf-8")
        browser.open(page)
        if name == "leaky":
            assert any("Content Security Policy" in line for line in browser.console)
            assert asked == []
    assert asked == ["/leaked.png"]


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail.Exception), ("0", pytest.skip.Exception)])
def test_where_there_is_no_browser(monkeypatch, required, outcome):
    monkeypatch.setattr(_browser.shutil, "which", lambda program: None)
    monkeypatch.setenv(_browser.REQUIRE, required)
    with pytest.raises(outcome, match=r"chromium, chromedriver not found \(apt-get install"):
        next(_browser.start())
