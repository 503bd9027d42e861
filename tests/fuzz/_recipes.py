"""Recipes as text, and settings on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from equipoise.recipe_reading import load_recipe
from fuzz._mutations import as_json, spoiled, spoiled_bytes, texts, values
from fuzz._surface import Cases

RECIPE: dict[str, Any] = {
    "model": {
        "path": "hub/model",
        "lora": {"rank": 4, "dropout": 0.05},
        "train": {"projector": "full"},
        "modules": {"a": "x"},
    },
    "tasks": [
        {"name": "vqa", "reader": "easy_vqa", "metric": "exact_match", "max_train": 3, "options": {"kind": "vqa"}},
        {
            "name": "b",
            "reader": "easy_vqa",
            "metric": None,
            "fraction": 0.5,
            "hold_out": {"test": 3},
            "media_roots": [],
        },
    ],
    "data": {"on_error": "skip"},
    "balance": {
        "modules": {"schedule": "commit", "window": 20, "min_factor": 0.02},
        "tasks": {"weighter": "fixed", "weights": {"vqa": 2.0}},
        "cotbal": {"alpha": 0.5},
    },
    "train": {"learning_rate": {"llm": 1.0e-3}, "warmup": 0.1, "report_to": [], "arguments": {"x": [1]}, "seed": 0},
}
TEXT = b"""# a recipe
model: {path: hub/model, lora: {rank: 4}, train: {projector: full}}
defaults: &some {reader: easy_vqa, max_train: 1e3}
tasks:
  - &first
    name: vqa
    <<: {reader: easy_vqa}
    metric: exact_match
  - {name: "b\\u0020c", reader: easy_vqa, options: {kind: vqa}}
train:
  learning_rate: 1e-3
  seed: 0
  arguments: {adam_beta2: .99, when: 2024-01-01, tuple: [1, 2.5, ~, yes]}
"""
#: Aliases of aliases, `<<` of `<<`, a list in itself, numbers that take their square to read.
BOMBS = (
    b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60))
    + b"model: *a59\n",
    b"m0: &m0 {a: 1}\n"
    + b"".join(b"m%d: &m%d\n  <<: [*m%d, *m%d, *m%d]\n" % (n, n, n - 1, n - 1, n - 1) for n in range(1, 40)),
    b"model: &m [*m]\n",
    b"tasks: &t\n  - {name: x, reader: easy_vqa, options: {a: *t}}\nmodel: {path: x}\n",
    b"[" * 100_000,
    b"{a: " * 20_000,
    b"- " * 50_000,
    b"? " * 50_000,
    b"model: " + b"1:" * 100_000 + b"1\n",
    b"model: " + b"1:" * 400 + b"1.5\n",
    b"model: 0x" + b"f" * 100_000,
    b"model: 0x" + b"f" * 9_000,
    b"model: " + b"9" * 100_000,
    b"model: !!binary " + b"AAAA" * 1_000,
    b"model: !!set {a, b}\n",
    b"model: !!python/object/apply:os.system ['touch pwned']\n",
    b"a: 1\n" * 500,
    b"".join(b"k%d: 1\n" % n for n in range(25_001)),
    b"# " + b"x" * 2_000_000,
    b"model: {path: '" + b"a/" * 3_000 + b"'}\ntasks: [{name: a, reader: easy_vqa}]\n",
    b"model: {path: '/" + b"a" * 5_000 + b"'}\ntasks: [{name: a, reader: easy_vqa}]\n",
    b"\xff\xfem\x00o\x00",
    b"%YAML 9.9\n---\nmodel: x\n",
    b"---\na: 1\n---\nb: 2\n",
)


def recipe_text(folder: Path) -> Cases:
    file = folder / "recipe.yaml"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        recipe = load_recipe(file)
        file.write_text(recipe.to_yaml(), encoding="utf-8")
        again = load_recipe(file)
        assert again.to_yaml() == recipe.to_yaml(), "a recipe does not read back as it was written"

    cases = st.one_of(
        spoiled(RECIPE).map(as_json),
        spoiled(RECIPE, 1).map(as_json),
        spoiled_bytes(TEXT),
        spoiled_bytes(TEXT, 1),
        spoiled(RECIPE).map(as_json).flatmap(spoiled_bytes),
    )
    rare = st.integers(0, 60).flatmap(lambda number: st.sampled_from(BOMBS) if number == 0 else cases)
    return rare, check


KEYS = sorted(
    {
        ".".join(map(str, path))
        for section, path in (
            (RECIPE, ("model", "path")), (RECIPE, ("model", "lora", "rank")), (RECIPE, ("model", "lora")),
            (RECIPE, ("tasks",)), (RECIPE, ("tasks", "vqa", "name")), (RECIPE, ("tasks", 0, "options", "kind")),
            (RECIPE, ("tasks", 1)), (RECIPE, ("balance", "modules", "window")),
            (RECIPE, ("balance", "tasks", "weights")),
            (RECIPE, ("train", "learning_rate", "llm")), (RECIPE, ("train", "arguments")), (RECIPE, ("train", "seed")),
            (RECIPE, ("data", "on_error")), (RECIPE, ("train",)),
        )
    }
)  # fmt: skip


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "[" * 3_000


def overrides(folder: Path) -> Cases:
    file = folder / "recipe.yaml"
    file.write_bytes(
        b"model: {path: x, lora: {rank: 4}}\ntasks: [{name: vqa, reader: easy_vqa}, {name: b, reader: easy_vqa}]\n"
    )

    def check(overrides: list[str]) -> None:
        load_recipe(file, overrides).to_yaml()

    keys = st.one_of(
        st.sampled_from(KEYS),
        st.lists(st.sampled_from(KEYS) | texts, min_size=1, max_size=3).map(".".join),
        st.sampled_from(["a." * 5_000 + "a", "tasks." + "9" * 5_000, "tasks.٣", "tasks.-1", "."]),
        texts,
    )
    one = st.builds("{}={}".format, keys, st.one_of(values.map(_shown), texts)) | texts
    return st.lists(one, min_size=1, max_size=2), check
