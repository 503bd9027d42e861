"""Weights divided by FSDP2: several processes find the losses, kappas and learning rates of one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import TrainingArguments

import tiny
from equipoise import BalancedTrainer, Coordination
from equipoise.errors import PartitionError
from equipoise.training import parallel
from equipoise.training.run_directory import RunDirectory
from processes import _fsdp_loop, _fsdp_trainer
from processes._fsdp_loop import CASES, rows
from training import _checkpoint

Command = Callable[..., dict[str, Any]]
Group = Callable[..., str]
CLOSE = 1e-6
EXAMPLES = Path(__file__).parents[2] / "examples" / "accelerate"
LAYERS = ["LlamaDecoderLayer", "CLIPEncoderLayer"]


def whole(done: dict[str, Any]) -> dict[str, Any]:
    assert not any(done["statuses"]), "\n".join(done["printed"])[-4000:]
    return done


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------------------------------- a bare loop


def loop(group: Group, out: Path, cases: list[str], steps: int, world: int, resume_at: str = "") -> None:
    arguments = [out, ",".join(cases), steps]
    if not (out / "rank-0-of-1.json").is_file():
        group(1, _fsdp_loop.__name__, *arguments, deadline=1200)
    group(world, _fsdp_loop.__name__, *arguments, resume_at, deadline=1200)
    found = rows(out, world)
    assert [row["case"] for row in found] == [name.name for name in CASES if name.name in cases]
    kept = {case.name for case in CASES if case.keeps}
    for row in found:
        assert row["same"], row
        assert max(row["loss"], row["kappa"], row["lr"]) < CLOSE, row
        assert row["kappas"] or row["case"].endswith("-cd"), row
        if row["case"] not in kept:  # a part of the model at most is whole in a process while it measures
            assert row["gathered"] < 0.5, row


def test_two_processes_measure_and_act_as_one_and_resume(group: Group, tmp_path: Path):
    # theta_{t-1} kept; made of AdamW's divided state; a look-back without a backward, which leaves the root gathered.
    cases = ["commit sampled lora", "commit lookback kept", "commit-clr lookback sgd"]
    loop(group, tmp_path, cases, steps=3, world=2, resume_at="2")


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 4])
def test_every_schedule_and_estimator_in_several_processes(group: Group, tmp_path: Path, world: int):
    loop(group, tmp_path, [case.name for case in CASES], steps=16, world=world, resume_at="8")


# ---------------------------------------------------------------------------------------------- accelerate's way


def test_balanced_trainer_follows_accelerates_fsdp2_and_resumes_bit_for_bit(group: Group, tmp_path: Path):
    one, two, again = tmp_path / "one", tmp_path / "two", tmp_path / "two-again"
    for folder in (one, two):
        folder.mkdir()
    group(1, _fsdp_trainer.__name__, one)
    group(2, _fsdp_trainer.__name__, two)
    alone, together = metrics(one), metrics(two)
    assert [line.keys() for line in alone] == [line.keys() for line in together]
    for name in ("loss", "kappa", "lr/llm", "regulariser_norm/projector"):
        pairs = [(a[name], b[name]) for a, b in zip(alone, together, strict=True) if name in a]
        assert len(pairs) >= 3
        assert all(a == pytest.approx(b, rel=CLOSE) for a, b in pairs), (name, pairs)
    trained = [torch.load(file, weights_only=True) for file in (one / "rank-0.pt", *two.glob("rank-*.pt"))]
    assert len(trained) == 3
    for other in trained[1:]:
        assert all(torch.allclose(other[name], value, rtol=1e-6, atol=1e-9) for name, value in trained[0].items())

    two.rename(again)
    expected = (again / "metrics.jsonl").read_bytes()
    group(2, _fsdp_trainer.__name__, again, again / "checkpoints" / "checkpoint-2")
    assert (again / "metrics.jsonl").read_bytes() == expected


def test_a_run_of_the_command_line_is_divided_killed_resumed_and_saved_whole(
    command: Command, checkpoint: Path, dataset: Path, tmp_path: Path
):
    config = {"version": 2, "transformer_layer_cls_to_wrap": LAYERS, "state_dict_type": "SHARDED_STATE_DICT"}
    fsdp = {"fsdp": True, "fsdp_config": config}

    def recipe(name: str, processes: int, arguments: dict[str, Any]) -> Path:
        settings = _checkpoint.settings(
            checkpoint, dataset, {"schedule": "commit", "estimator": "exact"}, dropout=0.0, arguments=arguments,
            batch_size=4 // processes, max_steps=4, save_steps=2, eval_steps=2,
        )  # fmt: skip
        settings["model"]["lora"]["merge"] = True
        return _checkpoint.write_recipe(tmp_path / f"{name}.yaml", settings)

    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    whole(command("train", recipe("one", 1, {}), "--out", one.path, processes=1))
    file = recipe("two", 2, fsdp)
    killed = command("train", file, "--out", two.path, processes=2, pretends=True, dies=[1, 3])
    assert any(killed["statuses"])
    whole(command("train", file, "--out", two.path, "--resume", processes=2, pretends=True))
    for a, b in zip(one.metrics(), two.metrics(), strict=True):
        assert a.keys() == b.keys()
        names = [name for name in ("loss", "validation_loss", "kappa") if name in a]
        assert all(b[name] == pytest.approx(a[name], rel=1e-3) for name in names)
    for folder, name in (("model", "adapter_model.safetensors"), ("merged", "model.safetensors")):
        saved = [load_file(run.path / folder / name) for run in (one, two)]
        assert saved[0].keys() == saved[1].keys()
        for key, value in saved[0].items():
            torch.testing.assert_close(saved[1][key], value, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------- what cannot be


def test_ignored_fsdp_settings_are_said(monkeypatch, caplog, tmp_path: Path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with caplog.at_level(logging.WARNING, logger="equipoise"):
        BalancedTrainer(tiny.full_llava(), arguments, coordination=Coordination("constant"))
    said = [record.getMessage() for record in caplog.records if "FSDP" in record.getMessage()]
    assert said == [
        "the FSDP settings are ignored: accelerate divides weights over several GPUs alone, and runs here as NO; "
        "every process holds the whole model"
    ]


def trainer(**of: Any) -> Any:
    """What `parallel.check` looks at, of a plain Trainer but for these."""
    state = SimpleNamespace(fsdp_plugin=of.pop("plugin", None), distributed_type="DistributedType.MULTI_GPU")
    accelerator = SimpleNamespace(state=state, parallelism_config=of.pop("parallelism", None))
    plain = {
        "is_fsdp_enabled": False,
        "is_deepspeed_enabled": False,
        "is_world_process_zero": lambda: True,
        "model": None,
    }
    arguments = SimpleNamespace(fsdp=None, save_strategy="steps")
    return SimpleNamespace(accelerator=accelerator, args=arguments, **{**plain, **of})


def plugin(version: int, saved: str = "SHARDED_STATE_DICT") -> SimpleNamespace:
    return SimpleNamespace(fsdp_version=version, state_dict_type=f"StateDictType.{saved}")


@pytest.mark.parametrize(
    ("found", "settings", "said"),
    [
        ({"is_deepspeed_enabled": True}, Coordination("commit"), "schedule commit, measure true under DeepSpeed"),
        ({"is_deepspeed_enabled": True}, Coordination("constant"), "allowed there: schedule constant, measure false"),
        ({"is_deepspeed_enabled": True}, Coordination("llm-lr-up", measure=False), "under DeepSpeed"),
        ({"is_fsdp_enabled": True, "plugin": plugin(1)}, Coordination("constant", measure=False),
         "set fsdp_version: 2"),
        ({"parallelism": SimpleNamespace(non_data_parallel_size=2)}, Coordination("commit-clr"), "2 processes to a"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_a_line(found: dict[str, Any], settings: Coordination, said: str):
    with pytest.raises(PartitionError) as error:
        parallel.check(trainer(**found), settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_deepspeed_and_fsdp2_are_allowed_what_they_can(caplog):
    parallel.check(trainer(is_deepspeed_enabled=True), Coordination("constant", measure=False))
    parallel.check(trainer(is_fsdp_enabled=True, plugin=plugin(2)), Coordination("commit"))
    assert not caplog.records


def test_sharded_checkpoints_that_would_lack_what_learns_are_refused():
    model = tiny.lora_llava()  # its projector learns beside the adapter
    with pytest.raises(PartitionError, match=r"multi_modal_projector\.linear_1\.weight learns and would be lost"):
        parallel.check(trainer(is_fsdp_enabled=True, plugin=plugin(2), model=model), Coordination("commit"))
    whole = trainer(is_fsdp_enabled=True, plugin=plugin(2, "FULL_STATE_DICT"), model=model)
    parallel.check(whole, Coordination("commit"))
    model.base_model.model.model.multi_modal_projector.requires_grad_(False)
    parallel.check(trainer(is_fsdp_enabled=True, plugin=plugin(2), model=model), Coordination("commit"))


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_launch_files_are_ones_that_accelerate_reads(file: Path):
    config = load_config_from_file(str(file))
    assert config.num_processes == 2
    if "fsdp" in file.stem:
        assert config.fsdp_config["fsdp_version"] == 2
    else:
        assert config.deepspeed_config["zero_stage"] == int(file.stem[-1])
