"""A user's mistake at the command line: one line on stderr, status 2, no traceback; mistakes in the recipe before torch
is imported, mistakes about the model's structure before weights are read (the checkpoints here have none)."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

import tiny
from _commands import put_back
from equipoise import cli
from equipoise.recipe_reading import load_recipe
from equipoise.training.preflight import preflight

COMMAND = Path(sys.executable).with_name("equipoise")
Mistake = Callable[..., str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of which only config.json is there."""
    folder = tmp_path_factory.mktemp("llava")
    tiny.llava().config.save_pretrained(folder)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    return folder


@pytest.fixture
def recipe(tmp_path: Path, checkpoint: Path) -> Path:
    """A right recipe on that model and one line of data."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text('{"prompt": "q", "answer": "a"}\n', encoding="utf-8")
    content = {
        "model": {"path": str(checkpoint)},
        "tasks": [{"name": "own", "reader": "jsonl", "path": str(data), "validation": None, "test": None}],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def one_line(status: Any, errors: str) -> str:
    assert status == 2
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("equipoise: ")
    return errors.removeprefix("equipoise: ").rstrip()


@pytest.fixture
def mistake(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Mistake:
    """Run `equipoise train recipe OVERRIDES` in this process; returns the one line it leaves."""
    put_back(monkeypatch)

    def run(*overrides: str, command: str = "train") -> str:
        out = tmp_path / "run"
        monkeypatch.setattr(sys, "argv", ["equipoise", command, str(recipe), *overrides, "--out", str(out)])
        capfd.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            cli.main()
        assert not out.exists(), "a mistake leaves no run directory"
        return one_line(ended.value.code, capfd.readouterr().err)

    return run


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_recipe_is_right_before_it_is_spoiled(recipe):
    preflight(load_recipe(recipe))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.sed=1", "train.sed: unknown key; did you mean seed? allowed: learning_rate, "),
        ("train.batch_size=many", "train.batch_size: found 'many'; input should be a valid integer"),
        ("tasks.own.path=/not/there", "tasks.own.path: /not/there does not exist"),
        ("tasks.other.path=/", "no item 'other'; there are 1: own"),
    ],
)
@pytest.mark.parametrize("command", ["train", "diagnose"])
def test_recipe(mistake, override, line, command):
    assert line in mistake(override, command=command)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["model.train.projector=frozen", "balance.modules.schedule=commit"],
            "only llm has trainable parameters (projector, vision_tower: none); schedule commit needs two or more",
        ),
        (["model.lora=null"], "module llm has no trainable parameter; schedule commit needs it to learn (add LoRA)"),
        (
            ["model.modules={a: q_proj, b: layers}"],
            "is claimed by modules a and b; patterns may not overlap",
        ),
        (["model.modules={a: nowhere}"], "module a: its pattern 'nowhere' matches no parameter of the model"),
        (["model.modules={a: '('}"], "module a: pattern '(' is not a regular expression (missing )"),
        (
            ["model.train.tower=full"],
            "model.train.tower: no such module; this model has projector, vision_tower, llm",
        ),
        (["model.train.llm=full"], "model.train.llm: found 'full' beside model.lora; set lora: null to train"),
        (["model.train.llm=frozen"], "model.train.llm: found 'frozen' beside model.lora; set lora: null to freeze"),
        (
            ["train.learning_rate={llm: 1e-4}"],
            "train.learning_rate: module projector is missing; modules that learn: projector, llm",
        ),
        (
            ["train.learning_rate={llm: 1e-4, projector: 1e-4, vision_tower: 1e-4}"],
            "train.learning_rate.vision_tower: modules that learn are projector, llm",
        ),
        (
            ["balance.modules={controller: servo, window: 20, gain: 3}"],
            "balance.modules.gain: found 3; with a window of 20 the servo settles only below 0.1231",
        ),
        (
            ["balance.modules.reference=audio"],
            "balance.modules.reference: found 'audio'; modules that learn: projector, llm",
        ),
        (
            ["balance.modules.reference=vision_tower"],
            "balance.modules.reference: found 'vision_tower'; modules that learn: projector, llm",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_structure(mistake, overrides, line):
    assert line in mistake(*overrides)


def test_an_unknown_embedded_stack(mistake):
    line = mistake("model.path=embedded:huge")
    assert line == (
        "model.path: found 'embedded:huge'; embedded stacks are embedded:smol-vlm, embedded:smol-vlm-unaligned, "
        "embedded:smol-qformer, embedded:smol-flamingo, embedded:smol-audio, embedded:smol-audio-base, "
        "embedded:smol-audio-vision"
    )


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        '{"no": "type"}',
        '{"model_type": "unheard-of"}',
        '{"model_type": "llava", "text_config": 3}',
        '{"model_type": "llava", "text_config": {"num_attention_heads": 0}}',
    ],
)
def test_a_model_folder_that_transformers_cannot_read(mistake, tmp_path, config):
    folder = tmp_path / "model"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config, encoding="utf-8")
    assert mistake(f"model.path={folder}").startswith(f"model.path: {folder} cannot be loaded (")


def test_a_model_that_takes_text_alone(mistake, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    assert mistake(f"model.path={tmp_path}") == (
        f"model.path: {tmp_path} is a bert model; one that turns images or audio and text into text is needed"
    )


def test_a_model_without_a_recognisable_llm(mistake, tmp_path):
    class HeadlessConfig(PreTrainedConfig):
        model_type = "headless-for-tests"

    class Headless(PreTrainedModel):
        config_class = HeadlessConfig

        def __init__(self, config: HeadlessConfig):
            super().__init__(config)
            self.encoder = tiny.nn.Linear(2, 2)

    AutoConfig.register(HeadlessConfig.model_type, HeadlessConfig)
    AutoModelForImageTextToText.register(HeadlessConfig, Headless)
    try:
        HeadlessConfig().save_pretrained(tmp_path / "model")
        line = mistake(f"model.path={tmp_path / 'model'}")
    finally:
        AutoModelForImageTextToText._model_mapping._extra_content.pop(HeadlessConfig)
        CONFIG_MAPPING._extra_content.pop(HeadlessConfig.model_type)
    assert line.startswith("Headless has no recognisable LLM")
    assert line.endswith("name it by a pattern: modules: {llm: REGEX}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "tasks.own: split 'train' has no samples"),
        ("\n\n", "tasks.own: split 'train' has no samples"),
        ('{"prompt": "q", "answer": "a"}\n{"prompt": "q"}\n', "task own: sample line 2: {}: 'answer' is missing"),
        ("not json\n", "task own: sample line 1: {}: Expecting value"),
    ],
)
def test_data(mistake, tmp_path, text, line):
    file = tmp_path / "data" / "train.jsonl"
    file.write_text(text, encoding="utf-8")
    assert line.format(file) in mistake()


def test_a_split_that_is_not_there(mistake, tmp_path):
    assert f"task own: {tmp_path / 'data' / 'rest.jsonl'} cannot be read" in mistake("tasks.own.train=rest")


def test_an_option_that_the_reader_does_not_have(mistake):
    line = mistake("tasks.own.options={caption: true}")
    assert line == "tasks.own.options.caption: the jsonl reader has no such option; allowed: none"


@pytest.fixture(scope="module")
def poison(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which torch and its company cannot be imported."""
    folder = tmp_path_factory.mktemp("poison")
    for name in ("torch", "transformers", "peft", "accelerate", "plotly"):
        (folder / f"{name}.py").write_text(f"raise SystemError('poisoned {name}')", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(COMMAND), *arguments], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "{recipe}", "trian.seed=1"], "trian: unknown key; did you mean train?"),
        (["diagnose", "{recipe}", "train.seed=x"], "train.seed: found 'x'"),
        (["train", "/not/there.yaml"], "/not/there.yaml: cannot be read"),
        (["demo", "--methods", "constant,comit"], "--methods: found 'comit'; allowed: constant, "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_recipe_mistakes_need_no_torch(recipe, poison, arguments, line):
    ended = run(poison, *(argument.format(recipe=recipe) for argument in arguments))
    assert line in one_line(ended.returncode, ended.stderr)
    assert ended.stdout == ""


def test_help_needs_no_torch(poison):
    ended = run(poison, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_poison_works(recipe, poison):
    ended = run(poison, "train", str(recipe))
    assert ended.returncode == 1
    assert "poisoned" in ended.stderr


def test_a_structure_mistake_in_a_process_of_its_own(recipe, tmp_path):
    ended = run(dict(os.environ), "train", str(recipe), "model.train.projector=frozen", "--out", str(tmp_path / "run"))
    line = one_line(ended.returncode, ended.stderr)
    assert line.startswith("only llm has trainable parameters")
    assert ended.stdout == ""
