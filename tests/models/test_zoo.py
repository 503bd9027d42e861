"""The toy checkpoints open as hub checkpoints do, and are worth training: what is seen or heard reaches the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import is_torchvision_available

from equipoise.models import processors
from models import zoo

CLASSES = {
    "llava": ("LlavaForConditionalGeneration", "LlavaProcessor"),
    "llava_qformer": ("LlavaQFormerForConditionalGeneration", "LlavaProcessor"),
    "blip2": ("Blip2ForConditionalGeneration", "Blip2Processor"),
    "paligemma": ("PaliGemmaForConditionalGeneration", "PaliGemmaProcessor"),
    "internvl": ("InternVLForConditionalGeneration", "InternVLProcessor"),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLProcessor"),
    "smolvlm": ("SmolVLMForConditionalGeneration", "SmolVLMProcessor"),
    "qwen2_audio": ("Qwen2AudioForConditionalGeneration", "Qwen2AudioProcessor"),
    "voxtral": ("VoxtralForConditionalGeneration", "VoxtralProcessor"),
    "idefics": ("IdeficsForVisionText2Text", "IdeficsProcessor"),
    "mllama": ("MllamaForConditionalGeneration", "MllamaProcessor"),
    "flamingo": ("FlamingoForConditionalGeneration", "FlamingoProcessor"),
    "salmonn": ("SalmonnForConditionalGeneration", "SalmonnProcessor"),
    "audio_vision": ("AudioVisionForConditionalGeneration", "AudioVisionProcessor"),
}
WITHOUT_TEMPLATE = {"blip2", "paligemma", "voxtral", "idefics"}
# What stands between tower and LLM, and a layer of the LLM behind it: the loss must reach both.
PATHS = {
    "llava": ("model.multi_modal_projector.", "model.language_model.layers.0."),
    "llava_qformer": ("model.multi_modal_projector.", "model.language_model.layers.0."),
    "blip2": ("qformer.", "language_model.model.decoder.layers.0."),
    "paligemma": ("model.multi_modal_projector.", "model.language_model.layers.0."),
    "internvl": ("model.multi_modal_projector.", "model.language_model.layers.0."),
    "qwen2_5_vl": ("model.visual.merger.", "model.language_model.layers.0."),
    "qwen3_vl": ("model.visual.deepstack_merger_list.", "model.language_model.layers.0."),
    "smolvlm": ("model.connector.", "model.text_model.layers.0."),
    "qwen2_audio": ("model.multi_modal_projector.", "model.language_model.layers.0."),
    "voxtral": ("model.multi_modal_projector.", "model.language_model.layers.0."),
    "idefics": ("model.perceiver_resampler.", "model.gated_cross_attn_layers.0."),
    "mllama": ("model.multi_modal_projector.", "model.language_model.layers.1.cross_attn."),
    "flamingo": ("model.language_model.layers.1.cross_attention.", "model.language_model.layers.0."),
    "salmonn": ("model.qformer.", "model.language_model.layers.0."),
    "audio_vision": ("model.multi_modal_projector.", "model.qformer.", "model.language_model.layers.0."),
}
IMAGE = {
    "llava": "<image>\n", "blip2": "", "paligemma": "<image>", "internvl": "<IMG_CONTEXT>\n", "smolvlm": "<image>",
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "mllama": "<|image|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>", "audio_vision": "<image>", "flamingo": "<image>",
    "llava_qformer": "<image>\n",
}  # fmt: skip
AUDIO = {
    "qwen2_audio": "<|audio_bos|><|AUDIO|><|audio_eos|>", "salmonn": "<Speech><audio> </Speech> ",
    "audio_vision": "<Speech><audio> </Speech> ",
}  # fmt: skip
VOXTRAL_TOKENS = 25  # of one window of 2 s


@pytest.fixture(scope="module", params=zoo.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.make(family, tmp_path_factory.mktemp("zoo") / family)


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return AutoModelForMultimodalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> ProcessorMixin:
    return processors.from_pretrained(str(folder))


def _batch(family: str, processor: ProcessorMixin, seed: int) -> dict[str, torch.Tensor]:
    """One sample whose image is noise of this seed, or whose clip a tone; its text is always the same."""
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    clip = 0.5 * np.sin(2 * np.pi * 400 * seed**3 * np.arange(16_000, dtype=np.float32) / 16_000)  # 400 or 3,200 Hz
    question = "what colour is it red"
    if family == "voxtral":
        return _voxtral(processor, clip, question)
    if family in AUDIO:
        seen = {"images": [[image]]} if family in IMAGE else {}
        text = IMAGE.get(family, "") + AUDIO[family] + question
        batch = processor(text=[text], audio=[clip], sampling_rate=16_000, return_tensors="pt", **seen)
    elif family == "idefics":
        batch = processor(text=[[image, question]], return_tensors="pt")
    else:
        batch = processor(text=[IMAGE[family] + question], images=[[image]], return_tensors="pt")
    batch.pop("labels", None)  # PaliGemma's, all of them ignored
    return dict(batch)


def _voxtral(processor: ProcessorMixin, clip: np.ndarray, question: str) -> dict[str, torch.Tensor]:
    """By hand: the processor leaves loading and placing audio to mistral-common's tokenizer."""
    text = "[INST][BEGIN_AUDIO]" + "[AUDIO]" * VOXTRAL_TOKENS + question
    batch = processor.tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    features = processor.feature_extractor(clip, sampling_rate=16_000, return_tensors="pt")
    return {**batch, "input_features": features["input_features"]}


def _logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def test_every_family_is_covered() -> None:
    assert set(CLASSES) == set(PATHS) == set(zoo.FAMILIES)
    assert set(zoo.FAMILIES) >= zoo.VIDEO | zoo.AUDIO | zoo.BOTH


def test_auto_classes_open_it(family: str, folder: Path, model: PreTrainedModel) -> None:
    assert type(model).__name__ == CLASSES[family][0]
    assert model.num_parameters() < 300_000
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head is not embedding
    if family in zoo.VIDEO and not is_torchvision_available():
        with pytest.raises(ImportError, match="Torchvision"):
            AutoProcessor.from_pretrained(folder)


def test_the_processor_is_the_family_s(family: str, processor: ProcessorMixin) -> None:
    assert CLASSES[family][1] in [kind.__name__ for kind in type(processor).__mro__]
    assert bool(processor.chat_template) == (family not in WITHOUT_TEMPLATE)


def test_the_chat_template_renders_a_conversation(family: str, processor: ProcessorMixin) -> None:
    if family in WITHOUT_TEMPLATE:
        pytest.skip("no chat template")
    kind, placeholder = ("audio", AUDIO[family]) if family in AUDIO else ("image", IMAGE[family])
    question = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": "what colour"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "red"}]}
    prompt = processor.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    whole = processor.apply_chat_template([question, answer], tokenize=False)
    assert prompt.count(placeholder) == 1
    assert prompt.index(placeholder) < prompt.index("what colour")
    assert whole.startswith(prompt)
    assert whole[len(prompt) :].strip().startswith("red")


def test_generation_ends_and_pads_with_the_tokenizer_s_tokens(
    model: PreTrainedModel, processor: ProcessorMixin
) -> None:
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id is not None
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id is not None
    assert processor.tokenizer.pad_token_id != processor.tokenizer.eos_token_id


def test_the_loss_reaches_connector_and_llm(family: str, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    batch = _batch(family, processor, seed=1)
    answer = batch["input_ids"][:, -2:]
    # Not by the model's `labels`: Idefics' own loss forgets its additional vocabulary and raises.
    logits = model(**batch).logits[:, -3:-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answer.flatten())
    assert 0.5 < loss.item() < 20
    loss.backward()
    for path in PATHS[family]:
        gradients = [parameter.grad for name, parameter in model.named_parameters() if name.startswith(path)]
        assert gradients
        assert any(gradient is not None and gradient.norm() > 1e-6 for gradient in gradients), path
    model.zero_grad()


def test_what_is_seen_or_heard_changes_the_logits(
    family: str, model: PreTrainedModel, processor: ProcessorMixin
) -> None:
    one, same, other = (_batch(family, processor, seed) for seed in (1, 1, 2))
    assert torch.equal(one["input_ids"], other["input_ids"])
    assert torch.equal(_logits(model, one), _logits(model, same))
    change = (_logits(model, one) - _logits(model, other))[:, -1].abs().max()
    assert change > 0.03


def test_the_weights_are_the_same_at_every_call(family: str, folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again = zoo.make(family, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), state)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (again / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
