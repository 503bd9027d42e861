"""`train` on every family's toy checkpoint: what learns, that it learns, and that what was learned is found again.

One run a family serves most tests: three conversations, two of which ask the same of different images or clips and one
that has neither, are one batch that must be learned by heart.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForMultimodalLM, TrainerCallback

import equipoise.training.run as run_module
from equipoise.data.collate import Collator
from equipoise.data.sample import Sample
from equipoise.evaluation.generate import TransformersEngine
from equipoise.models import loading
from equipoise.recipe import SCHEDULES, Model, Recipe
from equipoise.recipe_reading import parse_recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from models import zoo
from models.zoo import parts, samples
from training._compare import same, steps, weights

ANSWERS = ("red", "deep blue", "say which")
STEPS = 30
MORE_STEPS = {"qwen2_5_vl": 60}  # it learns slowly
FEW = 4
MEASURED = {"estimator": "sampled", "every": 1, "samples": 2, "window": 5}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"schedule": name} for name in SCHEDULES},
    "exact": {"schedule": "commit", "estimator": "exact"},
    "lookback": {"schedule": "commit", "estimator": "lookback"},
}
#: The four backbones of the paper, and one of each other kind.
KINDS = ("llava", "blip2", "internvl", "salmonn", "mllama", "flamingo", "qwen2_audio", "paligemma", "qwen3_vl")
#: Pairs that the default suite runs: every kind, every variant.
USUAL = {
    ("llava", "commit"), ("blip2", "exact"), ("internvl", "language-cd"), ("salmonn", "commit"), ("mllama", "exact"),
    ("mllama", "feature-cd"), ("qwen2_audio", "lookback"), ("paligemma", "commit"), ("qwen3_vl", "lookback"),
    ("flamingo", "commit"),
    ("qwen3_vl", "encoder-lr-up"), ("paligemma", "llm-lr-up"), ("blip2", "constant"), ("qwen2_audio", "commit-clr"),
}  # fmt: skip


@dataclass
class Data:
    """A family's checkpoint and its three conversations."""

    checkpoint: Path
    folder: Path
    samples: list[Sample]

    def recipe(self, coordination: dict[str, Any], lora: dict[str, Any] | None = None, **settings: Any) -> Recipe:
        content = {
            "model": {"path": str(self.checkpoint), "lora": lora or {}},
            "tasks": [{"name": "task", "reader": "jsonl", "path": str(self.folder)}],
            "balance": {"modules": coordination},
            "train": {
                "learning_rate": 0.02, "batch_size": len(self.samples), "warmup": 0.0, "save_steps": 1000,
                "lr_scheduler": "constant", "threads": 1, **settings,
            },
        }  # fmt: skip
        return parse_recipe(content, "toy")


@dataclass
class Finished:
    """A run that learned its batch by heart; parameters and buffers at its start, after two steps and at its end."""

    family: str
    data: Data
    recipe: Recipe
    run: RunDirectory
    model: PeftModel
    states: list[dict[str, torch.Tensor]] = field(repr=False)

    @property
    def collator(self) -> Collator:
        return make_collator(self.recipe.model)


class Watch(TrainerCallback):
    """Copies what the Trainer's model is."""

    def __init__(self, model: nn.Module):
        self.states = [state_of(model)]
        self.model: nn.Module

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 2:
            self.states.append(state_of(model))

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.states.append(state_of(model))
        self.model = copy.deepcopy(model).eval()


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}


def make_collator(settings: Model) -> Collator:
    return Collator(loading.load_processor(settings), prefix_attention=loading.family(settings).prefix_attention)


def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits


def silent() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Data]:
    made: dict[str, Data] = {}

    def of(family: str) -> Data:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            folder = samples.write(root / "data")
            rows = [
                samples.sample(family, folder, 0, ANSWERS[0]),
                samples.sample(family, folder, 1, ANSWERS[1]),
                samples.sample(family, folder, None, "who", ANSWERS[2]),
            ]
            samples.write_dataset(folder, rows)
            made[family] = Data(zoo.make(family, root / "checkpoint"), folder, rows)
        return made[family]

    return of


@pytest.fixture(scope="module")
def finished_of(data: Callable[[str], Data], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Finished]:
    made: dict[str, Finished] = {}

    def of(family: str) -> Finished:
        if family not in made:
            coordination = {"schedule": "commit-clr", "every": 10, "window": 5}
            recipe = data(family).recipe(coordination, lora={"merge": True}, max_steps=MORE_STEPS.get(family, STEPS))
            watches: list[Watch] = []
            build = run_module.build_trainer

            def watched(*args: Any, **kwargs: Any) -> Any:
                trainer = build(*args, **kwargs)
                watches.append(Watch(trainer.model))
                trainer.add_callback(watches[0])
                return trainer

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(run_module, "build_trainer", watched)
                run = train(recipe, tmp_path_factory.mktemp("runs") / family, silent())
            made[family] = Finished(family, data(family), recipe, run, watches[0].model, watches[0].states)
        return made[family]

    return of


@pytest.fixture(params=zoo.FAMILIES)
def finished(request: pytest.FixtureRequest, finished_of: Callable[[str], Finished]) -> Finished:
    return finished_of(request.param)


# ------------------------------------------------------------------ what learns


def test_exactly_what_the_recipe_trains_moves(finished: Finished) -> None:
    pretrained = AutoModelForMultimodalLM.from_pretrained(finished.data.checkpoint)
    intended = parts.trained(finished.family, {name for name, _ in pretrained.named_parameters()})
    first, second, last = finished.states
    assert first.keys() == second.keys() == last.keys()
    after_two = {parts.bare(name) for name in first if not torch.equal(first[name], second[name])}
    at_the_end = {parts.bare(name) for name in first if not torch.equal(first[name], last[name])}
    assert after_two <= at_the_end <= intended
    never = parts.NEVER_MOVES.get(finished.family)
    resting = {name for name in intended - after_two if never is None or not never.match(name)}
    assert not [name for name in resting if not parts.MAY_REST.search(name)]


def test_what_does_not_learn_is_what_the_checkpoint_holds(finished: Finished) -> None:
    pretrained = state_of(AutoModelForMultimodalLM.from_pretrained(finished.data.checkpoint))
    learned = parts.trained(finished.family, set(pretrained))
    found = {parts.bare(name): value for name, value in finished.states[-1].items() if ".original_module" not in name}
    assert found.keys() - pretrained.keys() == {name for name in learned if ".lora_" in name}
    for name in pretrained.keys() - learned:
        assert torch.equal(found[name], pretrained[name]), name


def test_a_batch_is_learned_by_heart(finished: Finished) -> None:
    losses = [line["loss"] for line in steps(finished.run)]
    assert losses[0] > 2
    assert losses[-1] < 0.1 * losses[0]


def test_kappa_is_measured(finished: Finished) -> None:
    lines = [line for line in steps(finished.run) if "kappa" in line]
    assert [line["step"] for line in lines] == list(range(1, finished.recipe.train.max_steps + 1, 10))
    assert all(math.isfinite(line["kappa"]) and line["kappa"] > 0 for line in lines)


# ------------------------------------------------------------------ what it says


def test_it_gives_the_answers_in_a_batch_as_one_by_one(finished: Finished) -> None:
    engine = TransformersEngine(finished.model, finished.collator)
    batched = engine.answer(finished.data.samples, 12)
    single = [engine.answer([sample], 12)[0] for sample in finished.data.samples]
    assert batched == single == list(ANSWERS)


def test_the_trained_end_token_ends_the_answer(finished: Finished) -> None:
    collator = finished.collator
    tokenizer = collator.processor.tokenizer
    prompts, batch = collator.prompts(finished.data.samples), collator(finished.data.samples)
    with torch.no_grad():
        said = finished.model.generate(**prompts, max_new_tokens=30, do_sample=False)
    said = said[:, prompts["input_ids"].shape[1] :]
    for row, labels in zip(said, batch["labels"], strict=True):
        answer = labels[labels != -100].tolist()
        assert answer[-1] == tokenizer.eos_token_id
        assert row[: len(answer)].tolist() == answer
        assert set(row[len(answer) :].tolist()) <= {tokenizer.pad_token_id}


# ------------------------------------------------------------------ what is saved


def test_plain_peft_opens_what_was_saved(finished: Finished) -> None:
    batch = finished.collator(finished.data.samples)
    opened = PeftModel.from_pretrained(
        AutoModelForMultimodalLM.from_pretrained(finished.data.checkpoint), finished.run.model
    )
    assert torch.equal(logits(opened, batch), logits(finished.model, batch))


def test_what_was_saved_holds_the_trained_connector(finished: Finished) -> None:
    pretrained = dict(AutoModelForMultimodalLM.from_pretrained(finished.data.checkpoint).named_parameters())
    saved = {
        parts.bare(name): value for name, value in load_file(next(finished.run.model.glob("*.safetensors"))).items()
    }
    connector = {name for name in parts.trained(finished.family, set(pretrained)) if ".lora_" not in name}
    assert connector <= saved.keys()
    assert not saved.keys() & (pretrained.keys() - connector)
    assert any(not torch.equal(saved[name], pretrained[name]) for name in connector)


def test_the_merged_model_opens_alone(finished: Finished) -> None:
    batch = finished.collator(finished.data.samples)
    opened = AutoModelForMultimodalLM.from_pretrained(finished.run.merged)
    assert not any("lora" in name for name, _ in opened.named_parameters())
    torch.testing.assert_close(logits(opened, batch), logits(finished.model, batch), rtol=1e-5, atol=3e-5)


def test_the_merged_model_s_processor_opens_too(finished: Finished) -> None:
    again = make_collator(finished.recipe.model.model_copy(update={"path": str(finished.run.merged)}))
    found, expected = again(finished.data.samples), finished.collator(finished.data.samples)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_our_own_loader_opens_it_too(finished: Finished) -> None:
    batch = finished.collator(finished.data.samples)
    opened = loading.load_tuned(finished.recipe.model, finished.run.model)
    assert not any(module.training for module in opened.modules())
    assert torch.equal(logits(opened, batch), logits(finished.model, batch))


@pytest.mark.parametrize("family", ["blip2", "salmonn"])
def test_another_process_opens_it(finished_of: Callable[[str], Finished], family: str, tmp_path: Path) -> None:
    finished = finished_of(family)
    batch = {name: value for name, value in finished.collator(finished.data.samples).items() if name != "labels"}
    torch.save(batch, tmp_path / "batch.pt")
    ours = ["import equipoise"] if family == "salmonn" else []  # which registers its classes
    script = "\n".join(
        [
            "import sys, torch",
            *ours,
            "from peft import PeftModel",
            "from transformers import AutoModelForMultimodalLM",
            "base, adapter, folder = sys.argv[1:]",
            "batch = torch.load(f'{folder}/batch.pt')",
            "model = PeftModel.from_pretrained(AutoModelForMultimodalLM.from_pretrained(base), adapter).eval()",
            "with torch.no_grad():",
            "    torch.save(model(**batch).logits, f'{folder}/logits.pt')",
            "" if ours else "assert not [name for name in sys.modules if name.startswith('equipoise')]",
        ]
    )
    command = [sys.executable, "-c", script, finished.data.checkpoint, finished.run.model, tmp_path]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), logits(finished.model, batch), rtol=1e-6, atol=1e-6)


def test_a_resumed_run_goes_on_with_blip2s_queries(data: Callable[[str], Data], tmp_path: Path) -> None:
    recipe = data("blip2").recipe({"schedule": "commit", **MEASURED}, max_steps=FEW, save_steps=FEW // 2)
    whole = train(recipe, tmp_path / "whole", silent())
    cut = RunDirectory(tmp_path / "cut")
    shutil.copytree(whole.path, cut.path)
    shutil.rmtree(cut.checkpoints / f"checkpoint-{FEW}")
    shutil.rmtree(cut.model)
    cut.done_file.unlink()

    key = "base_model.model.query_tokens"
    pretrained = load_file(recipe.model.path + "/model.safetensors")["query_tokens"]
    halfway = weights(cut.checkpoints / f"checkpoint-{FEW // 2}")[key]
    assert not torch.equal(halfway, pretrained)
    assert not torch.equal(halfway, weights(whole.model)[key])
    train(recipe, cut.path, silent(), resume=True)
    assert same(weights(cut.model), weights(whole.model))
    assert cut.metrics() == whole.metrics()


# ------------------------------------------------------------------ one loss


def _one_of_each_loss() -> list[Any]:
    usual = ("llava", "blip2", "qwen2_5_vl", "qwen2_audio", "idefics", "salmonn")
    mixing = [family for family in zoo.FAMILIES if family != "mllama"]
    return [pytest.param(family, marks=() if family in usual else pytest.mark.slow) for family in mixing]


def without_dropout(checkpoint: Path, folder: Path) -> Path:
    """The same checkpoint; Q-Formers have dropout."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    connector = config.get("qformer_config", {})
    connector.update({name: 0.0 for name in connector if "dropout" in name})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("family", _one_of_each_loss())
def test_a_steps_loss_does_not_depend_on_its_micro_batches(
    data: Callable[[str], Data], tmp_path: Path, family: str
) -> None:
    settings = {"schedule": "constant", "measure": False}
    still = replace(data(family), checkpoint=without_dropout(data(family).checkpoint, tmp_path / "checkpoint"))
    runs = []
    for size in (3, 1):
        accumulated = {"batch_size": size, "gradient_accumulation": 3 // size, "max_steps": 2}
        recipe = still.recipe(settings, lora={"dropout": 0.0}, **accumulated)
        runs.append(train(recipe, tmp_path / str(size), silent()))
    whole, parted = ([line["loss"] for line in steps(run)] for run in runs)
    assert parted == pytest.approx(whole, rel=1e-3)
    whole, parted = ([line["grad_norm/llm"] for line in steps(run)] for run in runs)
    assert parted[0] == pytest.approx(whole[0], rel=1e-3)


@pytest.mark.parametrize("family", ["llava", "qwen2_audio"])
def test_a_connector_learns_alone_though_a_batch_has_nothing_for_it(
    data: Callable[[str], Data], tmp_path: Path, family: str
) -> None:
    recipe = data(family).recipe({"schedule": "constant"}, batch_size=1, max_steps=3)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"lora": None})})
    run = train(recipe, tmp_path / "run", silent())
    norms = [line["grad_norm/projector"] for line in steps(run)]
    assert sorted(norm > 0 for norm in norms) == [False, True, True]
    before, after = load_file(f"{recipe.model.path}/model.safetensors"), weights(run.model)
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {
        name for name in before if ".multi_modal_projector." in name or name.startswith("multi_modal_proj")
    }


# ------------------------------------------------------------------ all schedules


def _pairs() -> list[Any]:
    pairs = [(kind, variant) for kind in KINDS for variant in VARIANTS]
    return [
        pytest.param(*pair, id=" ".join(pair), marks=() if pair in USUAL else pytest.mark.slow) for pair in pairs
    ]  # fmt: skip


def test_the_usual_pairs_hold_every_kind_and_every_variant() -> None:
    assert {kind for kind, _ in USUAL} == set(KINDS)
    assert {variant for _, variant in USUAL} == set(VARIANTS)


@pytest.mark.parametrize(("kind", "variant"), _pairs())
def test_every_schedule_runs(data: Callable[[str], Data], tmp_path: Path, kind: str, variant: str) -> None:
    settings = {**MEASURED, **VARIANTS[variant]}
    run = train(data(kind).recipe(settings, max_steps=FEW), tmp_path / "run", silent())
    lines = steps(run)
    assert [line["step"] for line in lines] == list(range(1, FEW + 1))
    assert all(math.isfinite(line["loss"]) for line in lines)
    modules = {name for name in parts.PARTS[kind] if name in parts.CONNECTORS} | {"llm"}
    assert {name.partition("/")[2] for name in lines[0] if name.startswith("lr_factor/")} == modules
    measured = [line["step"] for line in lines if math.isfinite(line.get("kappa") or math.nan)]
    if variant.endswith("-cd"):  # the waiting module does not drift
        assert measured == []
    else:
        assert measured == list(range(2 if variant == "lookback" else 1, FEW + 1))
    base = AutoModelForMultimodalLM.from_pretrained(data(kind).checkpoint)
    assert all(torch.isfinite(value).all() for value in weights(run.model).values())
    assert PeftModel.from_pretrained(base, run.model)
