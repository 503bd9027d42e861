"""What the log calls loss: the mean negative log-likelihood a supervised token, whatever the micro-batches.

The reference formats, tokenises and scores the samples one at a time, without our collator or transformers' loss.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor

from equipoise.data.readers import jsonl
from equipoise.data.sample import Sample
from equipoise.evaluation.evaluate import evaluate
from equipoise.models import loading
from equipoise.recipe import Recipe
from equipoise.training.run import train
from equipoise.training.run_directory import RunDirectory
from training._compare import steps

IMAGE_TOKENS = 4
ANSWER_FROM = "<|im_start|>assistant\n"


def reference(model: torch.nn.Module, processor: Any, samples: list[Sample]) -> float:
    """Mean over all tokens of all answers, each answer with the token that ends it."""
    total, tokens = 0.0, 0
    for sample in samples:
        question, answer = (turn.text for turn in sample.turns)
        prompt = f"<|im_start|>user\n{'<image>' * IMAGE_TOKENS}{question}<|im_end|>\n{ANSWER_FROM}"
        ask, reply = (
            processor.tokenizer(t, add_special_tokens=False).input_ids for t in (prompt, f"{answer}<|im_end|>")
        )
        with Image.open(sample.images[0]) as image:
            pixels = processor.image_processor(image.convert("RGB"), return_tensors="pt").pixel_values
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ask + reply]), pixel_values=pixels).logits[0]
        log_probs = torch.log_softmax(logits[len(ask) - 1 : -1].double(), dim=-1)
        total -= log_probs[range(len(reply)), reply].sum().item()
        tokens += len(reply)
    return total / tokens


@pytest.fixture(scope="module")
def run(make_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two steps, each over all 24 samples in six micro-batches; no dropout."""
    recipe = make_recipe(
        {"schedule": "constant", "measure": False}, dropout=0.0, max_steps=2, batch_size=4, gradient_accumulation=6,
        eval_steps=2, lr_scheduler="constant", optimizer="sgd", learning_rate=0.01, max_grad_norm=0.0,
    )  # fmt: skip
    console = Console(file=io.StringIO())
    finished = train(recipe, tmp_path_factory.mktemp("run") / "run", console)
    evaluate(finished, console)
    return finished


def test_logged_loss_is_the_mean_over_the_accumulated_batchs_tokens(
    run: RunDirectory, checkpoint: Path, dataset: Path
) -> None:
    untuned = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    samples = list(jsonl.read("colours", "train", dataset))
    expected = reference(untuned, AutoProcessor.from_pretrained(checkpoint), samples)
    assert steps(run)[0]["loss"] == pytest.approx(expected, rel=1e-5)
    # The answers' lengths differ enough for a mean of samples' means to be another number.
    processor = AutoProcessor.from_pretrained(checkpoint)
    by_sample = [reference(untuned, processor, [sample]) for sample in samples]
    assert abs(sum(by_sample) / len(by_sample) - expected) > 1e-3 * expected


@pytest.mark.parametrize("source", ["metrics.jsonl", "scores.json"])
def test_validation_loss_is_the_mean_over_all_tokens(
    run: RunDirectory, checkpoint: Path, dataset: Path, source: str
) -> None:
    tuned = loading.load_tuned(run.recipe().model, run.model)
    samples = list(jsonl.read("colours", "validation", dataset))
    expected = reference(tuned, AutoProcessor.from_pretrained(checkpoint), samples)
    scores = run.scores()
    assert scores is not None
    logged = [line["validation_loss"] for line in run.metrics() if "validation_loss" in line]
    found = logged[-1] if source == "metrics.jsonl" else scores["validation_loss"]
    assert found == pytest.approx(expected, rel=1e-5)
