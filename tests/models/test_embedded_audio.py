"""The embedded stacks that hear: real weights arrive unchanged, clips become tokens and change what is answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor, Blip2QFormerModel, PreTrainedModel, ProcessorMixin

import tiny
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.data.sample import Sample, Turn
from equipoise.evaluation.generate import TransformersEngine
from equipoise.models.embedded import AUDIO_TOKEN, EMBEDDED, IMAGE_TOKEN, smol_audio, smol_audio_vision, smol_vlm
from equipoise.models.embedded.audio import qformer_config, whisper
from equipoise.models.embedded.audio_vision import CHAT_TEMPLATE
from equipoise.models.salmonn import SalmonnForConditionalGeneration

TOKENS = 23  # windows of 17 positions in the 400 of eight seconds


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForMultimodalLM.from_pretrained(smol_audio()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def processor() -> ProcessorMixin:
    return AutoProcessor.from_pretrained(smol_audio())


def clip(folder: Path, name: str, pitch: float, seconds: float = 1.0) -> Path:
    """A tone at 22.05 kHz."""
    time = np.arange(int(22_050 * seconds)) / 22_050
    soundfile.write(folder / f"{name}.wav", 0.3 * np.sin(2 * np.pi * pitch * time), 22_050)
    return folder / f"{name}.wav"


def question(text: str, *audios: Path, answer: str = "Yes", images: tuple[Path, ...] = ()) -> Sample:
    return Sample(text, "t", (Turn("user", text), Turn("assistant", answer)), images=images, audios=audios)


def logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def test_the_encoder_is_whispers_up_to_eight_seconds(model):
    original = whisper(notify=lambda _: None).model.encoder.state_dict()
    ours = model.model.speech_encoder.state_dict()
    assert ours["embed_positions.weight"].shape == (400, 384)
    original["embed_positions.weight"] = original["embed_positions.weight"][:400]
    tiny.assert_same(dict(sorted(ours.items())), dict(sorted(original.items())))


def test_the_llm_is_the_vision_stacks(model, embedded_model):
    ours, theirs = (one.model.language_model.state_dict() for one in (model, embedded_model))
    tiny.assert_same(ours, theirs)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_the_qformer_is_small_and_the_same_in_every_build(model):
    qformer = model.model.qformer
    assert sum(parameter.numel() for parameter in qformer.parameters()) == 4_956_864
    with torch.random.fork_rng():
        torch.manual_seed(0)
        again = SalmonnForConditionalGeneration(model.config).model.qformer
    tiny.assert_same(again.state_dict(), qformer.state_dict())
    assert {module.p for module in qformer.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_it_answers_from_text_alone(model, processor):
    [answer] = TransformersEngine(model, Collator(processor)).answer([question("What is the capital of France?")], 10)
    assert answer == "The capital of France is Paris."


def test_a_clip_is_a_token_every_third_of_a_second(model, processor, tmp_path):
    batch = Collator(processor)([question("What is it?", clip(tmp_path, "a", 440), clip(tmp_path, "b", 660))])
    assert batch["input_features"].shape == (2, 80, 800)
    audio = processor.tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
    assert (batch["input_ids"] == audio).sum() == 2 * TOKENS
    assert model.config.audio_token_id == audio
    with torch.no_grad():
        assert model.model.get_audio_features(batch["input_features"]).shape == (2, TOKENS, 576)


def test_clips_differ_by_a_good_part_of_what_their_tokens_have_in_common(model, processor, tmp_path):
    """What the Q-Former's draw is for: from a tenth of it, short runs learn the answers' frequencies alone."""
    clips = [clip(tmp_path, "low", 200), clip(tmp_path, "high", 2000)]
    with torch.no_grad():
        low, high = model.model.get_audio_features(Collator(processor)([question("?", *clips)])["input_features"])
    sounding = slice(0, 3)  # the second that is not silent
    assert (low - high)[sounding].std() > 0.3 * low[sounding].std()


def test_what_is_heard_changes_the_answer_and_what_comes_after_eight_seconds_does_not(model, processor, tmp_path):
    collator = Collator(processor)
    low, high = (
        logits(model, collator([question("What is it?", clip(tmp_path, name, pitch))]))
        for name, pitch in (("low", 200), ("high", 2000))
    )
    assert (low - high).abs().max() > 0.01
    sound, rate = soundfile.read(clip(tmp_path, "long", 300, seconds=8))
    soundfile.write(tmp_path / "longer.wav", np.concatenate([sound, sound]), rate)
    cut, whole = (collator([question("?", tmp_path / f"{name}.wav")])["input_features"] for name in ("long", "longer"))
    torch.testing.assert_close(cut[..., :780], whole[..., :780], atol=1e-3, rtol=0)  # the resampler smooths the end


def test_special_tokens_fit_the_model(model, processor):
    tokenizer = processor.tokenizer
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len({AUDIO_TOKEN, IMAGE_TOKEN, tokenizer.pad_token, tokenizer.eos_token}) == 4


def test_a_stack_is_built_once():
    before = {path: path.stat().st_mtime_ns for path in smol_audio().iterdir()}
    said: list[str] = []
    assert smol_audio(notify=said.append) == EMBEDDED["embedded:smol-audio"]()
    assert {path: path.stat().st_mtime_ns for path in smol_audio().iterdir()} == before
    assert said == []


def test_the_template_places_media_before_the_text(processor):
    content = [{"type": "image"}, {"type": "audio"}, {"type": "text", "text": "Hello"}]
    for template, media in ((processor.chat_template, AUDIO_TOKEN), (CHAT_TEMPLATE, f"{IMAGE_TOKEN}{AUDIO_TOKEN}")):
        shown = content if IMAGE_TOKEN in media else content[1:]
        text = processor.apply_chat_template(
            [{"role": "user", "content": shown}], template, tokenize=False, add_generation_prompt=True
        )
        assert text == f"<|im_start|>user\n{media}Hello<|im_end|>\n<|im_start|>assistant\n"


def test_a_wider_qformer_has_heads_of_the_same_width():
    for width, heads in ((384, 6), (512, 8)):
        config = qformer_config(width)
        config.encoder_hidden_size = width
        assert config.num_attention_heads == heads
        one = torch.zeros(1, 1, width)
        assert Blip2QFormerModel(config)(one, encoder_hidden_states=one).last_hidden_state.shape == one.shape


@pytest.mark.slow  # fetches 133 MB and builds half a gigabyte that no other test needs
def test_the_stack_with_whisper_base_differs_in_the_audio_branch_alone(model, processor, tmp_path):
    folder = smol_audio(base=True)
    assert EMBEDDED["embedded:smol-audio-base"]() == folder != smol_audio()
    base = AutoModelForMultimodalLM.from_pretrained(folder).eval().requires_grad_(False)
    tiny.assert_same(base.model.language_model.state_dict(), model.model.language_model.state_dict())
    original = whisper(lambda _: None, base=True).model.encoder.state_dict()
    original["embed_positions.weight"] = original["embed_positions.weight"][:400]
    tiny.assert_same(dict(sorted(base.model.speech_encoder.state_dict().items())), dict(sorted(original.items())))
    for part, size in ((base.model.speech_encoder, 20_027_392), (base.model.qformer, 8_706_112)):
        assert sum(parameter.numel() for parameter in part.parameters()) == size

    its_processor = AutoProcessor.from_pretrained(folder)
    batches = [Collator(one)([question("?", clip(tmp_path, "tone", 500))]) for one in (its_processor, processor)]
    tiny.assert_same(*batches)
    low, high = (
        logits(base, Collator(its_processor)([question("What is it?", clip(tmp_path, name, pitch))]))
        for name, pitch in (("low", 200), ("high", 2000))
    )
    assert (low - high).abs().max() > 0.01


@pytest.mark.slow  # builds half a gigabyte that no other test needs
def test_the_stack_with_both_towers_is_both_stacks(model, processor, tmp_path):
    folder = smol_audio_vision()
    both = AutoModelForMultimodalLM.from_pretrained(folder).eval().requires_grad_(False)
    its_processor = AutoProcessor.from_pretrained(folder)
    assert EMBEDDED["embedded:smol-audio-vision"]() == folder
    assert its_processor.chat_template == CHAT_TEMPLATE

    seen = list(easy_vqa.read("caption", "validation", kind="caption"))[:4]
    sight = AutoModelForMultimodalLM.from_pretrained(smol_vlm()).eval()
    batch = Collator(its_processor)(seen)
    tiny.assert_same(batch, Collator(AutoProcessor.from_pretrained(smol_vlm()))(seen))
    torch.testing.assert_close(logits(both, batch), logits(sight, batch), atol=1e-3, rtol=0)

    heard = [question("What is it?", clip(tmp_path, "tone", 500))]
    batch = Collator(its_processor)(heard)
    tiny.assert_same(batch, Collator(processor)(heard))
    both.model.qformer.load_state_dict(model.model.qformer.state_dict())  # the one part that differs: another draw
    torch.testing.assert_close(logits(both, batch), logits(model, batch), atol=1e-3, rtol=0)

    picture = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    mixed = Collator(its_processor)([question("Both?", heard[0].audios[0], images=(picture,)), question("Neither?")])
    image, audio = (its_processor.tokenizer.convert_tokens_to_ids(token) for token in (IMAGE_TOKEN, AUDIO_TOKEN))
    assert [(mixed["input_ids"] == token).sum(dim=1).tolist() for token in (image, audio)] == [[16, 0], [TOKENS, 0]]
    assert logits(both, mixed).isfinite().all()
