"""What is saved of a tuned model, merged or not, down to parameters that no submodule holds alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForMultimodalLM

from equipoise.models import loading
from equipoise.models.adapters import TunedModel, merged, prepare
from equipoise.recipe import Model
from models import zoo
from models.zoo import parts

QUERIES = "base_model.model.query_tokens"


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.make("blip2", tmp_path_factory.mktemp("zoo") / "blip2")


@pytest.fixture(scope="module")
def mllama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.make("mllama", tmp_path_factory.mktemp("zoo") / "mllama")


def tuned(path: Path, **changes: Any) -> TunedModel:
    """A loaded model whose every learning parameter has moved."""
    model = loading.load(Model.model_validate({"path": str(path), **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    assert isinstance(model, TunedModel)
    return model.eval()


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        parts.bare(name): value.detach() for name, value in model.named_parameters() if ".original_module." not in name
    }


def logits(model: nn.Module) -> torch.Tensor:
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        return model.eval()(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.ones(1, 3, 16, 16)
        ).logits


# ------------------------------------------------------------------ parameters that no submodule holds alone


def test_blip2s_queries_are_the_loose_ones(blip2: Path, mllama: Path) -> None:
    assert tuned(blip2).loose == (QUERIES,)
    assert tuned(mllama).loose == ()
    assert tuned(blip2, train={"qformer": "frozen", "vision_tower": "full"}).loose != (QUERIES,)


def test_the_adapters_file_is_the_same_in_every_process(blip2: Path, tmp_path: Path) -> None:
    """Strings' hashes differ from process to process, and with them the order of peft's sets."""
    tuned(blip2).save_pretrained(tmp_path)
    targets = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert len(targets) > 5
    assert targets == sorted(targets)


def test_the_queries_are_saved_and_plain_peft_puts_them_back(blip2: Path, tmp_path: Path) -> None:
    model = tuned(blip2)
    pretrained = AutoModelForMultimodalLM.from_pretrained(blip2)
    assert not torch.equal(model.get_parameter(QUERIES), pretrained.query_tokens)
    model.save_pretrained(tmp_path)
    opened = PeftModel.from_pretrained(pretrained, tmp_path)
    assert not isinstance(opened, TunedModel)
    for name, value in values(model).items():
        assert torch.equal(values(opened)[name], value), name


def test_saving_adds_the_queries_to_what_peft_saves_and_nothing_else(blip2: Path, tmp_path: Path) -> None:
    model = tuned(blip2)
    model.save_pretrained(tmp_path / "ours")
    PeftModel.save_pretrained(model, tmp_path / "pefts")
    ours, pefts = (load_file(tmp_path / name / SAFETENSORS_WEIGHTS_NAME) for name in ("ours", "pefts"))
    assert ours.keys() - pefts.keys() == {QUERIES}
    assert all(torch.equal(ours[name], value) for name, value in pefts.items())
    with safe_open(tmp_path / "ours" / SAFETENSORS_WEIGHTS_NAME, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_state_dict_that_is_given_is_what_is_saved(blip2: Path, tmp_path: Path) -> None:
    model = tuned(blip2)
    given = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=given)
    saved = load_file(tmp_path / SAFETENSORS_WEIGHTS_NAME)
    assert torch.equal(saved[QUERIES], given[QUERIES])


def test_other_processes_than_the_first_write_nothing(blip2: Path, tmp_path: Path) -> None:
    tuned(blip2).save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / SAFETENSORS_WEIGHTS_NAME).exists()


def test_a_model_without_loose_parameters_saves_as_peft_does(mllama: Path, tmp_path: Path) -> None:
    model = tuned(mllama)
    model.save_pretrained(tmp_path / "ours")
    PeftModel.save_pretrained(model, tmp_path / "pefts")
    ours, pefts = ((tmp_path / name / SAFETENSORS_WEIGHTS_NAME).read_bytes() for name in ("ours", "pefts"))
    assert ours == pefts


def test_the_adapter_names_its_base(blip2: Path) -> None:
    [config] = tuned(blip2).peft_config.values()
    assert config.base_model_name_or_path == str(blip2)


# ------------------------------------------------------------------ merged


@pytest.mark.parametrize("dora", [False, True])
def test_a_merged_model_is_the_bare_class_with_the_tuned_weights(blip2: Path, tmp_path: Path, dora: bool) -> None:
    model = tuned(blip2, lora={"rank": 4, "dora": dora})
    expected, learned = logits(model), values(model)
    plain = merged(model)
    pretrained = AutoModelForMultimodalLM.from_pretrained(blip2)
    assert type(plain) is type(pretrained)
    assert {n for n, _ in plain.named_parameters()} == {n for n, _ in pretrained.named_parameters()}
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-4)
    assert (logits(pretrained) - expected).abs().max() > 0.1
    assert torch.equal(plain.query_tokens, learned["query_tokens"])
    assert torch.equal(plain.language_projection.weight, learned["language_projection.weight"])
    plain.save_pretrained(tmp_path)
    opened = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(opened), logits(plain))


# ------------------------------------------------------------------ prepared


def test_parts_that_are_born_frozen_learn_where_the_recipe_says_so(blip2: Path) -> None:
    model = AutoModelForMultimodalLM.from_pretrained(blip2).requires_grad_(False)
    prepared = prepare(model, Model(path=str(blip2)))
    learning = {parts.bare(name) for name, parameter in prepared.named_parameters() if parameter.requires_grad}
    pretrained = AutoModelForMultimodalLM.from_pretrained(blip2)
    assert learning == parts.trained("blip2", {name for name, _ in pretrained.named_parameters()})


def test_mergers_in_a_list_are_saved(tmp_path: Path) -> None:
    path = zoo.make("qwen3_vl", tmp_path / "qwen3_vl")
    model = tuned(path)
    [config] = model.peft_config.values()
    assert any("deepstack_merger_list.0" in name for name in config.modules_to_save)
    model.save_pretrained(tmp_path / "saved")
    opened = PeftModel.from_pretrained(AutoModelForMultimodalLM.from_pretrained(path), tmp_path / "saved")
    for name, value in values(model).items():
        assert torch.equal(values(opened)[name], value), name
