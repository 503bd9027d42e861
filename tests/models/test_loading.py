"""From a recipe's model section to what learns and what does not: the same names without weights as with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageTextToText

import tiny
from equipoise.errors import RecipeError
from equipoise.models import loading
from equipoise.models.families import GENERIC, family_of
from equipoise.models.families.llava import LLAVA
from equipoise.recipe import Model

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"lora": {"rank": 4, "dora": True}},
    "lora and tower": {"train": {"vision_tower": "full"}},
    "lora alone": {"train": {"projector": "frozen"}},
    "full": {"lora": None, "train": {"llm": "full"}},
    "all full": {"lora": None, "train": {"llm": "full", "vision_tower": "full"}},
    "patterns": {"modules": {"connector": "multi_modal_projector"}, "train": {"connector": "full"}},
}


def settings(path: Path | str = "a/b", **changes: Any) -> Model:
    return Model.model_validate({"path": str(path), **changes})


def prepared(**changes: Any) -> Any:
    return loading.prepare(tiny.llava(torch.float32, attention_dropout=0.0), settings(**changes))


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(model: nn.Module) -> set[str]:
    """The names, as in the bare model, of the weights of tower and projector that a backward pass reaches."""
    model.train()(**tiny.llava_batch((3, 2), torch.float32)).loss.backward()
    bare = {name: p for name, p in model.named_parameters() if p.grad is not None and "lora_" not in name}
    return {name.replace("base_model.model.", "").replace("modules_to_save.default.", "") for name in bare}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    tiny.llava(torch.float32, attention_dropout=0.0).save_pretrained(folder)
    return folder


def test_lora_is_in_every_linear_layer_of_the_llm_and_nowhere_else():
    model = prepared(lora={"rank": 3, "alpha": 6})
    linear = {n for n, m in tiny.llava().named_modules() if isinstance(m, nn.Linear) and "language_model" in n}
    with_lora = {name.partition(".lora_A")[0] for name in trained(model) if ".lora_A" in name}
    assert with_lora == {f"base_model.model.{name}" for name in linear}
    assert len(with_lora) == 2 * 7
    assert not any("lora" in name for name in trained(model) if "lm_head" in name or "vision_tower" in name)


def test_loras_settings_are_the_recipes():
    [config] = prepared(lora={"rank": 3, "alpha": 7, "dropout": 0.2}).peft_config.values()
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_dora) == (3, 7, 0.2, False)


def test_the_projector_learns_in_full_and_is_saved_with_the_adapter(tmp_path):
    model = prepared()
    full = {name for name in trained(model) if "lora_" not in name}
    prefix = "base_model.model.model.multi_modal_projector"
    assert full == {
        f"{prefix}.{layer}.modules_to_save.default.{leaf}"
        for layer in ("linear_1", "linear_2")
        for leaf in ("weight", "bias")
    }
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {name for name in saved if "projector" in name} == {
        f"{prefix}.{layer}.{leaf}" for layer in ("linear_1", "linear_2") for leaf in ("weight", "bias")
    }


def test_the_tower_is_frozen_unless_the_recipe_trains_it():
    assert not any("vision_tower" in name for name in trained(prepared()))
    assert any("vision_tower" in name for name in trained(prepared(train={"vision_tower": "full"})))


def test_the_llms_own_weights_are_frozen_beside_lora():
    assert all("lora_" in name for name in trained(prepared()) if "language_model" in name or "lm_head" in name)


def test_full_tuning_leaves_the_model_as_it_is():
    model = prepared(lora=None, train={"llm": "full"})
    assert not isinstance(model, PeftModel)
    assert trained(model) == {name for name, _ in model.named_parameters() if "vision_tower" not in name}


def test_without_lora_the_llm_is_frozen_unless_named():
    assert trained(prepared(lora=None)) == {n for n, _ in tiny.llava().named_parameters() if "projector" in n}
    assert trained(prepared(lora=None, train={"llm": "frozen", "projector": "frozen"})) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"llm": "full"}}, "model.train.llm: found 'full' beside model.lora; .* train the LLM in full"),
        ({"train": {"llm": "frozen"}}, "model.train.llm: found 'frozen' beside model.lora; .* freeze the LLM"),
        (
            {"train": {"tower": "full"}},
            "model.train.tower: no such module; this model has projector, vision_tower, llm",
        ),
        (
            {"modules": {"all": "vision_tower|projector"}, "train": {"projector": "full"}},
            "model.train.projector: no such module; this model has all, llm",
        ),
    ],
)
def test_conflicts(changes, message):
    with pytest.raises(RecipeError, match=message):
        prepared(**changes)


def test_a_tower_that_learns_beside_lora_learns_whole():
    alone = prepared(lora=None, train={"vision_tower": "full"})
    beside = prepared(train={"vision_tower": "full"})
    assert gradients(beside) == gradients(alone)


def test_a_projector_that_learns_beside_lora_learns_whole():
    assert gradients(prepared()) == gradients(prepared(lora=None)) != set()


def test_lora_reaches_linear_layers_inside_a_sequential():
    model = tiny.llava(torch.float32)
    model.model.language_model.extra = nn.Sequential(nn.Linear(32, 32))
    tuned = loading.prepare(model, settings())
    assert any("extra.0.lora_A" in name for name in trained(tuned))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_skeleton_has_no_storage_and_the_names_of_the_loaded_model(checkpoint, name):
    chosen = settings(checkpoint, **SETTINGS[name])
    skeleton, model = loading.skeleton(chosen), loading.load(chosen)
    tensors = [*skeleton.parameters(), *skeleton.buffers()]
    assert all(tensor.is_meta for tensor in tensors)
    assert not any(tensor.is_meta for tensor in model.parameters())
    assert trained(skeleton) == trained(model) != set()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert {name: parameter.shape for name, parameter in skeleton.named_parameters()} == shapes


def test_the_embedded_skeleton_divides_as_the_loaded_model_does():
    chosen = settings("embedded:smol-vlm")
    skeleton, model = loading.skeleton(chosen), loading.load(chosen)
    assert trained(skeleton) == trained(model)
    sizes = {n: (m.size, m.frozen) for n, m in loading.divide(model, chosen).modules.items()}
    assert {n: (m.size, m.frozen) for n, m in loading.divide(skeleton, chosen).modules.items()} == sizes
    assert sizes["vision_tower"] == (0, 3_371_008)
    assert list(sizes) == ["projector", "vision_tower", "llm"]


def test_loading_does_not_change_the_weights(checkpoint):
    pretrained = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    model = loading.load(settings(checkpoint)).eval()
    batch = tiny.llava_batch((3, 2), torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, pretrained(**batch).logits)  # LoRA begins at zero


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_the_recipes(checkpoint, dtype, expected):
    model = loading.load(settings(checkpoint, dtype=dtype, lora=None))
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


@pytest.mark.parametrize("name", ["lora", "dora", "lora and tower", "full"])
def test_a_tuned_model_loads_as_it_was_saved(checkpoint, tmp_path, name):
    chosen = settings(checkpoint, **SETTINGS[name])
    model = loading.load(chosen).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = loading.load_tuned(chosen, tmp_path)
    assert not any(module.training for module in loaded.modules())
    batch = tiny.llava_batch((3, 2), torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
        assert (loaded(**batch).logits - loading.load(chosen).eval()(**batch).logits).abs().max() > 0.01


def test_weights_that_are_missing_are_one_line(tmp_path):
    tiny.llava().config.save_pretrained(tmp_path)
    loading.skeleton(settings(tmp_path))
    with pytest.raises(RecipeError, match=r"^model\.path: .* cannot be loaded") as caught:
        loading.load(settings(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_processor_that_is_missing_is_one_line(tmp_path):
    tiny.llava().config.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"^model\.path: .* cannot be loaded") as caught:
        loading.load_processor(settings(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_families_are_found_through_peft():
    assert family_of(prepared()) is family_of(tiny.llava()) is LLAVA
    assert family_of(nn.Linear(1, 1)) is GENERIC
