"""The evaluation job: a run in, `predictions/TASK.jsonl` and `scores.json` out, with the controls that scores need.

Several processes (torchrun, accelerate launch) share the samples; the first one writes. An evaluation that was stopped
goes on where it was. Batches are cut alike however many processes there are, so the scores are the same.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from equipoise.data.collate import Collator
from equipoise.data.mixture import Mixture
from equipoise.data.sample import Sample
from equipoise.data.store import Samples
from equipoise.data.tasks import is_unanswered, read_task
from equipoise.disk import told
from equipoise.errors import DataError, RecipeError, RunError
from equipoise.evaluation.answers import Unfinished, fingerprint, in_batches, state_of
from equipoise.evaluation.generate import Engine, TransformersEngine, with_shuffled_inputs
from equipoise.evaluation.loss import batch_loss, mean_loss
from equipoise.evaluation.submission import vqav2_upload
from equipoise.evaluation.vllm import AT_ONCE, VllmEngine, most_media
from equipoise.locks import lock
from equipoise.metrics import METRICS
from equipoise.metrics.score import Score
from equipoise.models import loading
from equipoise.recipe import Recipe, Task
from equipoise.stopping import check
from equipoise.texts import printable
from equipoise.training.fast_paths import answering_paths
from equipoise.training.processes import agreed, join
from equipoise.training.run_directory import RunDirectory, write_atomically, write_json

Split = Literal["validation", "test"]
EngineName = Literal["transformers", "vllm"]
Advance = Callable[[int], None]


def evaluate(
    run: RunDirectory,
    console: Console,
    split: Split | None = "test",
    controls: bool = True,
    engine: EngineName = "transformers",
    batch_size: int = 16,
    validation_loss: bool = True,
) -> dict[str, Any]:
    """Score a finished run by generation on each task that has a metric.

    Args:
        run: its model is loaded anew, as a user would.
        split: which part of each task to answer; the validation loss is on the validation part always. None: nothing
            is answered, for the validation loss alone.
        controls: also score the most frequent training answer, and the same model on shuffled images and
            audio.
        engine: what generates; `vllm` serves merged models of the classes that it knows.
        batch_size: samples that are answered together.
        validation_loss: also compute it.

    Returns:
        What `scores.json` holds: by task metric, value (null where the answers are secret), further figures of the
        metric, samples, samples that were left out, and the controls; the validation loss, null where it is not finite
        or no token is supervised.

    Raises:
        RunError: the run has not finished, or cannot be served by the engine, or another process is at work in it.
        RecipeError: no task has a metric and this split; or nothing is to be answered and no validation part has
            answers.
        DiskError: the run directory cannot be written.
    """
    check()
    with told(run.path), lock(run.path):
        return _evaluate(run, console, split, controls, engine, batch_size, validation_loss)


def _evaluate(
    run: RunDirectory,
    console: Console,
    split: Split | None,
    controls: bool,
    engine: EngineName,
    batch_size: int,
    validation_loss: bool,
) -> dict[str, Any]:
    if not run.done:
        raise RunError(
            f"{run.path}: training has not finished (no done.json); equipoise train RECIPE --resume ends it, "
            "or wait, if it is still running"
        )
    if not run.model.is_dir():
        raise RunError(f"{run.path}: the tuned model is gone; its folder was {run.model}")
    recipe = run.recipe()
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    state = _state()
    with agreed(state), console.status("reading data") if state.is_main_process else nullcontext():
        questions = _questions(recipe, split, controls) if split is not None else []
        validation = _validation(recipe) if validation_loss else Mixture({})
        if split is None and not validation:
            raise RecipeError(f"{run.path}: no task has a validation part with answers")
        if split is not None and not questions:
            raise RecipeError(f"{run.path}: no task has both a metric and a {split} part")
        job = _Job(run, recipe, questions, engine, batch_size, state)
        job.check()
    if state.is_main_process:
        _sweep(run)

    total = len(validation) + sum(len(asked.samples) + len(asked.shuffled or ()) for asked in questions)
    with job.paths, _bar(console, hidden=not state.is_main_process) as bar:
        shown = bar.add_task(printable(f"evaluating {run.path.name}"), total=total // state.num_processes)

        def advance(count: int) -> None:
            bar.advance(shown, count)

        scores: dict[str, Any] = {"split": split, "tasks": {}}
        if validation:
            loss = job.loss(validation, advance)
            scores["validation_loss"] = loss if math.isfinite(loss) else None
        for asked in questions:
            scores["tasks"][asked.task.name] = job.score(asked, advance)
    if state.is_main_process:
        write_json(run.scores_file, scores)
        shutil.rmtree(job.unfinished)
    state.wait_for_everyone()
    return scores


@dataclass
class _Questions:
    """What one task asks.

    Attributes:
        scored: whether the answers are known.
        shuffled: the same questions about others' images and audio, where that is asked too.
        majority: the score of answering each with the most frequent answer of the training part.
    """

    task: Task
    samples: Samples
    scored: bool
    shuffled: Sequence[Sample] | None = None
    majority: float | None = None


@dataclass
class _Job:
    """One evaluation, and what its tasks share.

    Attributes:
        paths: that the model takes while it is in use, once it is loaded.
    """

    run: RunDirectory
    recipe: Recipe
    questions: Sequence[_Questions]
    engine_name: EngineName
    batch_size: int
    state: PartialState
    paths: ExitStack = field(default_factory=ExitStack)

    @property
    def unfinished(self) -> Path:
        """Where results are kept until all of them are there."""
        return self.run.predictions / ".unfinished"

    @cached_property
    def collator(self) -> Collator:
        """Of the recipe's model."""
        return loading.load_collator(self.recipe, loading.load_processor(self.recipe.model))

    @cached_property
    def model(self) -> Any:
        """The tuned model, loaded when it is first needed."""
        model = loading.load_tuned(self.recipe.model, self.run.model).to(self.state.device).requires_grad_(False)
        self.paths.enter_context(answering_paths(self.recipe.train, self.state.device).on(model))
        return model

    @cached_property
    def engine(self) -> Engine:
        """What generates."""
        if self.engine_name == "transformers":
            return TransformersEngine(self.model, self.collator)
        folder = self.run.merged if self.run.merged.is_dir() else self.run.model
        per_prompt = most_media(sample for asked in self.questions for sample in asked.samples)
        return VllmEngine(folder, self.collator, per_prompt, self.recipe.model.trust_remote_code)

    @cached_property
    def weights(self) -> list[Any]:
        """What changes when the model's files do."""
        base = Path(loading.resolve(self.recipe.model))
        folders = [self.run.model, self.run.merged, *([base] if base.is_dir() else [])]
        return [
            [str(file.relative_to(folder)), *state_of(file)]
            for folder in folders
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]

    def check(self) -> None:
        """Find out whether vLLM can do it, before anything takes long."""
        if self.engine_name == "vllm":
            if self.state.num_processes > 1:
                raise RunError(
                    f"vLLM answers in one process and {self.state.num_processes} were started; "
                    "start equipoise evaluate by itself, or with --engine transformers"
                )
            _ = self.engine

    def loss(self, samples: Sequence[Sample], advance: Advance) -> float:
        """The validation loss, shared among the processes."""
        settings = [self.batch_size, self.recipe.train.max_length, self.recipe.train.too_long]
        unfinished = self._unfinished("validation+loss", settings, samples)
        losses = in_batches(
            lambda batch: batch_loss(self.model, self.collator, batch),
            samples, self.batch_size, unfinished, self.state, advance,
        )  # fmt: skip
        if self.engine_name == "vllm":  # which loads the model itself, and wants the device's memory
            self.paths.close()
            self.__dict__.pop("model", None)
            gc.collect()
            torch.cuda.empty_cache()
        return mean_loss(losses)

    def score(self, asked: _Questions, advance: Advance) -> dict[str, Any]:
        """Answer a task's questions, and those about shuffled inputs; write predictions."""
        task, samples = asked.task, asked.samples
        answers = self._answers(task, task.name, samples, advance)
        entry: dict[str, Any] = {"metric": task.metric, "value": None, "samples": len(samples)}
        if samples.store.flaws:
            entry["skipped"] = len(samples.store.flaws)
        if not asked.scored:
            self._write(task, samples, answers, [None] * len(answers))
            if task.reader == "vqav2":
                entry["submission"] = self._submit(task, samples, answers)
            return entry
        references = [sample.references for sample in samples]
        score = _score(task, answers, references)
        self._write(task, samples, answers, score.samples)
        entry["value"] = score.value
        if score.also:
            entry["also"] = dict(score.also)
        if asked.majority is not None:
            entry["majority"] = asked.majority
        if asked.shuffled is not None:
            answers = self._answers(task, f"{task.name}+shuffled", asked.shuffled, advance)
            entry["shuffled_inputs"] = _score(task, answers, references).value
        return entry

    def _answers(self, task: Task, name: str, samples: Sequence[Sample], advance: Advance) -> list[str]:
        size = self.batch_size if self.engine_name == "transformers" else max(self.batch_size, AT_ONCE)
        unfinished = self._unfinished(name, [size, task.max_new_tokens], samples)
        answers = in_batches(
            lambda batch: self.engine.answer(batch, task.max_new_tokens),
            samples, size, unfinished, self.state, advance,
        )  # fmt: skip
        return [answer for batch in answers for answer in batch]

    def _unfinished(self, name: str, settings: list[Any], samples: Sequence[Sample]) -> Unfinished:
        """The results so far of one piece of work; a task's name holds no plus sign."""
        model = [self.engine_name, self.recipe.model.model_dump(), self.weights]
        digest = fingerprint([name, settings, model], samples)
        return Unfinished(self.unfinished, name, digest, self.state.process_index)

    def _write(
        self, task: Task, samples: Sequence[Sample], answers: Sequence[str], values: Sequence[float | None]
    ) -> None:
        if not self.state.is_main_process:
            return
        lines = [
            json.dumps(
                {
                    "id": sample.id,
                    "prompt": sample.prompt,
                    "prediction": answer,
                    "references": sample.references,
                    "score": value,
                    "images": [str(path) for path in sample.images],
                    "audios": [str(path) for path in sample.audios],
                },
                ensure_ascii=False,
            )
            for sample, answer, value in zip(samples, answers, values, strict=True)
        ]
        write_atomically(self.run.predictions / f"{task.name}.jsonl", "\n".join(lines) + "\n")

    def _submit(self, task: Task, samples: Sequence[Sample], answers: Sequence[str]) -> dict[str, Any]:
        upload = vqav2_upload(task, samples, answers)
        file = self.run.submissions / f"{task.name}.json"
        if self.state.is_main_process:
            write_json(file, upload)
        return {"file": str(file.relative_to(self.run.path)), "questions": len(upload), "answered": len(answers)}


def print_scores(scores: dict[str, Any], console: Console) -> None:
    """Print one run's scores."""
    table = Table("task", "metric", scores["split"], "samples", "skipped", "majority answer", "shuffled inputs")
    for name, entry in scores["tasks"].items():
        figures = [(entry["metric"], entry["value"], entry.get("majority"), entry.get("shuffled_inputs"))]
        figures += [(metric, value, None, None) for metric, value in entry.get("also", {}).items()]
        for row, (metric, *values) in enumerate(figures):
            value, majority, shuffled = (f"{x:.3f}" if x is not None else "-" for x in values)
            first = (name, metric, value, str(entry["samples"]), str(entry.get("skipped", 0)), majority, shuffled)
            table.add_row(*(first if row == 0 else ("", metric, value)))
    console.print(table)
    for name, entry in scores["tasks"].items():
        if "submission" in entry:
            submission = entry["submission"]
            asked = f"{submission['answered']} of {submission['questions']} questions answered"
            console.print(f"{name}: the answers are secret; upload {submission['file']} ({asked})", highlight=False)
    if "validation_loss" in scores:
        loss = scores["validation_loss"]
        words = f"{loss:.4f} nats a token" if loss is not None else "is not finite, or no token is supervised"
        console.print(f"validation loss {words}", highlight=False)


def _state() -> PartialState:
    return join(cpu=not torch.accelerator.is_available())


def _bar(console: Console, hidden: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )


def _sweep(run: RunDirectory) -> None:
    """Delete the temporary files that a killed evaluation left beside what it was about to replace."""
    run.sweep()
    for leftover in run.submissions.glob(".*-*"):
        leftover.unlink()


def _read(task: Task, part: Split | Literal["train"], recipe: Recipe) -> Samples | None:
    return read_task(task, part, recipe.train.seed, skip=recipe.data.on_error == "skip")


def _questions(recipe: Recipe, split: Split, controls: bool) -> list[_Questions]:
    """What is asked, of each task that has a metric and the split.

    All data are read and all metrics tried before anything takes long.
    """
    asked = []
    for task in recipe.tasks:
        samples = _read(task, split, recipe) if task.metric is not None else None
        if samples is None:
            continue
        questions = _Questions(task, samples, scored=not is_unanswered(task, split))
        if controls and questions.scored:
            questions.majority = _majority(task, samples, recipe)
            questions.shuffled = with_shuffled_inputs(samples) if samples.modalities.any() else None
        asked.append(questions)
    return asked


def _validation(recipe: Recipe) -> Mixture:
    """All tasks' validation samples that have answers."""
    parts = {
        task.name: _read(task, "validation", recipe) for task in recipe.tasks if not is_unanswered(task, "validation")
    }
    return Mixture({name: samples for name, samples in parts.items() if samples is not None})


def _score(task: Task, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    assert task.metric is not None
    try:
        return METRICS[task.metric](answers, references)
    except DataError as error:
        raise DataError(f"task {task.name}: {error}") from error


def _majority(task: Task, samples: Sequence[Sample], recipe: Recipe) -> float | None:
    """The score of answering every question with the most frequent answer of the training part."""
    training = _read(task.model_copy(update={"merge": False, "max_turns": None}), "train", recipe)
    if training is None:
        return None
    answer, _ = Counter(sample.turns[-1].text for sample in training).most_common(1)[0]
    return _score(task, [answer] * len(samples), [sample.references for sample in samples]).value
