"""Family facts against the real classes: which parameter is of which module, what learns, and what is not opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForMultimodalLM,
    BertConfig,
    Blip2Config,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    ViTConfig,
)

from equipoise.errors import RecipeError
from equipoise.models import loading
from equipoise.models.families import FAMILIES, GENERIC, of_type
from equipoise.recipe import Model
from models import zoo
from models.zoo import parts

ENCODERS = ("vision_tower", "audio_tower")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = zoo.make(family, tmp_path_factory.mktemp("zoo") / family)
        return made[family]

    return of


@pytest.fixture(params=zoo.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(family: str, checkpoint: Callable[[str], Path]) -> Model:
    return Model(path=str(checkpoint(family)))


def open_model(form: str, settings: Model) -> nn.Module:
    match form:
        case "loaded":
            return AutoModelForMultimodalLM.from_pretrained(settings.path)
        case "skeleton":
            return loading.skeleton(settings)
        case "peft":
            return loading.load(settings)
    raise AssertionError(form)


def learning(model: nn.Module) -> set[str]:
    return {parts.bare(name) for name, parameter in model.named_parameters() if parameter.requires_grad}


# ------------------------------------------------------------------ partition


@pytest.mark.parametrize("form", ["loaded", "skeleton", "peft"])
def test_every_parameter_is_in_the_module_it_is_part_of(family: str, settings: Model, form: str) -> None:
    model = open_model(form, settings)
    for parameter in model.parameters():  # a division names those that learn
        parameter.requires_grad_(True)
    division = loading.divide(model, settings)
    expected = parts.PARTS[family]
    assert division.modules.keys() == expected.keys()
    assert list(division.modules)[-1] == "llm"
    placed: dict[str, str] = {}
    for module in division.modules.values():
        assert module.frozen == 0
        for name in module.trainable:
            assert name not in placed
            placed[name] = module.name
    assert placed.keys() == {name for name, _ in model.named_parameters() if ".original_module." not in name}
    reached = set()
    for name, module in placed.items():
        starts = {start for start in expected[module] if parts.lies_in(parts.bare(name), start)}
        assert len(starts) == 1, (name, module)
        reached |= starts
    assert reached == set().union(*expected.values())


def test_cross_attention_layers_are_of_the_encoder_s_side_though_the_decoder_holds_them(
    checkpoint: Callable[[str], Path],
) -> None:
    for family, inside in {
        "idefics": ("vision_model", "perceiver_resampler", "gated_cross_attn_layers"),
        "mllama": ("layers.1",),
        "flamingo": ("layers.1.cross_attention",),
    }.items():
        model = loading.skeleton(Model(path=str(checkpoint(family)), lora=None))
        decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
        modules = loading.divide(model, Model(path="a/b")).modules
        assert modules["cross_attention"].trainable
        assert {id(parameter) for parameter in modules["cross_attention"].trainable.values()} <= decoder
        assert not modules["llm"].trainable
        for part in inside:
            assert all(id(parameter) in decoder for parameter in model.get_decoder().get_submodule(part).parameters())


# ------------------------------------------------------------------ what learns


@pytest.mark.parametrize("form", ["skeleton", "peft"])
def test_the_default_recipe_trains_connector_and_lora(family: str, settings: Model, form: str) -> None:
    names = {name for name, _ in AutoModelForMultimodalLM.from_pretrained(settings.path).named_parameters()}
    assert learning(open_model(form, settings)) == parts.trained(family, names)


def test_lora_is_on_the_llm_s_linear_layers_alone(family: str, settings: Model) -> None:
    model = loading.load(settings)
    adapted = {parts.bare(name) for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert adapted == parts.lora_layers(family)


def test_without_lora_the_connector_alone_learns(family: str, settings: Model) -> None:
    model = loading.load(settings.model_copy(update={"lora": None}))
    assert not isinstance(model, PeftModel)
    names = {name for name, _ in model.named_parameters()}
    assert learning(model) == {name for name in parts.trained(family, names) if ".lora_" not in name}


def test_towers_and_llm_learn_in_full_on_request(family: str, settings: Model) -> None:
    towers = [name for name in parts.PARTS[family] if name in ENCODERS]
    train = {**dict.fromkeys(towers, "full"), "llm": "full"}
    model = loading.load(Model.model_validate({"path": settings.path, "lora": None, "train": train}))
    assert learning(model) == {name for name, _ in model.named_parameters()}
    assert all(module.kind == "full" for module in loading.divide(model, settings).modules.values())


def test_a_frozen_connector_leaves_lora_alone(family: str, settings: Model) -> None:
    connectors = [name for name in parts.PARTS[family] if name in parts.CONNECTORS]
    train = dict.fromkeys(connectors, "frozen")
    model = loading.load(Model.model_validate({"path": settings.path, "train": train}))
    assert {name.partition(".lora_")[0] for name in learning(model)} == parts.lora_layers(family)


def test_loading_changes_no_weight(family: str, settings: Model) -> None:
    stored = load_file(f"{settings.path}/model.safetensors")
    pretrained = AutoModelForMultimodalLM.from_pretrained(settings.path).state_dict()
    loaded = {parts.bare(name): value for name, value in loading.load(settings).state_dict().items()}
    assert len(stored) > 40
    for name, value in pretrained.items():
        assert torch.equal(loaded[name], value), name


# ------------------------------------------------------------------ facts


def test_model_types_are_of_one_family_each() -> None:
    assert FAMILIES.keys() == {
        "llava", "blip-2", "internvl", "salmonn", "audio_vision", "paligemma", "idefics", "flamingo", "qwen2_audio",
        "voxtral", "llava_qformer",
    }  # fmt: skip
    assert of_type("qwen3_vl") is of_type("smolvlm") is of_type("mllama") is of_type("anything") is GENERIC


def test_the_papers_connectors_have_their_names() -> None:
    assert {name: of_type(name).trained for name in ("llava", "blip-2", "internvl", "salmonn", "audio_vision")} == {
        "llava": {"projector"}, "blip-2": {"qformer"}, "internvl": {"projector"}, "salmonn": {"qformer"},
        "audio_vision": {"projector", "qformer"},
    }  # fmt: skip


# ------------------------------------------------------------------ refusals


def refusal(call: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def write_config(folder: Path, content: dict[str, Any]) -> Model:
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return Model(path=str(folder))


@pytest.mark.parametrize("open_it", [loading.skeleton, loading.load])
def test_a_model_of_text_alone_is_refused(tmp_path: Path, open_it: Callable[..., Any]) -> None:
    LlamaForCausalLM(
        LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    ).save_pretrained(tmp_path)
    assert refusal(open_it, Model(path=str(tmp_path))) == (
        f"model.path: {tmp_path} is a llama model; one that turns images or audio and text into text is needed"
    )


@pytest.mark.parametrize("config", [BertConfig(), ViTConfig()], ids=["bert", "vit"])
def test_an_encoder_is_refused(tmp_path: Path, config: Any) -> None:
    config.save_pretrained(tmp_path)
    message = refusal(loading.skeleton, Model(path=str(tmp_path)))
    assert message.endswith(
        f"is a {config.model_type} model; one that turns images or audio and text into text is needed"
    )


def plant(folder: Path, settings: Model) -> Path:
    """Code beside a checkpoint that leaves a trace if it runs; returns where."""
    trace = folder / "trace"
    for name in ("configuration_planted", "modeling_planted", "processing_planted"):
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Planted: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_planted.Planted",
        "AutoModelForMultimodalLM": "modeling_planted.Planted",
        "AutoProcessor": "processing_planted.Planted",
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        file = folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        content["auto_map"] = {"AutoProcessor": "processing_planted.Planted"}
        file.write_text(json.dumps(content))
    return trace


@pytest.mark.parametrize("model_type", ["llava", "planted", None])
def test_code_of_the_checkpoint_s_own_is_not_run(tmp_path: Path, model_type: str | None) -> None:
    zoo.make("llava", tmp_path)
    settings = Model(path=str(tmp_path))
    trace = plant(tmp_path, settings)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("model_type")
    (tmp_path / "config.json").write_text(json.dumps({**config, **({"model_type": model_type} if model_type else {})}))
    for open_it in (loading.skeleton, loading.load, loading.family):
        assert refusal(open_it, settings) == (
            f"model.path: {tmp_path} brings code of its own; set model.trust_remote_code: true to run it"
        )
    refusal(loading.load_processor, settings)
    refusal(loading.load_tuned, settings, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize("place", ["attn_implementation", "_attn_implementation", "text_config.attn_implementation"])
def test_a_kernel_of_the_hubs_is_not_fetched(tmp_path: Path, place: str) -> None:
    """transformers fetches and runs what a config names by a repository's name, where `kernels` is installed."""
    zoo.make("llava", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    *section, key = place.split(".")
    (config[section[0]] if section else config)[key] = "someone/kernel"
    settings = write_config(tmp_path, config)
    for open_it in (loading.skeleton, loading.load, loading.family):
        assert refusal(open_it, settings) == (
            f"model.path: {tmp_path} asks for 'someone/kernel', code from the hub, for its attention; "
            "set model.trust_remote_code: true to run it"
        )
    (config[section[0]] if section else config)[key] = "sdpa"
    loading.skeleton(write_config(tmp_path, config))


def test_internvls_first_layout_is_told_how_to_convert(tmp_path: Path) -> None:
    settings = write_config(tmp_path, {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "a.B"}})
    for open_it in (loading.skeleton, loading.load):
        message = refusal(open_it, settings)
        assert "equipoise convert internvl2" in message
        assert "-hf" in message


@pytest.mark.parametrize("open_it", [loading.skeleton, loading.load])
def test_blip2_with_t5_is_refused(tmp_path: Path, open_it: Callable[..., Any]) -> None:
    Blip2Config(text_config=T5Config(d_model=8, num_layers=1, num_heads=1)).save_pretrained(tmp_path)
    assert refusal(open_it, Model(path=str(tmp_path))) == (
        f"model.path: {tmp_path} has an encoder-decoder LLM (t5); a decoder such as OPT, Llama or Qwen is needed"
    )


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def as_pickle(folder: Path, extra: dict[str, Any]) -> Model:
    """A LLaVA whose weights are a `.bin` file."""
    zoo.make("llava", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, **extra}, folder / "pytorch_model.bin")
    return Model(path=str(folder))


def test_a_pickle_that_does_more_than_hold_tensors_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    settings = as_pickle(tmp_path, {"payload": Payload(trace)})
    message = refusal(loading.load, settings)
    assert message.startswith(f"model.path: {tmp_path} holds a pickle that torch.load(weights_only=True) refuses")
    assert not trace.exists()
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)  # it would have run
    assert trace.exists()


def test_a_pickle_of_plain_tensors_opens(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    loaded = loading.load(as_pickle(tmp_path, {})).state_dict()
    expected = loading.load(Model(path=str(checkpoint("llava")))).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items() if ".lora_" not in name)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "{}"])
def test_a_config_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert refusal(loading.skeleton, Model(path=str(tmp_path))).startswith(f"model.path: {tmp_path} ")
