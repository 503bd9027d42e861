"""Recipes that stand for more than they are, names that would be markup, formulas or paths, programs in data: refused,
or shown as text."""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress, TextColumn
from rich.table import Table

import equipoise
import tiny
from equipoise import cli, options
from equipoise.comparing.summary import summarise
from equipoise.comparing.writing import comma_separated, escape_csv
from equipoise.console import PlainConsole, plain
from equipoise.data.clean import Invalid, html_to_markdown
from equipoise.data.collate import ends_answers, render
from equipoise.data.readers import llava, macs, refcoco
from equipoise.data.readers.reader import Flaw
from equipoise.errors import DataError, RecipeError
from equipoise.models import loading
from equipoise.recipe import Model
from equipoise.recipe_reading import load_recipe
from equipoise.texts import printable, shown
from fuzz._recipes import BOMBS
from fuzz._templates import ATTACKS, TEMPLATES, tokenizer

MINIMAL = "model: {path: hub/model}\ntasks: [{name: vqa, reader: easy_vqa}, {name: b, reader: easy_vqa}]\n"
#: Which load YAML by safe loaders of their own, with bounds.
BOUNDED = ("yaml_reading.py", "recipe_text.py")
UNSAFE = (
    "pickle.load", "pickle.loads", "eval", "exec", "os.system", "marshal.loads", "yaml.unsafe_load", "yaml.full_load",
)  # fmt: skip
ARCHIVES = ("zipfile.ZipFile", "tarfile.open", "shutil.unpack_archive")
RISKY = re.compile(
    r"pickle|torch\.load|yaml|shell=|marshal|zipfile|tarfile|unpack_archive|os\.system|(?<![.\w])(eval|exec)\("
)
SOURCES = sorted(Path(equipoise.__file__).parent.rglob("*.py"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert len(str(caught.value)) < 2_000
    return str(caught.value)


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_a_recipe_that_stands_for_more_than_it_is_is_refused(number, recipe):
    recipe.write_bytes(BOMBS[number])
    assert mistake(recipe).startswith(f"{recipe}: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [x]\nb: &b [*a]\nc: [*b, *b]\nmodel: &m [*m]\n", "a part of it holds itself, line 4, column 8"),
        ("[" * 40 + "]" * 40, "it has more than 32 levels"),
        (MINIMAL + "train: {seed: 1}\ntrain: {seed: 2}\n", "the key 'train' stands twice, line 4, column 1"),
        ("model: !!python/object/apply:os.system ['touch pwned']", "could not determine a constructor for the tag"),
        ("model: !!binary aGk=", "could not determine a constructor for the tag"),
        ("model: " + "1:" * 60 + "1", "a whole number of 121 letters"),
        ("- " * 30_000, "levels"),
    ],
)  # fmt: skip
def test_what_yaml_may_not_hold(text, reason, recipe):
    recipe.write_text(text)
    assert reason in mistake(recipe)


def test_anchors_and_merges_are_for_people(recipe):
    recipe.write_text(
        "model: {path: hub/model}\ntasks:\n  - &one {name: vqa, reader: easy_vqa, options: {kind: vqa}, max_train: 3}\n"
        "  - {<<: *one, name: b}\n"
    )
    tasks = load_recipe(recipe, ["tasks.vqa.options.kind=box"]).tasks
    assert [task.max_train for task in tasks] == [3, 3]
    assert [task.options["kind"] for task in tasks] == ["box", "vqa"], "an override is for one place alone"


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/x", "a/b", "a\\b", "..", ".hidden", "-x", "", "a b", "a\n", "a\0", "CON", "nul.txt", "Lpt1",
    "a.", "x" * 81]
)  # fmt: skip
def test_a_task_is_named_like_a_file_anywhere(name, recipe):
    assert "tasks.0.name: " in mistake(recipe, f"tasks.0.name={json.dumps(name)}")


def test_two_tasks_are_not_one_file_where_case_does_not_count(recipe):
    assert "two tasks are named 'VQA'; names must differ, and not in case alone" in mistake(recipe, "tasks.b.name=VQA")


@pytest.mark.parametrize(
    "override",
    ["a." * 1_000 + "a=1", "tasks." + "9" * 5_000 + "=1", "x" * 100_000, f"model={'[' * 10_000}", f"{'k' * 9_999}=1",
    "model.path=\"\\ud800\"",
     f"model.path=/{'a' * 5_000}", "tasks.vqa.path=\"a\\0b\"", "train.learning_rate=" + "9" * 5_000,
     "tasks.vqa.media_roots=[/nowhere]"],
)  # fmt: skip
def test_an_override_of_any_size_is_refused_with_a_line(override, recipe):
    mistake(recipe, override)


@pytest.mark.parametrize("key", ["function-", "constrained-float", "dict[str,", "train.function-after"])
def test_an_unknown_key_may_look_like_one_of_pydantics_words(key, recipe):
    assert f"{key}: unknown key; " in mistake(recipe, f"{key}=1")


@pytest.mark.parametrize("option", ["image_folder=[1]", "image_folder={1: a, b: c}", "image_folder=5"])
def test_an_option_of_another_kind_is_refused(option, recipe, tmp_path):
    from equipoise.data.tasks import read_task

    (tmp_path / "x.json").write_text("[]")
    key, _, value = option.partition("=")
    read = load_recipe(
        recipe, ["tasks.vqa.reader=llava", f"tasks.vqa.path={tmp_path}", f"tasks.vqa.options={{{key}: {value}}}"]
    )
    with pytest.raises(DataError, match=r"tasks\.vqa\.options\.image_folder: found .*; expected str \| None"):
        read_task(read.tasks[0], "train", seed=0)


# ---------------------------------------------------------------------- shown as text

NAMES = (
    "[red]x[/red]",
    "[/x]",
    ":smile:",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "{0}{x.y}",
    "%s%n",
    "<b>&",
    "a\rb",
    "\u202e",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_shows_names_as_they_are(name):
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, color_system=None, width=120)
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    console.print(table)
    console.print(f"run: {name}", highlight=False)
    console.rule(name)
    console.print(plain(name))
    with console.status("reading") as status:
        status.update(plain(name))
    with Progress(TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
        bar.add_task(printable(name))
    text = file.getvalue()
    assert f"run: {printable(name)}" in text
    assert "\x1b[31m" not in text
    assert "\x1b]" not in text


@pytest.mark.parametrize("module", ["evaluation/evaluate.py", "training/progress.py"])
def test_a_bar_takes_no_markup_from_a_name(module):
    """rich reads a bar's columns as markup unless it is told not to."""
    text = (Path(equipoise.__file__).parent / module).read_text(encoding="utf-8")
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "TextColumn"
    ]
    assert calls
    assert all("markup=False" in ast.unparse(call) for call in calls)


def test_a_table_of_scores_cannot_steer_the_terminal(tmp_path, monkeypatch, capsys):
    (tmp_path / "scores.csv").write_text("run,\x1b[31ma\nmini,1\n\x1b[31ma+mini,1\n")
    monkeypatch.setattr(sys, "argv", ["equipoise", "weights", str(tmp_path / "scores.csv"), "--on-degenerate", "zero"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, errors = capsys.readouterr()
    assert ended.value.code in (0, None)
    assert "\x1b" not in out + errors
    assert "equipoise: contributions to \\x1b[31ma are undefined and set to 0" in errors


def test_an_error_of_any_length_is_a_line_that_can_be_read(capsys):
    options.complain("x\n" * 100_000)
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) < 5_000


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1"])
def test_no_spreadsheet_takes_a_name_for_a_formula(text):
    assert escape_csv(text).startswith(("'", "\\t="))
    assert escape_csv("a=1") == "a=1"
    assert escape_csv(None) == ""


def test_a_value_is_shown_in_bounds():
    bomb: Any = "x"
    for _ in range(200):
        bomb = [bomb, bomb]
    assert shown(bomb) == "[" * 60
    assert shown({"a": (1, "b", None)}) == "{'a': (1, 'b', None)}"
    assert shown(1 << 100_000) == "a whole number of 100,001 bits"
    itself: list[Any] = []
    itself.append(itself)
    assert shown(itself) == "[" * 60
    assert shown("x" * 10**6, 20) == "'" + "x" * 19
    for value in ((1,), [], {}, "it's", b"ab", {3}, 1.5, True):
        assert shown(value) == repr(value)


# ---------------------------------------------------------------------- programs in data


class _Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, folder: Path):
        self.target = folder / "pwned"

    def __reduce__(self) -> Any:
        return open, (str(self.target), "w")


def test_a_pickle_of_refcoco_runs_nothing(tmp_path):
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([_Runs(tmp_path)]))
    with pytest.raises(DataError, match=r"no pickle of plain lists and dicts \(it names .*open, which is not loaded\)"):
        list(refcoco.read("own", "train", tmp_path))
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_that_is_a_pickle_runs_nothing(tmp_path):
    folder = tmp_path / "model"
    tiny.llava().save_pretrained(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save({"x": _Runs(tmp_path)}, folder / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"cannot be loaded|holds a pickle"):
        loading.load(Model(path=str(folder)))
    assert not (tmp_path / "pwned").exists()


def test_nothing_is_loaded_by_what_runs_code():
    """No pickle but RefCOCO's restricted one, no YAML but plain data, no array of objects, no tensor file in full."""
    found = []
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)] if RISKY.search(text) else []
        for call in calls:
            name, arguments = ast.unparse(call.func), ast.unparse(call)
            unsafe = (
                name in UNSAFE
                or (name == "torch.load" and "weights_only=True" not in arguments)
                or (name == "yaml.load" and source.name not in BOUNDED)
                or (name in ARCHIVES and source.name != "packages.py")
                or "allow_pickle=True" in arguments
                or "shell=True" in arguments
            )
            found += [f"{source.name}:{call.lineno}: {arguments}"] if unsafe else []
    assert found == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_chat_template_reads_nothing_and_runs_nothing(attack, tmp_path, monkeypatch):
    """transformers renders templates in Jinja's sandbox."""
    monkeypatch.chdir(tmp_path)
    messages = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    before = str(messages)
    for template in (attack, TEMPLATES[0] + attack):
        processor: Any = SimpleNamespace(tokenizer=tokenizer(), chat_template=template)
        try:
            text = render(processor, messages)
            ends_answers(processor)
        except DataError as error:
            text = str(error)
        assert "root:x:" not in text
        assert "<class" not in text
        assert "built-in" not in text
    assert str(messages) == before
    assert not (tmp_path / "pwned").exists()


def test_yaml_of_a_dataset_is_bounded_too(tmp_path):
    (tmp_path / "MACS.yaml").write_bytes(BOMBS[0])
    with pytest.raises(DataError, match=r"MACS\.yaml is not MACS's list of files in YAML \(it stands for more than"):
        list(macs.read("own", "train", tmp_path))


# ---------------------------------------------------------------------- texts that take their square


def test_placeholders_without_end_are_looked_for_in_time(tmp_path):
    text = "x" + "<image> " * 100_000 + "x"
    talk = [{"from": "human", "value": text}, {"from": "gpt", "value": "a"}]
    (tmp_path / "train.json").write_text(json.dumps([{"id": "a", "conversations": talk}]))
    [found] = llava.read("own", "train", tmp_path)
    assert not isinstance(found, Flaw), "in its midst a text may have them"


def test_fences_without_end_are_not_searched():
    pytest.importorskip("markdownify")
    with pytest.raises(Invalid, match="takes too long"):
        html_to_markdown("```" * 100_000)
    with pytest.raises(Invalid, match="takes too long"):
        html_to_markdown("<div" * 100_000)
    assert html_to_markdown("<p>a <b>b</b></p>") == "a **b**"


def test_names_of_methods_and_tasks_are_no_formulas_in_the_table():
    from equipoise.comparing.measured import Measured

    runs = [Measured(method, 0, (), {"-task": {"=metric": 0.5}}) for method in ("=a", "b")]
    table = comma_separated(summarise(runs, ["=a", "b"], "=a"), [0])
    assert "scores,'=a,'-task,'=metric,0.5" in table
    assert "\n=" not in table
