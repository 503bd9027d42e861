"""A bare loop whose model FSDP2 divides over forked processes, beside the same loop in one process.

usage: _fsdp_loop.py [--processes 2,4] [--steps 50] [--cases NAME,...]

For each case (model, optimizer, settings) the losses and kappas of one process at the same global batch are held
against those of several: each takes its rows of every micro-batch. Prints the largest relative differences; what must
hold exactly (DTensors, the same records in all processes, restored shards) raises.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

import tiny
from equipoise.errors import PartitionError
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.partition import partition
from equipoise.modules.processes import ALONE, Processes
from equipoise.recipe import Coordination
from equipoise.training.processes import TorchProcesses
from processes._forked_group import fork_group

SAMPLES = 12  # of a micro-batch, over all processes: divides by 2, 3 and 4
MICRO_BATCHES = 2
MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, str] | None]] = {
    "full": (lambda: without_dropout(tiny.full_llava()), None),
    "lora": (lambda: without_dropout(tiny.lora_llava(dropout=0.0)), None),
    "three": (lambda: without_dropout(tiny.llava()), tiny.TOWER_PATTERNS),
}
OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
}
ALL = SAMPLES * MICRO_BATCHES
#: The norms of what went in leave out a micro-batch that supervises nothing, and so depend on how samples are batched.
INPUTS = ("theory/H/", "theory/gradient_bound")


@dataclass(frozen=True)
class Case:
    """What is trained, and how it is balanced."""

    name: str
    settings: Coordination
    model: str = "full"
    optimizer: str = "adamw"
    keeps: bool = False  # reshard_after_forward off everywhere
    hybrid: bool = False  # of four processes, each two hold the whole model (HSDP)


def measuring(schedule: str, estimator: str, **more: Any) -> Coordination:
    return Coordination(schedule, estimator=estimator, window=5, every=2, samples=ALL, **more)


CASES = [
    Case("commit exact", measuring("commit", "exact")),
    Case("commit sampled lora", measuring("commit", "sampled"), model="lora"),
    Case("commit sampled sgd three", measuring("commit", "sampled", reference="vision_tower"), "three", "sgd"),
    Case("commit lookback kept", measuring("commit", "lookback"), keeps=True),
    Case("commit servo hybrid", measuring("commit", "sampled", controller="servo"), hybrid=True),
    Case("commit some", measuring("commit", "exact", regulariser_samples=ALL, theory=False), optimizer="sgd"),
    Case("commit-clr exact kept", measuring("commit-clr", "exact"), "three", keeps=True),
    Case("commit-clr lookback sgd", measuring("commit-clr", "lookback"), optimizer="sgd"),
    Case("commit-clr amplified", measuring("commit-clr", "sampled", amplification=4.0)),
    Case("constant sampled", measuring("constant", "sampled")),
    Case("constant lookback", measuring("constant", "lookback"), model="lora"),
    Case("encoder-lr-up exact", measuring("encoder-lr-up", "exact")),
    Case("llm-lr-up sampled", measuring("llm-lr-up", "sampled")),
    Case("feature-cd", measuring("feature-cd", "exact")),
    Case("language-cd", measuring("language-cd", "sampled"), model="lora"),
]


@dataclass
class Found:
    """What a run gave."""

    losses: list[float] = field(default_factory=list)
    records: list[dict[str, float]] = field(default_factory=list)
    most_gathered: float = 0.0  # of the model's numbers, in a forward of a measurement


def without_dropout(model: nn.Module) -> nn.Module:
    """Two processes draw other masks than one."""
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model


def batches_of(step: int, rank: int, world: int) -> list[tiny.Batch]:
    """The rows of one process; in every third step those of process 0 supervise nothing in the first micro-batch."""
    found = []
    for micro in range(MICRO_BATCHES):
        answers = [1 + (step + micro + sample) % 4 for sample in range(SAMPLES)]
        batch = tiny.llava_batch(answers, seed=1000 * step + micro)
        if step % 3 == 0 and micro == 0:
            batch["labels"][: SAMPLES // 2] = -100
        own = slice(rank * SAMPLES // world, (rank + 1) * SAMPLES // world)
        found.append({name: value[own] for name, value in batch.items()})
    return found


def loss_sum(model: nn.Module, batch: tiny.Batch) -> torch.Tensor:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits_BTV = model(**inputs).logits[:, :-1]
    return nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


def divided(model: nn.Module, keeps: bool = False, hybrid: bool = False) -> nn.Module:
    """Each layer of tower and LLM a group of its own, the rest the root's."""
    options: dict[str, Any] = {"reshard_after_forward": False} if keeps else {}  # by default all but the root's
    if hybrid and torch.distributed.get_world_size() == 4:
        options["mesh"] = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts"))
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[0].endswith(".layers"):
            fully_shard(module, **options)
    fully_shard(model, **options)
    model.set_force_sum_reduction_for_comms(True)  # gloo cannot average
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def watch_gathering(model: nn.Module, found: Found) -> None:
    """Note the largest part of the model that lies whole in a process while it measures."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    layers = [module for module in model.modules() if isinstance(module, FSDPModule) and module is not model]

    def look(*_: Any) -> None:
        if torch.is_grad_enabled():
            return
        whole = sum(p.numel() for p in model.parameters() if not isinstance(p, DTensor))
        found.most_gathered = max(found.most_gathered, whole / parameters)

    for layer in layers:
        layer.register_forward_hook(look)


def build(case: Case, world: int, steps: int) -> tuple[nn.Module, torch.optim.Optimizer, Coordinator]:
    """The case's model and what trains it, divided where there are several processes."""
    torch.manual_seed(3)
    make, patterns = MODELS[case.model]
    model = make()
    if world > 1:
        divided(model, case.keeps, case.hybrid)
    division = partition(model, patterns)
    optimizer = OPTIMIZERS[case.optimizer]([p for p in model.parameters() if p.requires_grad])
    processes: Processes = TorchProcesses(torch.device("cpu")) if world > 1 else ALONE
    coordinator = Coordinator(model, optimizer, case.settings, division, steps * 3 // 2, processes=processes)
    return model, optimizer, coordinator


def train(case: Case, rank: int, world: int, steps: int, out: Path, resume_at: int) -> Found:
    """Train; with `resume_at`, go on there from the state of the coordinator, model and optimizer, loaded anew."""
    found = Found()
    model, optimizer, coordinator = build(case, world, steps)
    if world > 1:
        watch_gathering(model, found)
    for step in range(steps):
        if step == resume_at:
            state = coordinator.state_dict()
            again = build(case, world, steps)
            again[0].load_state_dict(model.state_dict())
            again[1].load_state_dict(optimizer.state_dict())
            model, optimizer, coordinator = again
            if rank == 0:
                torch.save(state, out / "state.pt")
            if world > 1:
                torch.distributed.barrier()
            coordinator.load_state_dict(torch.load(out / "state.pt", weights_only=True))
        whole = batches_of(step, 0, 1)
        tokens = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in whole)
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches_of(step, rank, world):
            coordinator.observe(batch)
            share = loss_sum(model, batch) / tokens
            (share * world).backward()  # FSDP2 averages gradients
            total += share.detach()
        coordinator.before_step()
        optimizer.step()
        kept = [(p, local(p).clone()) for p in model.parameters()]
        found.records.append(coordinator.after_step())
        assert all(torch.equal(local(p), before) for p, before in kept), "a measurement changed the weights"
        if world > 1:
            assert all(isinstance(p, DTensor) for p in model.parameters())
            assert all(isinstance(p, DTensor) for group in optimizer.param_groups for p in group["params"])
            torch.distributed.all_reduce(total)
        found.losses.append(total.item())
    return found


def local(parameter: Any) -> torch.Tensor:
    return parameter.detach().to_local() if isinstance(parameter, DTensor) else parameter.detach()


def fails_cleanly(rank: int, world: int) -> None:
    """A forward that raises in a measurement leaves shards as they were, and the model good for another step."""
    case = CASES[0]
    model, optimizer, coordinator = build(case, world, 10)
    for step in range(3):
        batches = batches_of(step, rank, world)
        optimizer.zero_grad()
        for batch in batches:
            coordinator.observe(batch)
            (loss_sum(model, batch) / 10).backward()
        coordinator.before_step()
        optimizer.step()
        kept = [local(p).clone() for p in model.parameters()]
        if step == 1:
            calls = iter(range(100))

            def breaks(*_: Any, calls: Iterator[int] = calls) -> None:
                if next(calls) == 1:
                    raise RuntimeError("broken off")

            hook = model.get_decoder().layers[1].register_forward_pre_hook(breaks)
            with pytest.raises(RuntimeError, match="broken off"):
                coordinator.after_step()
            hook.remove()
            coordinator.close()
        else:
            coordinator.after_step()
        assert all(torch.equal(local(p), before) for p, before in zip(model.parameters(), kept, strict=True))
        assert all(isinstance(p, DTensor) for p in model.parameters())


def refuses_foreign(rank: int, world: int) -> None:
    """Divided weights and one process's numbers do not go together, nor another's DTensors."""
    model = divided(without_dropout(tiny.full_llava()))
    optimizer = OPTIMIZERS["sgd"]([p for p in model.parameters() if p.requires_grad])
    with pytest.raises(PartitionError, match=f"divided over {world} processes, and 1 measure together"):
        Coordinator(model, optimizer, CASES[0].settings, partition(model))


# ---------------------------------------------------------------------------------------------- processes


def main(out: str, cases: str, steps: str, resume_at: str = "") -> None:
    """Be one process of a group; what it found is in OUT/rank-R-of-N.json."""
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world > 1:
        torch.distributed.init_process_group("gloo")
    results = {}
    for case in CASES:
        if case.name in cases.split(","):
            results[case.name] = vars(train(case, rank, world, int(steps), Path(out), int(resume_at or -1)))
    if world > 1:
        fails_cleanly(rank, world)
        refuses_foreign(rank, world)
        torch.distributed.destroy_process_group()
    Path(out, f"rank-{rank}-of-{world}.json").write_text(json.dumps(results))


def results(out: Path, world: int) -> list[dict[str, Any]]:
    """What each process found, by case."""
    return [json.loads((out / f"rank-{rank}-of-{world}.json").read_text()) for rank in range(world)]


def rows(out: Path, world: int) -> list[dict[str, Any]]:
    """For each case, one process beside several: see `difference`."""
    (one,), several = results(out, 1), results(out, world)
    found = []
    for name, alone in one.items():
        together = several[0][name]
        assert all(math.isfinite(loss) for loss in alone["losses"])
        same = all(other[name]["records"] == together["records"] for other in several)
        kappas = sum("kappa" in record for record in together["records"])
        found.append({"processes": world, "case": name, "same": same, "kappas": kappas,
                      "gathered": together["most_gathered"], **difference(alone, together)})  # fmt: skip
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The largest relative differences of two runs, of losses, kappas, learning rates and all else recorded."""
    found = {"loss": 0.0, "kappa": 0.0, "lr": 0.0, "rest": 0.0}
    for a, b in zip(one["losses"], other["losses"], strict=True):
        found["loss"] = max(found["loss"], abs(a - b) / abs(a))
    for a, b in zip(one["records"], other["records"], strict=True):
        assert a.keys() == b.keys(), a.keys() ^ b.keys()
        for name, value in a.items():
            if value == b[name] or name.startswith(INPUTS):
                continue
            kind = name.split("/")[0].split("_")[0]
            kind = kind if kind in found else "rest"
            apart = abs(value - b[name]) / max(abs(value), 1e-12)
            found[kind] = max(found[kind], apart)
    return found


def harness() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", default="2,4")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for world in (1, *map(int, options.processes.split(","))):
            script = ["_fsdp_loop", folder, options.cases, str(options.steps)]
            done = fork_group({"processes": world, "script": script, "deadline": math.inf}, lambda _: None)
            if any(done["statuses"]):
                sys.exit("\n".join(done["printed"]))
            for row in rows(Path(folder), world) if world > 1 else ():
                figures = "  ".join(f"{kind} {row[kind]:.1e}" for kind in ("loss", "kappa", "lr", "rest"))
                print(f"{world} processes  {row['case']:26s} {row['kappas']:3d} kappas  {figures}  "
                      f"same on all: {row['same']}  gathered at most {row['gathered']:.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    harness()
