"""Run directories, balances and comparisons of somebody else, given to `report`, `diagnose` and `compare`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from equipoise.comparing.tables import all_tables
from equipoise.comparing.verdict import caveat, verdicts
from equipoise.comparing.writing import comma_separated, latex, markdown
from equipoise.console import PlainConsole
from equipoise.report import print_summary
from equipoise.report.comparison.view import view_comparison
from equipoise.report.diagnosis import diagnose_folder
from equipoise.report.folders import page_on
from equipoise.report.skeleton import Page
from equipoise.training.run_directory import RunDirectory
from equipoise.watching.terminal import print_diagnosis
from fuzz._mutations import ESCAPE, HOSTILE, MARKUP, as_json, spoiled, spoiled_bytes
from fuzz._surface import Cases

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # its modules find each other so

from _synthetic_balance import write_balance
from _synthetic_comparison import write_comparison
from _synthetic_runs import answered, around, log_lines, write_run

NAME = f"[red]{MARKUP.replace('/', '')}:smile:{{0}}"
STEPS = 6


def shown(page: Page) -> None:
    """Check that a page shows what it read as text."""
    everything = page.body() + page.charts() + page.title
    assert MARKUP not in page.body(), "markup of the data's is in the page"
    assert "</script" not in page.charts(), "the data's script ends the page's"
    assert "\x1b" not in everything, "an escape sequence is in the page"
    everything.encode()


def on_screen(say: Callable[[PlainConsole], None]) -> str:
    """What a command prints, on a terminal with colours."""
    file = io.StringIO()
    say(PlainConsole(file=file, force_terminal=True, color_system=None, width=200))
    text = file.getvalue()
    assert ESCAPE not in text, "an escape sequence is printed"
    assert "\x1b]" not in text, "an escape sequence is printed"
    return text


def _formulas(table: str) -> None:
    for line in table.splitlines()[1:]:
        for cell in line.split(","):
            number = cell.strip('"').replace("e", "").replace("-", "").replace("+", "").replace(".", "").isdigit()
            assert number or not cell.strip('"').startswith(("=", "+", "-", "@")), f"a formula: {cell}"


def _spoiling(root: Path, files: dict[str, Any], check: Callable[[], None]) -> Cases:
    """Cases that put something else in the place of one or two files, and what they are checked by."""
    kept = {name: (root / name).read_bytes() for name in files}

    def content(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        template = files[name]
        if template is None:
            made = spoiled_bytes(kept[name])
        elif name.endswith("jsonl"):
            made = st.lists(spoiled(template).map(as_json), min_size=1, max_size=3).map(
                lambda lines: b"\n".join([*lines, kept[name]])
            )
        else:
            made = spoiled(template).map(as_json)
        return st.tuples(st.just(name), made)

    def changed(case: list[tuple[str, bytes]]) -> None:
        try:
            for name, made in case:
                (root / name).write_bytes(made)
            check()
        finally:
            for name in files:
                (root / name).write_bytes(kept[name])

    return st.lists(st.sampled_from(sorted(files)).flatmap(content), min_size=1, max_size=2), changed


def _plain(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def runs(folder: Path) -> Cases:
    lines = log_lines({"llm": around(0.3, 0.4, STEPS)}, moving=True)
    for line in lines:
        line |= {"task_loss/vqa": 1.0, "task_tokens/vqa": 4, "task_weight/vqa": 1.0}
    answers = [answered(number, 0.5, images=["../x.png"]) for number in range(3)]
    run = write_run(folder / NAME, lines, predictions={"vqa": answers}).path
    (run / "environment.json").write_text('{"torch": "2", "device": "cpu"}', encoding="utf-8")
    files = {
        "metrics.jsonl": lines[1], "timings.jsonl": {"step": 1, "step_seconds": 1.5, "balance_seconds": 0.5},
        "scores.json": _plain(run / "scores.json"), "data.json": _plain(run / "data.json"),
        "modules.json": _plain(run / "modules.json"), "environment.json": _plain(run / "environment.json"),
        "predictions/vqa.jsonl": answers[0], "recipe.yaml": None, "done.json": None,
    }  # fmt: skip

    def check() -> None:
        shown(page_on([run]))
        on_screen(lambda console: print_summary([RunDirectory(run)], console))
        json.dumps(diagnose_folder(run).as_dict(), allow_nan=False)
        on_screen(lambda console: print_diagnosis(run, console))

    return _spoiling(run, files, check)


def balances(folder: Path) -> Cases:
    root = write_balance(folder / NAME, ("vqa", "caption"), compare=("stl", "ew", "dwa"))
    files = {
        name: _plain(root / name) for name in ("balance.json", "results.json", "costs.json") if (root / name).is_file()
    }
    files |= {
        f"nodes/{node.name}/scores-validation.json": _plain(node / "scores-validation.json")
        for node in (root / "nodes").iterdir()
        if (node / "scores-validation.json").is_file()
    }

    def check() -> None:
        shown(page_on([root]))
        json.dumps(diagnose_folder(root).as_dict(), allow_nan=False)
        on_screen(lambda console: print_diagnosis(root, console))

    return _spoiling(root, files, check)


def comparisons(folder: Path) -> Cases:
    root = write_comparison(folder / NAME, ("constant", "commit"), (0, 1), ("vqa",), steps=STEPS)
    files = {"comparison.json": _plain(root / "comparison.json")}

    def check() -> None:
        shown(page_on([root]))
        view = view_comparison(root)
        tables = all_tables(view.summary, view.settings)
        for text in (markdown(tables, verdicts(view.summary), caveat(view.summary)), latex(tables)):
            assert "\x1b" not in text
            text.encode()
        assert MARKUP not in markdown(tables, verdicts(view.summary), caveat(view.summary))
        table = comma_separated(view.summary, view.seeds)
        assert "\x1b" not in table
        _formulas(table)

    return _spoiling(root, files, check)


def screen(folder: Path) -> Cases:
    from rich.progress import Progress, TextColumn
    from rich.table import Table

    from equipoise.console import plain
    from equipoise.texts import printable

    def check(words: list[str]) -> None:
        def say(console: PlainConsole) -> None:
            table = Table("a", *words[:1], title=words[-1], caption=words[0])
            table.add_row(*words[:2])
            console.print(table)
            console.print(*words)
            console.print(words[0], highlight=False)
            console.rule(words[-1])
            console.print(plain(words[0], "\n\t"), soft_wrap=True)
            with Progress(TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
                bar.add_task(printable(words[0]))

        text = on_screen(say)
        for word in words[:1]:
            if word in ("[red]", "[bold]x[/]", ":smile:", "{x.__class__}"):
                assert word in text, f"{word} is not shown as it is"

    return st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), min_size=1, max_size=3), check
