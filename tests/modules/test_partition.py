"""Which parameter belongs to which module; what is refused, and how; param groups that follow the modules."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import tiny
from equipoise.errors import PartitionError
from equipoise.modules.partition import find_decoder, partition, split_param_groups


def owned(
    model: nn.Module, patterns: dict[str, str] | None = None, family: dict[str, list[str]] | None = None
) -> dict[str, set[str]]:
    return {name: set(module.trainable) for name, module in partition(model, patterns, family).modules.items()}


@pytest.mark.parametrize("kind", tiny.LLAVAS)
def test_each_trainable_parameter_is_in_exactly_one_module(kind):
    build, patterns = tiny.LLAVAS[kind]
    model = build()
    modules = owned(model, patterns)
    listed = [name for names in modules.values() for name in names]
    assert sorted(listed) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    for module, names in modules.items():
        assert names == set(tiny.names_of(model, module)), module


def test_the_parameters_are_the_models_own():
    model = tiny.lora_llava()
    own = dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in partition(model).parameters())


def test_encoders_come_first_and_the_llm_last():
    assert list(partition(tiny.llava(), tiny.TOWER_PATTERNS).modules) == ["vision_tower", "projector", "llm"]


def test_what_nobody_names_is_the_encoder():
    model = tiny.llava()
    modules = owned(model, {"projector": "projector"})
    assert list(modules) == ["projector", "encoder", "llm"]
    assert modules["encoder"] == set(tiny.names_of(model, "vision_tower"))


def test_frozen_modules_are_listed_and_counted_but_do_not_learn():
    model = tiny.full_llava()
    division = partition(model, tiny.TOWER_PATTERNS)
    tower = division.modules["vision_tower"]
    assert (tower.kind, tower.size) == ("frozen", 0)
    assert tower.frozen == sum(p.numel() for p in model.model.vision_tower.parameters())
    assert list(division.trainable) == ["projector", "llm"]


@pytest.mark.parametrize(("build", "kind"), [(tiny.lora_llava, "LoRA"), (tiny.full_llava, "full")])
def test_kind_and_size_of_the_llm(build, kind):
    model = build()
    llm = partition(model).modules["llm"]
    assert llm.kind == kind
    assert llm.size == sum(p.numel() for n, p in model.named_parameters() if n in tiny.names_of(model, "llm"))


def test_patterns_are_searched_in_names_without_pefts_prefix():
    model = tiny.lora_llava()
    modules = owned(model, {"projector": r"^model\.multi_modal_projector\."})
    assert modules["projector"] == set(tiny.names_of(model, "projector"))


def test_a_pattern_takes_precedence_over_the_decoder():
    modules = owned(tiny.full_llava(), {"head": r"^lm_head"})
    assert modules["head"] == {"lm_head.weight"}
    assert "lm_head.weight" not in modules["llm"]


def test_family_names_only_what_patterns_leave():
    model = tiny.llava()
    family = {"tower": ["model.vision_tower"], "connector": ["model.multi_modal_projector"]}
    division = partition(model, {"projector": "multi_modal_projector"}, family)
    assert list(division.modules) == ["tower", "projector", "llm"]  # a family name without parameters is no module
    assert set(division.modules["tower"].trainable) == set(tiny.names_of(model, "vision_tower"))


def test_family_names_are_whole_names_or_what_lies_below_them():
    modules = owned(tiny.llava(), {}, {"a": ["model.vision"], "b": ["lm_head.weight"], "c": ["model.vision_tower.x"]})
    assert "a" not in modules
    assert modules["b"] == {"lm_head.weight"}
    assert "c" not in modules


def test_family_takes_what_lies_inside_the_decoder_and_the_innermost_name_decides():
    layers = "model.language_model.layers"
    modules = owned(tiny.llava(), {}, {"outer": [f"{layers}.1"], "inner": [f"{layers}.1.mlp"]})
    assert modules["inner"] == {f"{layers}.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    assert modules["outer"]
    assert all(name.startswith(f"{layers}.1.") and ".mlp." not in name for name in modules["outer"])
    assert any(name.startswith(f"{layers}.0.mlp") for name in modules["llm"])
    assert not any(name.startswith(f"{layers}.1.") for name in modules["llm"])


def test_pefts_second_copy_of_a_module_to_save_is_in_no_module():
    config = LoraConfig(r=2, target_modules=tiny.LORA_TARGETS, modules_to_save=["multi_modal_projector"])
    model = get_peft_model(tiny.llava(), config)
    encoder = partition(model, {"projector": "multi_modal_projector"}).modules["projector"]
    assert len(encoder.trainable) == 4
    assert all(".modules_to_save." in name for name in encoder.trainable)
    assert encoder.frozen == 0


class Wrapper(nn.Module):
    """As DistributedDataParallel is to partitioning: the model under `module`, and nothing else."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.module = model


@pytest.mark.parametrize("build", [tiny.full_llava, tiny.lora_llava])
def test_a_data_parallel_wrapper_changes_no_modules_parameters(build):
    model = build()
    if hasattr(model, "lm_head"):
        model.lm_head.requires_grad_(True)
    bare, wrapped = partition(model), partition(Wrapper(model), {"encoder": r"^model\.(vision|multi)"})
    assert find_decoder(Wrapper(model)) is find_decoder(model)
    for name in ("encoder", "llm"):
        assert set(wrapped.modules[name].trainable) == {f"module.{n}" for n in bare.modules[name].trainable}


# ---------------------------------------------------------------------------------------------- refusals


def test_overlapping_patterns_are_refused_by_parameter_and_modules():
    patterns = {"tower": "vision", "first": r"layers\.0"}
    with pytest.raises(PartitionError, match=r"layers\.0\S* is claimed by modules tower and first"):
        partition(tiny.llava(), patterns)


def test_a_pattern_without_parameters_is_refused():
    with pytest.raises(PartitionError, match=r"module audio: its pattern 'audio_tower' matches no parameter"):
        partition(tiny.llava(), {"audio": "audio_tower"})


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(PartitionError, match=r"module tower: pattern '\(vision' is not a regular expression"):
        partition(tiny.llava(), {"tower": "(vision"})


def test_a_model_without_recognisable_llm_is_refused_with_the_way_out():
    with pytest.raises(PartitionError, match=r"Toy has no recognisable LLM.*modules: \{llm: REGEX\}"):
        partition(tiny.Toy(), {"tower": "tower"})


def test_a_named_llm_needs_no_recognisable_one():
    assert list(partition(tiny.Toy(), tiny.TOY_PATTERNS).modules) == ["tower", "projector", "llm"]


def test_balance_needs_an_llm_that_learns():
    model = tiny.llava()
    model.model.language_model.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    with pytest.raises(PartitionError, match=r"module llm has no trainable parameter; schedule commit.*LoRA"):
        partition(model, tiny.TOWER_PATTERNS).require_balance("schedule commit")


def test_balance_needs_two_modules_that_learn():
    model = tiny.full_llava()
    model.model.multi_modal_projector.requires_grad_(False)
    with pytest.raises(
        PartitionError, match=r"only llm has trainable parameters \(encoder: none\); measuring needs two"
    ):
        partition(model).require_balance("measuring")


# ---------------------------------------------------------------------------------------------- param groups


def decayed_groups(model: nn.Module) -> list[dict]:
    """As Trainer builds them: weights decay, biases do not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if not name.endswith("bias")], "weight_decay": 0.1},
        {"params": [p for name, p in named if name.endswith("bias")], "weight_decay": 0.0},
    ]


def test_split_groups_hold_one_module_each_and_keep_their_options():
    model, division = tiny.toy(tower_learns=True)
    optimizer = torch.optim.AdamW(decayed_groups(model), lr=1e-3, betas=(0.8, 0.9))
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}

    split_param_groups(optimizer, division)

    found = {}
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (1e-3, (0.8, 0.9))
        for parameter in group["params"]:
            found[id(parameter)] = group["module"]
            assert group["weight_decay"] == decay_of[id(parameter)]
    assert found == {id(p): name for name, m in division.trainable.items() for p in m.trainable.values()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    assert [(g["module"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("tower", 0.1), ("projector", 0.1), ("llm", 0.1), ("tower", 0.0), ("projector", 0.0), ("llm", 0.0)
    ]  # fmt: skip


def test_split_groups_take_the_learning_rates_that_are_named():
    model, division = tiny.toy()
    optimizer = torch.optim.AdamW(decayed_groups(model), lr=1e-3)
    split_param_groups(optimizer, division, {"projector": 5e-2})
    assert {(g["module"], g["lr"]) for g in optimizer.param_groups} == {("projector", 5e-2), ("llm", 1e-3)}
    assert {(g["module"], g.get("initial_lr")) for g in optimizer.param_groups} >= {("projector", 5e-2)}
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert set(scheduler.get_last_lr()) == {2.5e-2, 5e-4}


def test_split_drops_frozen_parameters():
    model, division = tiny.toy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    split_param_groups(optimizer, division)
    assert [group["module"] for group in optimizer.param_groups] == ["projector", "llm"]


def test_split_refuses_parameters_of_another_model():
    stranger = nn.Parameter(torch.zeros(3, 7))
    with pytest.raises(PartitionError, match=r"shape \(3, 7\) .*no module"):
        split_param_groups(torch.optim.SGD([stranger], lr=1.0), tiny.toy()[1])
