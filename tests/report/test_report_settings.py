"""Settings in the report: where runs differ, by path; versions; recipes that are none, or hostile; secrets."""

import json

import pytest
from _html_page import Page
from _synthetic_runs import write_run

from equipoise.report.recipe_text import VALUES, parsed, without_secrets
from equipoise.report.settings import settings_section
from equipoise.report.view import view_all


def section(*runs):
    return Page(settings_section(view_all(runs))).text


def recipe(rate=1e-4, schedule="commit", tasks=("a", "b")):
    return {
        "balance": {"modules": {"schedule": schedule}},
        "tasks": [{"name": name, "reader": "jsonl", "options": {"n": [1, 2]}} for name in tasks],
        "train": {"learning_rate": rate},
    }


def test_only_what_differs_is_in_the_table(tmp_path):
    runs = [
        write_run(tmp_path / "x", [], recipe=recipe()),
        write_run(tmp_path / "y", [], recipe=recipe(2e-4, "constant", ("b", "c"))),
    ]
    table = section(*runs).partition("resolved recipe")[0]
    for row in ("balance.modules.schedulecommitconstant", "train.learning_rate0.00010.0002", "tasks.a.readerjsonl–"):
        assert row in table
    assert "tasks.c.options.n–[1, 2]" in table
    assert "tasks.b" not in table


def test_one_run_and_like_runs_have_no_table(tmp_path):
    runs = [write_run(tmp_path / name, [], recipe=recipe()) for name in "xy"]
    assert "differ" not in section(runs[0])
    assert "The runs' recipes are the same." in section(*runs)


def test_versions_are_said_once_where_all_are_alike(tmp_path):
    runs = [write_run(tmp_path / name, [], recipe=recipe()) for name in "xy"]
    for run, torch in zip(runs, ("2.13", "2.13"), strict=True):
        (run.path / "environment.json").write_text(json.dumps({"torch": torch, "device": "cpu"}))
    assert section(*runs).count("Made with torch 2.13, device cpu.") == 1
    (runs[1].path / "environment.json").write_text(json.dumps({"torch": "2.14"}))
    assert "y was made with torch 2.14." in section(*runs)


def test_recipes_that_are_none(tmp_path):
    texts = ("tasks: [", "when: 2026-02-31\n", "- 1\n- {name: [a]}\n", "", "[" * 5_000)
    runs = [write_run(tmp_path / str(n), []) for n in range(len(texts))]
    for run, text in zip(runs, texts, strict=True):
        run.recipe_file.write_text(text)
    said = section(*runs)
    assert "4: resolved recipe" in said
    assert "The settings of 0, 1, 3, 4 cannot be compared" in said


def of_texts(tmp_path, *texts):
    """The section of runs with these recipes."""
    runs = [write_run(tmp_path / f"run{n}", []) for n in range(len(texts))]
    for run, text in zip(runs, texts, strict=True):
        run.recipe_file.write_text(text, encoding="utf-8")
    return section(*runs)


def multiplied(line):
    """Thirty lines, each of which names the one before twice."""
    return "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {line.format(n - 1)}\n" for n in range(1, 30))


@pytest.mark.parametrize(
    "text",
    [
        multiplied("[*a{0}, *a{0}]"),
        multiplied("{{<<: [*a{0}, *a{0}]}}"),
        "a: &a [*a]",
        "&a {b: *a}",
        "x: " + "[" * 40 + "]" * 40,
        f"x: [{'1, ' * VALUES}]",
        f"x: {'1' * 300_000}",
        "!!int ''",
    ],
)
def test_a_hostile_recipe_cannot_be_compared(tmp_path, text):
    said = of_texts(tmp_path, "train: {seed: 1}", text, "train: {seed: 2}")
    assert "The settings of run1 cannot be compared: no YAML, or more than 5,000 values or 32 levels of them." in said
    assert "train.seed12" in said


def test_odd_keys_and_numbers_are_words(tmp_path):
    large = "0x" + "f" * 5_000
    text = f"3: {large}\nnull: 2024-02-03\nb: !!binary aGk=\nc: !!set {{d}}\n{large[:1_000]}: 1\n"
    found = {"3": "(a number of 20000 bits)", "None": "2024-02-03", "b": "(bytes)", "c": "(set)"}
    assert parsed(text) == {**found, "(a number of 3992 bits)": 1}
    assert parsed("{? [a, b] : 1}") is None
    assert "3(a number of 20000 bits)–" in of_texts(tmp_path, text, "a: 1")


@pytest.mark.parametrize(("one", "other", "row"), [("'1'", "1", '"1"1'), ("'–'", "null", '"–"null')])
def test_values_of_other_kinds_differ(tmp_path, one, other, row):
    assert f"train.x{row}" in of_texts(tmp_path, f"train: {{x: {one}}}", f"train: {{x: {other}}}")


def test_long_values_show_where_they_differ(tmp_path):
    texts = [f"x: {'a' * 100}{n}{'b' * 100}" for n in (1, 2)]
    assert f"x…{'a' * 20}1{'b' * 59}……{'a' * 20}2{'b' * 59}…" in of_texts(tmp_path, *texts)


def test_long_values_that_begin_alike_beside_a_third(tmp_path):
    said = of_texts(tmp_path, *(f"x: {text}" for text in ("c", "a" * 100 + "1", "a" * 100 + "2")))
    first, second = said.partition("resolved recipe")[0].split("…")[1:3]
    assert first.startswith(" (")
    assert first.partition(")")[0] != second.partition(")")[0]


SECRETS = """\
train:
  max_new_tokens: 16
  arguments: {hub_token: hf_very, 'api-key': "very", other: plain, push: {access_keys: [very, null]}}
  Password: 12345
  the_secret: |
    very
    very
seed: 1
"""


def test_secrets_are_shown_nowhere(tmp_path):
    said = of_texts(tmp_path, SECRETS, SECRETS.replace("very", "most").replace("plain", "odd").replace(" 16", " 17"))
    assert "train.max_new_tokens1617" in said
    assert "train.arguments.otherplainodd" in said
    for word in ("very", "most", "12345"):
        assert word not in said
    assert "hub_token" not in said.partition("resolved recipe")[0]


def test_the_recipe_s_text_without_secrets_is_yaml_still():
    shown = without_secrets(SECRETS)
    assert "hub_token: (hidden), 'api-key': (hidden), other: plain, push: {access_keys: [(hidden), null]}" in shown
    found = parsed(shown)
    assert found is not None
    assert found["train"]["max_new_tokens"] == 16
    assert found["seed"] == 1
    assert found["train"]["the_secret"] == found["train"]["Password"] == "(hidden)"
    assert without_secrets("a: &a very\nb: {tokens: [*a]}\n") == "a: (hidden)\nb: {tokens: [*a]}\n"
    assert without_secrets("a: 1\nb: [2]\n") == "a: 1\nb: [2]\n"
    assert without_secrets(harmless := "tokenizer: x\nanswer_key: y\n") == harmless
    assert without_secrets("a: [\nhub_token: very\nx: 1\n") == "a: [\nhub_token: (hidden)\nx: 1\n"
