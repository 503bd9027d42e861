"""Frozen towers encode a row once: to the last bit what the row alone gives, and nothing where that cannot be."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from equipoise.models.feature_cache import caching, has_dropout, towers
from equipoise.models.feature_store import FeatureCache
from models import zoo
from tiny import full_llava, llava, llava_batch, lora_llava

TOWERS = {
    "llava": {"model.vision_tower"},
    "blip2": {"vision_model"},
    "paligemma": {"model.vision_tower"},
    "internvl": {"model.vision_tower"},
    "smolvlm": {"model.vision_model"},
    "qwen2_audio": {"model.audio_tower"},
    "voxtral": {"model.audio_tower"},
    "salmonn": {"model.speech_encoder", "model.beats"},
    "audio_vision": {"model.vision_tower", "model.speech_encoder", "model.beats"},
}


def vision(**settings: Any) -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        **settings,
    )  # fmt: skip
    return CLIPVisionModel(config).requires_grad_(False)


class Model(nn.Module):
    """A tower and a head that learns."""

    def __init__(self, tower: PreTrainedModel):
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(16, 3)

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> torch.Tensor:
        return self.tower(pixel_values, **options).last_hidden_state


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def calls_of(tower: nn.Module) -> list[int]:
    """Fills with the number of rows of each computation in the tower."""
    seen: list[int] = []
    first = next(part for part in tower.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    return seen


# ------------------------------------------------------------------ what is found


@pytest.mark.parametrize("family", TOWERS)
def test_the_towers_of_every_class(family: str) -> None:
    model, _ = zoo.BUILDERS[family]()
    assert towers(model) == {}
    model.requires_grad_(False)
    assert set(towers(model)) == TOWERS[family]


def test_a_tower_that_learns_is_none() -> None:
    assert towers(llava()) == {}
    assert set(towers(full_llava())) == {"model.vision_tower"}
    assert set(towers(lora_llava())) == {"base_model.model.model.vision_tower"}
    adapted = get_peft_model(llava(), LoraConfig(r=2, target_modules=r".*vision_tower.*q_proj"))
    assert towers(adapted) == {}


# ------------------------------------------------------------------ what comes out


def test_a_feature_is_what_the_row_alone_gives_whatever_the_batch() -> None:
    model = Model(vision()).eval()
    alone = [model(picture[None]) for picture in pictures(5)]
    cache = FeatureCache(1)
    with caching(model, cache):
        for order in ([0, 1, 2], [3, 1], [2], [4, 3, 2, 1, 0], [1, 1, 4]):
            found = model(pictures(5)[order])
            assert torch.equal(found, torch.cat([alone[number] for number in order]))
    assert (len(cache), cache.misses, cache.hits) == (5, 5, 8)
    torch.testing.assert_close(found, model(pictures(5)[[1, 1, 4]]))


def test_a_row_is_computed_once_even_within_a_batch() -> None:
    model = Model(vision())
    with caching(model, FeatureCache(1)):
        model(pictures(1))
        seen = calls_of(model.tower)
        model(pictures(1).repeat(4, 1, 1, 1))
        assert seen == []
        model(pictures(2, seed=1)[[0, 1, 0, 1]])
        assert seen == [1, 1, 4]  # the last time to see that rows do not depend on their batch
        model(pictures(3, seed=2))
        assert seen == [1, 1, 4, 1, 1, 1]


def test_selected_and_missing_outputs_come_back_as_they_were() -> None:
    model = Model(vision()).eval()
    expected = model.tower(pictures(2), output_hidden_states=[-2])
    with caching(model, FeatureCache(1)):
        for _ in range(2):
            found = model.tower(pictures(2), output_hidden_states=[-2])
            assert type(found) is type(expected)
            assert found.keys() == expected.keys()
            assert [state is None for state in found.hidden_states] == [s is None for s in expected.hidden_states]
            torch.testing.assert_close(found.hidden_states[-2], expected.hidden_states[-2])
            torch.testing.assert_close(found.pooler_output, expected.pooler_output)
        assert model.tower(pictures(2), return_dict=False)[0].shape == expected.last_hidden_state.shape


@pytest.mark.parametrize("megabytes", [0, 1])
def test_features_lie_in_memory_as_the_tower_laid_them(tmp_path: Path, megabytes: int) -> None:
    tower = Odd("turns").eval()
    expected = tower(pictures(3)).last_hidden_state
    assert not expected.is_contiguous()
    for _ in range(2):
        with caching(Model(tower), FeatureCache(megabytes, tmp_path)):
            found = tower(pictures(3)).last_hidden_state
        assert found.stride() == expected.stride()
        torch.testing.assert_close(found, expected)


def test_writing_to_a_feature_does_not_reach_the_cache() -> None:
    model = Model(vision()).eval()
    with caching(model, FeatureCache(1)):
        first = model(pictures(1))
        kept = first.clone()
        first.zero_()
        model(pictures(1)).zero_()
        assert torch.equal(model(pictures(1)), kept)


def test_another_number_type_or_option_is_another_row() -> None:
    model = Model(vision()).eval()
    cache = FeatureCache(1)
    with caching(model, cache):
        model(pictures(1))
        changed = pictures(1)
        changed[0, 0, 0, 0] += 1e-6
        model(changed)
        model(pictures(1).double().float())
        assert len(cache) == 2
        model(pictures(1).bfloat16().float())
        model(pictures(1), interpolate_pos_encoding=True)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = model(pictures(1))
        assert len(cache) == 5
        assert not torch.equal(coarse, model(pictures(1)))


def test_features_that_were_made_in_inference_mode_serve_training() -> None:
    model = Model(vision())
    with caching(model, FeatureCache(1)):
        with torch.inference_mode():
            model(pictures(2))
        model.head(model(pictures(2))).sum().backward()
    assert model.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("builder", [full_llava, lora_llava])
def test_a_whole_model_computes_the_same(builder: Callable[..., nn.Module]) -> None:
    model = builder(torch.float64).eval()
    batch = llava_batch((3, 1, 2))
    batch["pixel_values"][2] = batch["pixel_values"][0]
    expected = model(**batch)
    expected.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    with caching(model, cache := FeatureCache(1)):
        for _ in range(2):
            model.zero_grad()
            found = model(**batch)
            found.loss.backward()
            torch.testing.assert_close(found.logits, expected.logits)
            for name, parameter in model.named_parameters():
                if name in gradients:
                    torch.testing.assert_close(parameter.grad, gradients[name])
    assert len(cache) == 2


# ------------------------------------------------------------------ how much is kept


def test_what_came_first_stays_and_no_more_than_there_is_room_for() -> None:
    model = Model(vision()).eval()
    with caching(model, probe := FeatureCache(1)):
        model(pictures(1))
    cache = FeatureCache(1)
    cache.capacity = 3 * probe.size + 1
    with caching(model, cache):
        expected = model(pictures(5))
        assert len(cache) == 3
        assert cache.size == 3 * probe.size
        seen = calls_of(model.tower)
        assert torch.equal(model(pictures(5)), expected)
        assert seen == [1, 1]


# ------------------------------------------------------------------ a folder


def kept(folder: Path, tower: PreTrainedModel, count: int = 3, megabytes: int = 0) -> tuple[FeatureCache, torch.Tensor]:
    cache = FeatureCache(megabytes, folder)
    model = Model(tower).eval()
    with caching(model, cache):
        return cache, model(pictures(count))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_folder_serves_the_next_run(tmp_path: Path) -> None:
    tower = vision()
    first, expected = kept(tmp_path, tower)
    assert first.misses == len(files(tmp_path)) == 3
    second, found = kept(tmp_path, copy.deepcopy(tower))
    # One is computed, which tells how the tower puts its output together.
    assert (second.misses, second.hits) == (1, 2)
    assert torch.equal(found, expected)
    third, found = kept(tmp_path, copy.deepcopy(tower), megabytes=1)
    assert len(third) == 3
    assert torch.equal(found, expected)


def test_other_weights_and_other_settings_are_other_files(tmp_path: Path) -> None:
    tower = vision()
    kept(tmp_path, tower)
    assert kept(tmp_path, vision())[0].hits == 0
    other = copy.deepcopy(tower)
    other.config.hidden_act = "relu"
    assert kept(tmp_path, other)[0].hits == 0
    assert len(files(tmp_path)) == 9


def test_weights_that_change_under_way_are_other_files(tmp_path: Path) -> None:
    model = Model(vision()).eval()
    with caching(model, FeatureCache(1, tmp_path)):
        before = model(pictures(2))
        with torch.no_grad():
            model.tower.post_layernorm.weight.add_(1)
            next(model.tower.parameters()).mul_(2)
        assert not torch.equal(model(pictures(2)), before)
    assert len(files(tmp_path)) == 4


def test_a_spoilt_file_is_computed_anew(tmp_path: Path) -> None:
    tower = vision()
    _, expected = kept(tmp_path, tower)
    files(tmp_path)[0].write_bytes(b"")
    files(tmp_path)[1].write_bytes(files(tmp_path)[1].read_bytes()[:100])
    save_file({"other": torch.zeros(2)}, files(tmp_path)[2])
    mended, found = kept(tmp_path, tower)
    assert mended.misses == 3
    assert torch.equal(found, expected)
    assert kept(tmp_path, tower)[0].misses == 1


def test_a_folder_that_cannot_be_written_to_does_not_stop_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    tower = vision()
    with caplog.at_level(logging.WARNING):
        _, found = kept(tmp_path / "file", tower)
    assert torch.equal(found, kept(tmp_path, tower)[1])
    assert len([record for record in caplog.records if "no more features are written" in record.message]) == 1


# ------------------------------------------------------------------ when it is off


def test_active_dropout_is_left_alone() -> None:
    model = Model(vision(attention_dropout=0.5))
    cache = FeatureCache(1)
    with caching(model, cache):
        model.train()
        assert not torch.equal(model(pictures(1)), model(pictures(1)))
        assert len(cache) == 0
        model.eval()
        assert torch.equal(model(pictures(1)), model(pictures(1)))
        assert len(cache) == 1


def test_dropout_is_found_in_parts_attributes_and_config() -> None:
    assert not has_dropout(vision())
    assert has_dropout(vision(attention_dropout=0.1))
    tower = vision()
    tower.extra = nn.Dropout(0.2)
    assert has_dropout(tower)
    tower.extra = nn.Identity()
    assert not has_dropout(tower)
    tower.extra.drop_prob = 0.1
    assert has_dropout(tower)
    tower = vision()
    tower.config.layerdrop = 0.1
    assert has_dropout(tower)


def test_changed_weights_are_noticed() -> None:
    model = Model(vision()).eval()
    with caching(model, FeatureCache(1)):
        before = model(pictures(2))
        with torch.no_grad():
            model.tower.post_layernorm.weight.add_(1)
            next(model.tower.parameters()).mul_(2)
        after = model(pictures(2))
        assert not torch.equal(before, after)
        replaced = model.tower.encoder.layers[0].mlp.fc1.weight
        replaced.data = replaced.data * 3
        assert not torch.equal(model(pictures(2)), after)


def test_a_tower_that_begins_to_learn_is_computed() -> None:
    model = Model(vision())
    with caching(model, FeatureCache(1)):
        model(pictures(2))
        model.tower.requires_grad_(True)
        model(pictures(2)).sum().backward()
    assert any(p.grad is not None for p in model.tower.parameters())


class Odd(PreTrainedModel):
    """A tower with a habit."""

    config_class = CLIPVisionConfig
    input_modalities = "image"

    def __init__(self, habit: str):
        super().__init__(CLIPVisionConfig())
        self.habit = habit
        self.norm = nn.BatchNorm2d(3)
        self.requires_grad_(False)

    def forward(self, pixel_values: torch.Tensor, sizes: Any = None) -> Any:
        found = self.norm(pixel_values).flatten(1)
        if self.habit == "mixes":
            found = found - found.mean(dim=0)
        if self.habit == "draws":
            found = found + torch.rand(())
        if self.habit == "pools":
            return BaseModelOutput(last_hidden_state=found.mean(dim=0))
        if self.habit == "turns":
            return BaseModelOutput(last_hidden_state=found.unflatten(1, (3, -1)).transpose(1, 2))
        return BaseModelOutput(last_hidden_state=found)


@pytest.mark.parametrize("habit", ["mixes", "draws", "pools"])
def test_a_tower_whose_rows_do_not_stand_alone_is_left_alone(habit: str, caplog: pytest.LogCaptureFixture) -> None:
    model = Model(Odd(habit)).eval()
    torch.manual_seed(1)
    expected = [model(pictures(3)), model(pictures(3)), torch.rand(2)]
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING), caching(model, cache := FeatureCache(1)):
        found = [model(pictures(3)), model(pictures(3)), torch.rand(2)]
    assert all(map(torch.equal, found, expected))
    assert len(cache) == 0
    assert [record.message for record in caplog.records if "features are not cached" in record.message]


def test_a_batchnorm_that_learns_from_batches_is_left_alone() -> None:
    model = Model(Odd("none")).train()
    with caching(model, cache := FeatureCache(1)):
        found = model(pictures(4))
        assert len(cache) == 0
        assert found.mean().abs() < 1e-5  # normalised by the batch's own statistics
        model.eval()
        before = model(pictures(4))
        assert len(cache) == 4
        model.train()
        model(pictures(4))
        model.eval()
        assert not torch.equal(model(pictures(4)), before)  # whose statistics went on


@pytest.mark.parametrize(
    "inputs",
    [
        {"pixel_values": torch.randn(6, 20), "sizes": torch.ones(6, 3)},  # packed patches
        {"pixel_values": torch.randn(2, 3, 4, 4), "sizes": [(4, 4), (4, 4)]},  # numbers of each row, in no tensor
        {"pixel_values": torch.randn(2, 3, 4, 4), "sizes": torch.ones(3)},
        {"pixel_values": torch.randn(2, 3, 4, 4, requires_grad=True)},
        {"pixel_values": torch.randn(0, 3, 4, 4)},
    ],
    ids=["packed", "list", "other rows", "gradient", "empty"],
)
def test_inputs_that_are_not_rows_are_left_alone(inputs: dict[str, Any]) -> None:
    tower = Odd("none").eval()
    tower.norm = nn.Identity()
    model = Model(tower)
    with caching(model, cache := FeatureCache(1)):
        model.tower(**inputs)
    assert len(cache) == cache.misses == 0


def test_forward_is_put_back() -> None:
    model = Model(vision())
    original = model.tower.forward
    with pytest.raises(ValueError, match="match model"), caching(model, FeatureCache(1)):
        model.tower(torch.randn(2, 3, 5, 5))
    assert "forward" not in vars(model.tower)
    assert model.tower.forward == original

    def mine(pixel_values: torch.Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=pixel_values)

    model.tower.forward = mine
    with caching(model, FeatureCache(1)):
        model(pictures(1))
    assert model.tower.forward is mine


def test_a_copy_that_a_callback_makes_has_a_tower_of_its_own() -> None:
    model, cache = Model(vision()), FeatureCache(8)
    with caching(model, cache):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in twin.tower.parameters():
                parameter.zero_()
        assert not twin(pictures(2)).any()
        assert model(pictures(2)).any()
    assert twin.tower.forward.__self__ is twin.tower
