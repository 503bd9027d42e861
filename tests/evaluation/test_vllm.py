"""`--engine vllm`, on a stand-in for vLLM (`_vllm.py`): what it is given, what it is not asked to do.

vLLM itself cannot be installed beside this package's transformers; see `equipoise.evaluation.vllm`.
"""

from __future__ import annotations

import io
import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from rich.console import Console

from equipoise.data.collate import Collator
from equipoise.data.sample import Sample, exchange
from equipoise.errors import RunError
from equipoise.evaluation import evaluate as evaluation
from equipoise.evaluation.evaluate import evaluate
from equipoise.evaluation.generate import TransformersEngine
from equipoise.evaluation.vllm import VllmEngine, most_media
from equipoise.models import loading
from equipoise.recipe import Model
from equipoise.training.run_directory import RunDirectory
from evaluation import _vllm
from evaluation._runs import finished_run, rows
from models import zoo


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", _vllm.module())


@pytest.fixture
def make_run(checkpoint: Path, dataset: Path, tmp_path: Path) -> Callable[..., RunDirectory]:
    def make(name: str = "run", **settings: Any) -> RunDirectory:
        task = {
            "name": "colours", "reader": "jsonl", "path": dataset, "metric": "exact_match", "max_new_tokens": 6,
            **settings,
        }  # fmt: skip
        return finished_run(tmp_path / name, checkpoint, task)

    return make


def answer(run: RunDirectory, engine: str = "vllm") -> list[str]:
    evaluate(run, Console(file=io.StringIO()), controls=False, engine=engine, batch_size=2)
    return [row["prediction"] for row in rows(run.predictions / "colours.jsonl")]


@pytest.mark.usefixtures("installed")
def test_the_same_model_gives_the_same_answers(make_run):
    run = make_run()
    answers = answer(run)
    assert answers == answer(make_run("other"), engine="transformers")
    assert len(set(answers)) > 2
    [engine] = _vllm.LLM.started
    assert engine.limits == {"image": 1, "audio": 0}
    assert engine.model.dtype == torch.float32  # which vLLM would halve if it were not told
    assert engine.calls == [8]  # all at once, however small the batches for transformers


@pytest.mark.usefixtures("installed")
def test_the_merged_model_is_served_where_the_run_has_an_adapter_too(make_run):
    run = make_run(validation=None)
    run.model.rename(run.merged)
    run.model.mkdir()
    (run.model / "adapter_config.json").write_text("{}")
    assert answer(run) == answer(make_run("whole"))


@pytest.mark.usefixtures("installed")
def test_a_question_without_an_image_and_one_with_two(dataset, tmp_path):
    """To a model whose tokenizer begins each text with <s>, as the template does."""
    folder = zoo.make("llava", tmp_path / "llava")
    settings = Model(path=str(folder))
    collator = Collator(loading.load_processor(settings))
    images = tuple(dataset / "images" / f"test-{number}.png" for number in range(2))
    samples = [Sample("s", "t", exchange("what is it", "red"), images=shown) for shown in ((), images[:1], images)]
    engine = VllmEngine(folder, collator, most_media(samples))
    transformers = TransformersEngine(loading.load_tuned(settings, folder), collator)
    assert engine.answer(samples, 5) == [transformers.answer([one], 5)[0] for one in samples]
    assert _vllm.LLM.started[0].limits["image"] == 2
    [start, *tokens] = engine._prompt(samples[0])["prompt_token_ids"]
    assert start == collator.processor.tokenizer.bos_token_id
    assert start not in tokens


def test_the_most_media_of_any_sample():
    def sample(images: int, audios: int) -> Sample:
        paths = [Path(f"{number}") for number in range(9)]
        return Sample("s", "t", exchange("q", "a"), images=tuple(paths[:images]), audios=tuple(paths[:audios]))

    assert most_media([sample(1, 0), sample(0, 3), sample(2, 1)]) == {"image": 2, "audio": 3}


def test_clips_go_with_their_rate(installed, make_run, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(800, 0.25), 8_000)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    run = make_run()
    collator = loading.load_collator(run.recipe(), loading.load_processor(run.recipe().model))
    collator.processor.feature_extractor = SimpleNamespace(sampling_rate=16_000)
    clip = Sample("s", "t", exchange("q", "a"), images=(tmp_path / "a.png",), audios=(tmp_path / "a.wav",))
    prompt = VllmEngine(run.model, collator, {})._prompt(clip)
    [[wave, rate]] = prompt["multi_modal_data"]["audio"]
    assert (wave.dtype, len(wave), rate) == (np.float32, 1_600, 16_000)
    [image] = prompt["multi_modal_data"]["image"]
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.usefixtures("installed")
def test_vllm_has_the_device_to_itself(make_run, monkeypatch):
    """The validation loss is transformers' affair; its model has gone when vLLM loads."""
    tuned: list[weakref.ref[Any]] = []
    load = loading.load_tuned

    def loaded(*arguments: Any) -> Any:
        model = load(*arguments)
        tuned.append(weakref.ref(model))
        return model

    started = _vllm.LLM.__init__

    def start(self: _vllm.LLM, **options: Any) -> None:
        assert [reference() for reference in tuned] == [None]
        started(self, **options)

    monkeypatch.setattr(loading, "load_tuned", loaded)
    monkeypatch.setattr(_vllm.LLM, "__init__", start)
    run = make_run()
    answer(run)
    assert len(_vllm.LLM.started) == 1
    assert run.scores()["validation_loss"] > 0


# ------------------------------------------------------------------ what is refused, before anything takes long


@pytest.fixture
def refused(make_run: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def run(change: Callable[[RunDirectory], None] = lambda _: None) -> str:
        monkeypatch.setattr(loading, "load_tuned", lambda *_: pytest.fail("the model is loaded first"))
        one = make_run()
        change(one)
        with pytest.raises(RunError) as error:
            answer(one)
        assert not one.scores_file.exists()
        return str(error.value).replace(str(one.path), "RUN")

    return run


def architecture(name: str) -> Callable[[RunDirectory], None]:
    def write(run: RunDirectory) -> None:
        config = json.loads((run.model / "config.json").read_text())
        (run.model / "config.json").write_text(json.dumps({**config, "architectures": [name] if name else None}))

    return write


def test_without_vllm(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert refused() == "vLLM is not installed; evaluate with --engine transformers"


@pytest.mark.usefixtures("installed")
def test_an_adapter_that_is_not_merged(refused):
    assert refused(lambda run: (run.model / "adapter_config.json").write_text("{}")) == (
        "RUN/model holds an adapter and vLLM serves whole models; train with model.lora.merge=true, "
        "or evaluate with --engine transformers"
    )


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["SalmonnForConditionalGeneration", "PaliGemmaForConditionalGeneration", ""])
def test_a_class_that_vllm_does_not_know_or_prompts_otherwise(refused, name):
    assert refused(architecture(name)) == f"vLLM cannot answer as {name or '?'}; evaluate with --engine transformers"


@pytest.mark.usefixtures("installed")
def test_several_processes(refused, monkeypatch):
    monkeypatch.setattr(
        evaluation, "_state", lambda: SimpleNamespace(num_processes=4, is_main_process=True, process_index=0)
    )
    assert refused() == (
        "vLLM answers in one process and 4 were started; start equipoise evaluate by itself, "
        "or with --engine transformers"
    )


@pytest.mark.usefixtures("installed")
def test_a_model_that_vllm_cannot_load(make_run):
    run = make_run(validation=None)
    (run.model / "model.safetensors").unlink()
    with pytest.raises(RunError) as error:
        answer(run)
    assert str(error.value) == (
        f"vLLM cannot load {run.model} (Engine core initialization failed. See root cause above.); "
        "evaluate with --engine transformers"
    )
