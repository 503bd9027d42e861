"""How well the cheap drift estimators agree with the exact one, on one trajectory of the embedded stack.

    python scripts/estimator_agreement.py [STEPS] [SEED]

Trains with `commit` as the demo does (batch 8, LoRA, projector in full) and measures every step four ways on the same
parameters: `exact`, `sampled` with 2 and with 4 of the 8 samples, and `lookback` (a step later, on the next batch, with
dropout). Prints Pearson's r and the RMSE of log kappa against `exact`, and the RMSE of the learning-rate factors after
pooling over the demo's window.
"""

import math
import random
import statistics
import sys
from pathlib import Path

import torch

from equipoise.data.collate import Collator
from equipoise.data.tasks import read_task
from equipoise.models import loading
from equipoise.modules.coefficient import BalanceWindow, coordinated_factors
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.drift import measure
from equipoise.modules.forward import subset
from equipoise.modules.snapshot import snapshot
from equipoise.recipe import load_recipe

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
recipe = load_recipe(Path(__file__).parents[1] / "src/equipoise/recipes/demo.yaml", [f"train.seed={seed}"])
rate = recipe.train.learning_rate
assert isinstance(rate, float)

torch.manual_seed(seed)
model = loading.load(recipe.model)
division = loading.divide(model, recipe.model)
collate = Collator(loading.load_processor(recipe.model))
samples = read_task(recipe.tasks[0], "train", seed)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
coordinator = Coordinator(model, optimizer, recipe.balance.modules, division, steps)
draw = random.Random(seed)

drifts: dict[str, dict[int, dict[str, float]]] = {"exact": {}, "sampled 4/8": {}, "sampled 2/8": {}, "lookback": {}}
for step in range(steps):
    model.train()
    batch = collate(draw.sample(samples, recipe.train.batch_size))
    coordinator.observe(batch)
    model(**batch).loss.backward()
    coordinator.before_step()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    before = snapshot(dict(division.parameters()))
    optimizer.step()
    drifts["exact"][step] = measure(model, division, before, [batch]).by_module
    for count in (4, 2):
        part = subset(batch, torch.randperm(8)[:count])
        drifts[f"sampled {count}/8"][step] = measure(model, division, before, [part]).by_module
    record = coordinator.after_step()
    if "lookback_drift/llm" in record:
        drifts["lookback"][step - 1] = {name: record[f"lookback_drift/{name}"] for name in division.trainable}
    optimizer.zero_grad()
    print(f"step {step + 1}/{steps}", end="\r", file=sys.stderr, flush=True)


def log_kappa(found: dict[str, float]) -> float:
    return math.log(found["llm"] / found["projector"])


def pooled_factors(by_step: dict[int, dict[str, float]]) -> dict[int, float]:
    """The LLM's learning-rate factor after each step, from the window's averages."""
    window = BalanceWindow(division.trainable, "projector", recipe.balance.modules.window)
    factors = {}
    for step, found in sorted(by_step.items()):
        window.push(step, found)
        averages = window.averages()
        assert averages is not None
        factors[step] = coordinated_factors(averages)["llm"]
    return factors


print(f"{'estimator':12s}  r of log kappa  RMSE of log kappa  RMSE of LR factor   ({steps} steps, seed {seed})")
truth = drifts.pop("exact")
true_factors = pooled_factors(truth)
for name, by_step in drifts.items():
    shared = sorted(set(by_step) & set(truth))
    ours, theirs = [log_kappa(by_step[s]) for s in shared], [log_kappa(truth[s]) for s in shared]
    factors = pooled_factors(by_step)
    r = statistics.correlation(ours, theirs)
    spread = math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)))
    factor_error = math.sqrt(statistics.fmean((factors[s] - true_factors[s]) ** 2 for s in shared))
    print(f"{name:12s}  {r:14.3f}  {spread:17.3f}  {factor_error:17.3f}")
