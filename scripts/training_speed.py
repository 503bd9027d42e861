"""How fast plain training is, beside transformers' Trainer: steps of several Trainers in turn, in one process.

    python scripts/training_speed.py [PRECISION] [STEPS]

Each Trainer runs its own whole loop (data, forward, backward, clipping, optimizer, logging) in a thread of its own;
only one has the turn, for a step, and the order changes every round. All have the same weights, batches and random
numbers: easy-VQA, batches of 8, the embedded vision stack with LoRA and the projector in full. Prints for each the
median step, the median over rounds of transformers' step of the same round divided by its own, and how far its losses
are from transformers'. `PRECISION` is float32 or bf16 (autocast).

glibc gives memory back and fetches it again at every step; for all Trainers alike this is kept out by
`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456`.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from equipoise import BalancedTrainer, Coordination
from equipoise.data.collate import Collator
from equipoise.data.tasks import read_task
from equipoise.models import loading
from equipoise.models.adapters import learn_in_float32
from equipoise.models.feature_cache import caching
from equipoise.recipe import load_recipe

PRECISION = sys.argv[1] if len(sys.argv) > 1 else "float32"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 20
WARM_UP = 3  # rounds that do not count
OFF: dict[str, Any] = {"supervised_logits": False, "feature_cache": 0}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "transformers' Trainer": None,
    "BalancedTrainer, no fast path": OFF,
    "supervised logits": {**OFF, "supervised_logits": True},
    "feature cache, empty": {**OFF, "feature_cache": 256},
    "feature cache, full": {**OFF, "feature_cache": 256},
    "both, cache full": {"feature_cache": 256},
}


class Turns(TrainerCallback):
    """Hands the turn on at the end of every step, with the random generator as this Trainer left it."""

    def __init__(self, rounds: Rounds, name: str):
        self.rounds, self.name = rounds, name
        self.seconds: list[float] = []
        self._state: torch.Tensor | None = None
        self._began = 0.0

    def take(self) -> None:
        self.rounds.wait_for(self.name)
        if self._state is not None:
            torch.set_rng_state(self._state)
        self._began = time.perf_counter()

    def give(self) -> None:
        self.seconds.append(time.perf_counter() - self._began)
        self._state = torch.get_rng_state()
        self.rounds.next()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.give()
        self.take()


class Rounds:
    """Whose turn it is: everybody once a round, in an order that is drawn anew."""

    def __init__(self, names: list[str]):
        self.names = names
        self._draw = random.Random(0)
        self._order: list[str] = []
        self._condition = threading.Condition()
        self.next()

    def next(self) -> None:
        with self._condition:
            if not self._order:
                self._order = self._draw.sample(self.names, len(self.names))
            self.current = self._order.pop()
            self._condition.notify_all()

    def wait_for(self, name: str) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.current == name)


class InOrder(Trainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class BalancedInOrder(BalancedTrainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def main() -> None:
    recipe = load_recipe(Path(__file__).parents[1] / "recipes/smol-vlm.yaml")
    collator = Collator(loading.load_processor(recipe.model))
    everything = read_task(recipe.tasks[0], "train", 0)
    samples = random.Random(0).sample(list(everything), (STEPS + WARM_UP) * recipe.train.batch_size)
    rounds = Rounds(list(VARIANTS))
    turns = {name: Turns(rounds, name) for name in VARIANTS}
    scratch = tempfile.TemporaryDirectory()
    shared: dict[str, torch.Tensor] = {}
    trainers: dict[str, Trainer] = {}
    for name, options in VARIANTS.items():
        set_seed(0)
        model = loading.load(recipe.model)
        if PRECISION != "float32":
            learn_in_float32(model)
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:  # one copy of what nobody changes
                parameter.data = shared.setdefault(key, parameter.data)
        arguments = TrainingArguments(
            output_dir=f"{scratch.name}/{name}", use_cpu=not torch.cuda.is_available(), max_steps=STEPS + WARM_UP,
            per_device_train_batch_size=recipe.train.batch_size, learning_rate=recipe.train.learning_rate,
            lr_scheduler_type="cosine", bf16=PRECISION == "bf16", logging_steps=1, save_strategy="no",
            report_to="none", remove_unused_columns=False, dataloader_pin_memory=False, label_names=["labels"],
            disable_tqdm=True, seed=0,
        )  # fmt: skip
        common = {"model": model, "args": arguments, "data_collator": collator, "train_dataset": samples}
        if options is None:
            trainer: Trainer = InOrder(**common)
        else:
            still = Coordination("constant", measure=False)
            trainer = BalancedInOrder(**common, coordination=still, **options)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(turns[name])
        if "full" in name:
            fill(trainer, samples, collator)
        trainers[name] = trainer

    def run(name: str) -> None:
        turns[name].take()
        set_seed(0)
        trainers[name].train()
        rounds.next()

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in VARIANTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scratch.cleanup()
    report(turns, trainers)


def fill(trainer: Any, samples: Any, collator: Collator) -> None:
    """Encode the images of all samples beforehand, as an earlier epoch would have."""
    with caching(trainer.model, trainer._feature_cache), torch.no_grad():
        for first in range(0, len(samples), 8):
            batch = collator(samples[first : first + 8])
            with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bf16"):
                trainer.model(**{name: value for name, value in batch.items() if name != "labels"}, logits_to_keep=1)


def report(turns: dict[str, Turns], trainers: dict[str, Trainer]) -> None:
    base, *_ = VARIANTS
    losses = {
        name: [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        for name, trainer in trainers.items()
    }
    print(f"{PRECISION}, {STEPS} steps, {torch.get_num_threads()} threads")
    for name in VARIANTS:
        times, others = (turns[each].seconds[WARM_UP : WARM_UP + STEPS] for each in (name, base))
        ratios = [other / own for other, own in zip(others, times, strict=True)]
        apart = max(abs(one - other) / other for one, other in zip(losses[name], losses[base], strict=True))
        print(
            f"{name:32} {1000 * statistics.median(times):7.0f} ms  {statistics.median(ratios):5.2f} times as fast  "
            f"losses within {100 * apart:.3f} %"
        )


if __name__ == "__main__":
    main()
