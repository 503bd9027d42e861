"""The run that stands for all probes where there is a budget: a warm start and, from it, stretches.

An ordinary training run but for three things: which samples it sees is the itinerary's, and so is the learning rate;
and where a stretch ends, validation answers are read and everything goes back to where the warm start ended. So it is
resumed like any other.

| file | what |
| --- | --- |
| `warm.pt` | what the warm start has learnt, with the optimizer's and the balance's state |
| `read/STRETCH.json` | what was read after a stretch, by task, an answer each |
| `read/gradients.json` | by giving task, by receiving one, the products of their gradients after `mini` |
| `seconds/STRETCH.json` | how long the reading took |
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerCallback

from equipoise.data.collate import Collator
from equipoise.data.mixture import Mixture
from equipoise.data.processing import draw
from equipoise.data.sample import Sample
from equipoise.data.store import Samples
from equipoise.data.tasks import read_task
from equipoise.evaluation.forced import Reading, read_answers
from equipoise.modules.forward import supervised
from equipoise.recipe import Recipe
from equipoise.tasks.contribution import MINI
from equipoise.tasks.gradients import Products
from equipoise.tasks.itinerary import Itinerary
from equipoise.tasks.learning_curve import full_scores
from equipoise.training.run import RunTrainer, train
from equipoise.training.run_directory import replacing, write_json
from equipoise.training.task_weighting import TaskCollator

WARM, READ, SECONDS, PRODUCTS = "warm.pt", "read", "seconds", "gradients.json"


def run_stretches(recipe: Recipe, itinerary: Itinerary, folder: Path, console: Console, name: str) -> dict[str, Any]:
    """Make the run, or what is left of it.

    Args:
        recipe: with as many steps as the itinerary, of as many samples.
        folder: the run directory.
        name: shown beside the progress.

    Returns:
        `runs`: the scores that the full probes would give, by run, by task; `itinerary`: what it did.

    Raises:
        EquipoiseError: as `train`.
    """
    for leftover in [*(folder / READ).glob(".*"), *(folder / SECONDS).glob(".*")]:
        leftover.unlink()  # of a killed process
    train(recipe, folder, console, resume=True, name=name, kind=partial(StretchTrainer, itinerary=itinerary))
    runs = full_scores(probabilities(folder, itinerary), itinerary, products_of(folder, itinerary))
    return {"runs": runs, "itinerary": asdict(itinerary)}


def products_of(folder: Path, itinerary: Itinerary) -> Products:
    """What `alignments` takes; empty where no gradients were taken."""
    if not itinerary.compared:
        return {}
    found: Products = json.loads((folder / READ / PRODUCTS).read_text(encoding="utf-8"))
    return found


def probabilities(folder: Path, itinerary: Itinerary) -> dict[str, dict[str, list[float]]]:
    """By stretch, by task, of each answer that a finished run has read."""
    found = {}
    for stretch in itinerary.stretches:
        read = json.loads((folder / READ / f"{stretch}.json").read_text(encoding="utf-8"))
        found[stretch] = {
            task: [Reading(**reading).probability for reading in readings] for task, readings in read.items()
        }
    return found


def seconds_of_reading(folder: Path) -> float:
    """How long answers were read, all stretches together."""
    return sum(json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / SECONDS).glob("*.json")))


class StretchTrainer(RunTrainer):
    """A RunTrainer that makes an itinerary."""

    def __init__(self, *args: Any, itinerary: Itinerary, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.itinerary = itinerary
        self.add_callback(_Ends(self))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        mixture = train_dataset if train_dataset is not None else self.train_dataset
        assert isinstance(mixture, Mixture)
        starts = dict(zip(mixture.parts, mixture.starts.tolist(), strict=False))
        return [starts[task] + number for task, number in self.itinerary.draws(self.recipe.train.seed)]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """The itinerary's rates."""
        if self.lr_scheduler is None:
            rate = partial(self.itinerary.rate, warmup=self.recipe.train.warmup)
            chosen: Any = optimizer if optimizer is not None else self.optimizer
            self.lr_scheduler = LambdaLR(chosen, rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def end_stretch(self, stretch: str) -> None:
        """A stretch has ended; the warm start where the name is empty."""
        file = self._run.path / WARM
        if not stretch:
            with replacing(file) as opened:
                torch.save(self._learnt(), opened)
            return
        began = time.monotonic()
        write_json(self._run.path / READ / f"{stretch}.json", self._read())
        if stretch == MINI and self.itinerary.compared:
            write_json(self._run.path / READ / PRODUCTS, self._products())
        write_json(self._run.path / SECONDS / f"{stretch}.json", time.monotonic() - began)
        # From the file always, so that a run which was killed goes on as one which was not.
        self._go_back(torch.load(file, weights_only=True))

    def _read(self) -> dict[str, list[dict[str, float]]]:
        assert self.model is not None
        model, size = self.model, 2 * self.args.per_device_eval_batch_size  # nothing is kept for a backward pass
        readings = {task: read_answers(model, self._collator, samples, size) for task, samples in self._answers.items()}
        return {task: [asdict(reading) for reading in found] for task, found in readings.items()}

    def _products(self) -> dict[str, dict[str, list[list[float]]]]:
        """Of each task's gradient on training samples with each's on validation answers, half by half."""
        mixture, compared = self.train_dataset, self.itinerary.compared
        assert isinstance(mixture, Mixture)
        sides = [
            {
                task: [mixture.parts[task][number] for number in numbers]
                for task, numbers in self.itinerary.compares(self.recipe.train.seed).items()
            },
            {task: samples[:compared] for task, samples in self._answers.items()},
        ]
        given, wanted = (
            {
                task: [self._gradient(half) for half in (samples[: compared // 2], samples[compared // 2 :])]
                for task, samples in side.items()
            }
            for side in sides
        )
        return {
            giver: {taker: [[float(g @ h) for h in others] for g in halves] for taker, others in wanted.items()}
            for giver, halves in given.items()
        }

    def _gradient(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Of the mean loss a token, of all that learns: in main memory, one number a parameter."""
        assert self.model is not None
        model, size = self.model, self.args.per_device_train_batch_size
        parameters = [parameter for _, parameter in self.division.parameters()]
        tokens = 0
        with differentiating(model):
            for first in range(0, len(samples), size):
                inputs = self._prepare_inputs(self._collator(samples[first : first + size]))
                said = supervised(model, inputs)
                loss = torch.nn.functional.cross_entropy(said.logits_KV, said.labels_K, reduction="sum")
                loss.backward()  # not accelerate's, which scales it under fp16
                tokens += said.labels_K.numel()
            parts = [
                p.grad.flatten().float().cpu() if p.grad is not None else torch.zeros(p.numel()) for p in parameters
            ]
            model.zero_grad()
        return torch.cat(parts) / tokens

    @property
    def _collator(self) -> Collator:
        collator = self.data_collator.collator if isinstance(self.data_collator, TaskCollator) else self.data_collator
        assert isinstance(collator, Collator)
        return collator

    @cached_property
    def _answers(self) -> dict[str, Samples]:
        """What is read of each task's validation part."""
        recipe, found = self.recipe, {}
        for task in recipe.tasks:
            if (count := self.itinerary.answers.get(task.name)) is not None:
                samples = read_task(task, "validation", recipe.train.seed, recipe.data.on_error == "skip")
                assert samples is not None
                rows = draw(len(samples), count, f"{recipe.train.seed}/{task.name}/{READ}")
                found[task.name] = samples.select(rows)
        return found

    def _learnt(self) -> dict[str, Any]:
        """All that training has changed."""
        assert self.coordinator is not None
        return {
            "weights": {name: parameter.detach().cpu() for name, parameter in self.division.parameters()},
            "optimizer": {name: dict(self._moments.get(p, {})) for name, p in self.division.parameters()},
            "modules": self.coordinator.state_dict(),
        }

    def _go_back(self, learnt: dict[str, Any]) -> None:
        assert self.coordinator is not None
        for name, parameter in self.division.parameters():
            with torch.no_grad():
                parameter.copy_(learnt["weights"][name])
            self._moments[parameter] = {
                # Numbers of steps stay where the optimizer keeps them, on the CPU.
                key: value.to(parameter.device) if isinstance(value, torch.Tensor) and value.dim() else value
                for key, value in learnt["optimizer"][name].items()
            }
        self.coordinator.load_state_dict(learnt["modules"])

    @property
    def _moments(self) -> Any:
        """The optimizer's state by parameter."""
        optimizer: Any = self.optimizer
        return getattr(optimizer, "optimizer", optimizer).state


@contextmanager
def differentiating(model: torch.nn.Module) -> Iterator[None]:
    """Take gradients inside, without dropout; flags and random states come back, and no gradient is left before."""
    flags = {module: module.training for module in model.modules()}
    with torch.random.fork_rng():
        try:
            model.eval()
            model.zero_grad()
            yield
        finally:
            for module, flag in flags.items():
                module.training = flag


class _Ends(TrainerCallback):
    """Tells the trainer where stretches end."""

    def __init__(self, trainer: StretchTrainer):
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        stretch = self.trainer.itinerary.ends.get(state.global_step)
        if stretch is not None:
            self.trainer.end_stretch(stretch)
