"""Every family's conversations as tensors: format, labels, rows of a batch as they are alone, generation."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image

from equipoise.data.collate import IGNORED, Collator
from equipoise.data.sample import Sample, Turn
from equipoise.errors import DataError
from equipoise.evaluation.generate import TransformersEngine
from equipoise.models import loading
from equipoise.models.families import Family
from equipoise.recipe import Model
from equipoise.training.supervised_logits import token_mean
from models import zoo
from models.zoo import samples
from models.zoo.images import LLAVA_TEMPLATE

Batch = dict[str, torch.Tensor]
PLACEHOLDERS = ("<image>", "<IMG_CONTEXT>", "<|image_pad|>", "<|AUDIO|>", "[AUDIO]", "<audio>", "<|image|>")
CHATML = "<|im_start|>user\n{}what is it<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n"
CHATML_ON = "<|im_start|>user\nwhere<|im_end|>\n<|im_start|>assistant\ndeep blue<|im_end|>"
DEFAULT_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
SMOL = "<fake_token_around_image>"
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
#: What is it? red. Where? deep blue. As the family's releases write it; placeholders in a row are counted.
CONVERSATIONS = {
    "llava": "<s>USER: <image>*4\nwhat is it ASSISTANT: red</s>USER: where ASSISTANT: deep blue</s>",
    "llava_qformer": "<s>USER: <image>*3\nwhat is it ASSISTANT: red</s>USER: where ASSISTANT: deep blue</s>",
    "blip2": "<image>*4</s>Question: what is it Answer: red</s>Question: where Answer: deep blue</s>",
    "paligemma": "<image>*4<bos>what is it\nred<eos>where\ndeep blue<eos>",
    "internvl": "<s>" + CHATML.format("<img><IMG_CONTEXT>*4</img>\n") + CHATML_ON,
    "qwen2_5_vl": DEFAULT_SYSTEM + CHATML.format("<|vision_start|><|image_pad|>*4<|vision_end|>") + CHATML_ON,
    "qwen3_vl": CHATML.format("<|vision_start|><|image_pad|>*4<|vision_end|>") + CHATML_ON,
    "smolvlm": (
        f"<|im_start|>User:{SMOL}<row_1_col_1><image>*4{SMOL}<row_1_col_2><image>*4\n{SMOL}<row_2_col_1><image>*4{SMOL}"
        f"<row_2_col_2><image>*4\n\n{SMOL}<global-img><image>*4{SMOL}what is it<end_of_utterance>\n"
        "Assistant: red<end_of_utterance>\nUser: where<end_of_utterance>\nAssistant: deep blue<end_of_utterance>"
    ),
    "qwen2_audio": (DEFAULT_SYSTEM + CHATML.format("Audio 1: <|audio_bos|><|AUDIO|>*25<|audio_eos|>\n") + CHATML_ON),
    "voxtral": "<s>[INST][BEGIN_AUDIO][AUDIO]*25what is it[/INST]red</s>[INST]where[/INST]deep blue</s>",
    "idefics": (
        "<s>User:<fake_token_around_image><image><fake_token_around_image>what is it\nAssistant: red</s>\n"
        "User: where\nAssistant: deep blue</s>"
    ),
    "mllama": (
        f"<|begin_of_text|>{HEADER.format('user')}<|image|>what is it<|eot_id|>"
        f"{HEADER.format('assistant')}red<|eot_id|>"
        f"{HEADER.format('user')}where<|eot_id|>{HEADER.format('assistant')}deep blue<|eot_id|>"
    ),
    "flamingo": CHATML.format("<image>") + CHATML_ON,
    "salmonn": (
        "<s> USER: <Speech><audio>*5 </Speech> what is it\nASSISTANT: red</s> USER: where\nASSISTANT: deep blue</s>"
    ),
    "audio_vision": (
        "<s> USER: <image>*4\n<Speech><audio>*5 </Speech> what is it\nASSISTANT: red</s> USER: where\n"
        "ASSISTANT: deep blue</s>"
    ),
}
SPACED = {
    "llava",
    "llava_qformer",
    "blip2",
    "smolvlm",
    "idefics",
    "salmonn",
    "audio_vision",
}  # a space lies before the answer
# transformers lets Mllama's text-only rows attend, evenly, to what fills their places: see the test of that.
ROWS_MIX = tuple(family for family in zoo.FAMILIES if family != "mllama")


@dataclass
class Opened:
    """A family's toy model, processor and media."""

    family: str
    facts: Family
    model: PeftModel
    collator: Collator
    media: Path

    def sample(self, number: int | None, *texts: str, system: str | None = None) -> Sample:
        return samples.sample(self.family, self.media, number, *texts, system=system)

    def logits(self, batch: Batch) -> torch.Tensor:
        """[B, T, V], at the positions of the collator's tokens."""
        with torch.no_grad():
            found = self.model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        return found[:, -batch["input_ids"].shape[1] :]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Summed over the supervised tokens; by the class's own loss where the Trainer uses that."""
        supervised = int((batch["labels"][:, 1:] != IGNORED).sum())
        if self.facts.loss_from_logits:
            outputs = self.model(**{name: value for name, value in batch.items() if name != "labels"})
            return token_mean(outputs, batch["labels"]) * supervised
        return self.model(**batch).loss * supervised

    def text(self, ids: torch.Tensor) -> str:
        text = self.collator.processor.tokenizer.decode(ids)
        for token in PLACEHOLDERS:
            text = re.sub(f"({re.escape(token)}){{2,}}", lambda m, t=token: f"{t}*{len(m[0]) // len(t)}", text)
        return text


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.write(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    family = request.param
    settings = Model(path=str(zoo.make(family, tmp_path_factory.mktemp("zoo") / family)))
    facts = loading.family(settings)
    collator = Collator(loading.load_processor(settings), prefix_attention=facts.prefix_attention)
    return Opened(family, facts, loading.load(settings).eval(), collator, media)


every_family = pytest.mark.parametrize("opened", zoo.FAMILIES, indirect=True)
mixing_family = pytest.mark.parametrize("opened", ROWS_MIX, indirect=True)


def row_of(batch: Batch, row: int, name: str = "input_ids") -> torch.Tensor:
    return batch[name][row][batch["attention_mask"][row] == 1]


def mixed(opened: Opened) -> list[Sample]:
    return [
        opened.sample(0, "what is it", "red"),
        opened.sample(None, "a question about nothing to be seen or heard here", "blue"),
        opened.sample(1, "which", "deep blue"),
    ]


# ------------------------------------------------------------------ format and labels


@every_family
def test_a_conversation_is_written_as_the_family_s_releases_do(opened: Opened) -> None:
    batch = opened.collator([opened.sample(0, "what is it", "red", "where", "deep blue")])
    assert opened.text(batch["input_ids"][0]) == CONVERSATIONS[opened.family]


@every_family
def test_the_labels_are_the_answers_and_their_ends(opened: Opened) -> None:
    batch = opened.collator(
        [opened.sample(0, "what is it", "red", "where", "deep blue"), opened.sample(None, "is it red", "blue")]
    )
    end = opened.collator.processor.tokenizer.eos_token
    space = " " if opened.family in SPACED else ""
    kept = [row[row != IGNORED] for row in batch["labels"]]
    earlier = "" if opened.facts.prefix_attention else f"{space}red{end}"  # which would see the question after it
    assert opened.text(kept[0]) == f"{earlier}{space}deep blue{end}"
    assert opened.text(kept[1]) == f"{space}blue{end}"
    where = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][where], batch["input_ids"][where])
    last = [int(row.nonzero().max()) for row in batch["attention_mask"]]
    assert [int(row.nonzero().max()) for row in where] == last  # an answer's end is what training ends on


@every_family
def test_a_text_begins_once(opened: Opened) -> None:
    tokenizer = opened.collator.processor.tokenizer
    begin = tokenizer.bos_token_id
    for batch in (opened.collator(mixed(opened)), opened.collator.prompts(mixed(opened))):
        for row in range(3):
            text = opened.text(row_of(batch, row))
            if begin is None or opened.family == "smolvlm":  # whose template writes it as the first turn's mark
                assert text.startswith("<|im_start|>")
            elif tokenizer.bos_token == tokenizer.eos_token:  # BLIP-2's
                assert re.match(r"(<image>\*4)?</s>Question", text)
            else:
                assert text.count(tokenizer.bos_token) == 1


@pytest.mark.parametrize("opened", ["llava"], indirect=True)
def test_what_a_template_leaves_out_is_put_in(opened: Opened) -> None:
    """The released LLaVA processors' own template writes neither the begin token nor an end."""
    processor = copy.copy(opened.collator.processor)
    processor.chat_template = LLAVA_TEMPLATE
    one = opened.sample(0, "what is it", "red", "where", "deep blue")
    batch = Collator(processor)([one])
    assert opened.text(batch["input_ids"][0]) == (
        "<s>USER: <image>*4\nwhat is it ASSISTANT: red USER: where ASSISTANT: deep blue</s>"
    )
    assert opened.text(batch["labels"][0][batch["labels"][0] != IGNORED]) == " red deep blue</s>"
    assert opened.text(Collator(processor).prompts([one])["input_ids"][0]).startswith("<s>USER")


@every_family
def test_a_system_turn_comes_first(opened: Opened) -> None:
    batch = opened.collator([opened.sample(0, "what is it", "red", system="be brief")])
    text = opened.text(batch["input_ids"][0])
    assert text.count("be brief") == 1
    assert text.index("be brief") < text.index("what is it") < text.rindex("red")
    assert "You are a helpful assistant" not in text


@every_family
def test_a_prompt_and_its_answer_are_what_is_trained_on(opened: Opened) -> None:
    for one in (*mixed(opened), opened.sample(0, "what is it", "red", "where", "deep blue")):
        prompt, batch = opened.collator.prompts([one]), opened.collator([one])
        length = prompt["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][:, :length], prompt["input_ids"])
        assert (batch["labels"][:, length:] != IGNORED).all()
        assert batch["labels"][0, length - 1] == IGNORED
        assert "labels" not in prompt


@every_family
def test_training_pads_on_the_right_and_generation_on_the_left(opened: Opened) -> None:
    for batch, descending in ((opened.collator(mixed(opened)), True), (opened.collator.prompts(mixed(opened)), False)):
        for mask in batch["attention_mask"].tolist():
            assert mask == sorted(mask, reverse=descending)
        assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {
            opened.collator.processor.tokenizer.pad_token_id
        }


@every_family
def test_a_text_with_a_placeholder_of_its_own_asks_for_no_image(opened: Opened) -> None:
    token = next(token for token in PLACEHOLDERS if token in CONVERSATIONS[opened.family])
    number = opened.collator.processor.tokenizer.convert_tokens_to_ids(token)
    for media in (None, 0):
        asked = opened.sample(media, f"what does {token}{token} mean", f"{token} is it")
        plain = opened.sample(media, "what is it", "it")
        for collate in (opened.collator, opened.collator.prompts):
            counts = [int((collate([one])["input_ids"] == number).sum()) for one in (asked, plain)]
            assert counts[0] == counts[1]
        batch = opened.collator([asked])
        answer = opened.text(batch["labels"][0][batch["labels"][0] != IGNORED])
        assert f"{token[0]} {token[1:]} is it" in answer
        opened.model(**{name: value for name, value in batch.items() if name != "labels"})


# ------------------------------------------------------------------ rows of a batch


@every_family
def test_rows_of_a_batch_say_what_they_say_alone(opened: Opened) -> None:
    rows = [opened.sample(0, "what is it", "red"), opened.sample(1, "a longer question about it", "deep blue")]
    assert_rows_are_as_alone(opened, rows)


@mixing_family
def test_rows_of_a_mixed_batch_say_what_they_say_alone(opened: Opened) -> None:
    assert_rows_are_as_alone(opened, mixed(opened))
    assert_rows_are_as_alone(opened, mixed(opened)[::-1])


def assert_rows_are_as_alone(opened: Opened, rows: Sequence[Sample]) -> None:
    batch = opened.collator(rows)
    together, total = opened.logits(batch), torch.zeros(())
    for row, one in enumerate(rows):
        alone = opened.collator([one])
        length = alone["input_ids"].shape[1]
        for name in ("input_ids", "labels"):
            assert torch.equal(row_of(batch, row, name), alone[name][0])
        torch.testing.assert_close(together[row, :length], opened.logits(alone)[0], rtol=1e-4, atol=1e-4)
        total += opened.loss(alone).detach()
    torch.testing.assert_close(opened.loss(batch).detach(), total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("opened", ROWS_MIX, indirect=True)
def test_rows_with_several_images_or_clips_say_what_they_say_alone(opened: Opened) -> None:
    one, two = opened.sample(0, "what is it", "red"), opened.sample(1, "which", "deep blue")
    both = replace(one, images=one.images + two.images, audios=one.audios + two.audios)
    assert_rows_are_as_alone(opened, [two, both, opened.sample(None, "is it", "blue")])
    swapped = replace(one, images=both.images[::-1], audios=both.audios[::-1])
    ordered, reverse = opened.collator([both]), opened.collator([swapped])
    if ordered["input_ids"].shape == reverse["input_ids"].shape:
        assert (opened.logits(ordered) - opened.logits(reverse)).abs().max() > 0.01


@every_family
def test_pictures_of_any_shape_are_taken(opened: Opened, tmp_path: Path) -> None:
    rows = []
    for number, size in enumerate([(16, 16), (70, 20), (20, 70), (300, 200)]):
        Image.effect_noise(size, 80).save(tmp_path / f"{number}.png")
        one = opened.sample(0, "what is it", "red")
        rows.append(replace(one, images=(tmp_path / f"{number}.png",)) if one.images else one)
    assert_rows_are_as_alone(opened, rows)


@every_family
def test_mixed_batches_and_batches_of_text_alone_train(opened: Opened) -> None:
    learning = {name: parameter for name, parameter in opened.model.named_parameters() if parameter.requires_grad}
    for rows in (mixed(opened), mixed(opened)[1:2], mixed(opened)[:1]):
        opened.model.zero_grad()
        loss = opened.loss(opened.collator(rows))
        loss.backward()
        assert torch.isfinite(loss)
        gradients = {name: p.grad for name, p in learning.items() if p.grad is not None}
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
        reached = {".lora_" in name for name, gradient in gradients.items() if gradient.any()}
        assert True in reached
        if rows[0].images or rows[0].audios:
            assert False in reached  # the connector
    opened.model.zero_grad()


@every_family
def test_what_a_row_shows_or_plays_changes_that_row_alone(opened: Opened) -> None:
    rows = mixed(opened)
    changed = [rows[0], rows[1], opened.sample(2, "which", "deep blue")]
    before, after = opened.collator(rows), opened.collator(changed)
    length = [int(mask.sum()) for mask in before["attention_mask"]]
    change = (opened.logits(before) - opened.logits(after)).abs()
    assert change[2, : length[2]].max() > 0.01
    assert change[0, : length[0]].max() < 1e-4
    assert change[1, : length[1]].max() < 1e-4


@pytest.mark.parametrize("opened", ["mllama"], indirect=True)
def test_mllamas_text_rows_attend_to_what_fills_their_places(opened: Opened) -> None:
    """Why Mllama is left out above: the row's cross-attention mask says it sees nothing, yet it is not as alone.

    It does not depend on the images of other rows; see `test_what_a_row_shows_or_plays_changes_that_row_alone`.
    """
    batch = opened.collator(mixed(opened))
    assert not batch["cross_attention_mask"][1].any()
    assert not batch["pixel_values"][1].any()
    alone = opened.collator(mixed(opened)[1:2])
    assert "pixel_values" not in alone
    length = alone["input_ids"].shape[1]
    together = opened.logits(batch)
    assert torch.isfinite(together).all()
    assert (together[1, :length] - opened.logits(alone)[0]).abs().max() > 1e-3
    assert torch.isfinite(opened.loss(batch))


# ------------------------------------------------------------------ generation


@every_family
def test_batched_generation_is_one_by_one_generation(opened: Opened) -> None:
    rows = [row for row in mixed(opened) if opened.family != "mllama" or row.images]
    rows.append(opened.sample(2, "a question of quite another length than the others have", "no"))
    prompts = opened.collator.prompts(rows)
    assert len({int(mask.sum()) for mask in prompts["attention_mask"]}) > 1
    engine = TransformersEngine(opened.model, opened.collator)
    assert engine.answer(rows, 8) == [engine.answer([row], 8)[0] for row in rows]


@pytest.mark.parametrize("opened", ["mllama"], indirect=True)
def test_mllama_answers_mixed_batches(opened: Opened) -> None:
    assert len(TransformersEngine(opened.model, opened.collator).answer(mixed(opened), 8)) == 3


# ------------------------------------------------------------------ what an answer may be told from


@every_family
def test_no_answer_is_told_from_itself(opened: Opened) -> None:
    batch = opened.collator([opened.sample(0, "what is it", "red")])
    supervised = (batch["labels"][0] != IGNORED).nonzero().flatten()
    changed = {name: value.clone() for name, value in batch.items()}
    changed["input_ids"][0, supervised[0] :] = opened.collator.processor.tokenizer.convert_tokens_to_ids("b")
    before = slice(0, int(supervised[0]))
    difference = (opened.logits(batch) - opened.logits(changed))[0, before].abs().max()
    assert difference < 1e-5


@pytest.mark.parametrize("opened", [family for family in zoo.FAMILIES if family != "paligemma"], indirect=True)
def test_an_earlier_answer_does_not_see_a_later_question(opened: Opened) -> None:
    one = opened.collator([opened.sample(0, "what is it", "red", "where", "deep blue")])
    other = opened.collator([opened.sample(0, "what is it", "red", "which", "deep blue")])
    supervised = (one["labels"][0] != IGNORED).nonzero().flatten()
    first = opened.collator([opened.sample(0, "what is it", "red")])
    told = slice(int(supervised[0]) - 1, first["input_ids"].shape[1] - 1)
    torch.testing.assert_close(opened.logits(one)[0, told], opened.logits(other)[0, told], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(opened.logits(one)[0, told], opened.logits(first)[0, told], rtol=1e-5, atol=1e-5)


@every_family
def test_generation_sees_what_training_saw(opened: Opened) -> None:
    for one in (opened.sample(0, "what is it", "red"), opened.sample(0, "what is it", "red", "where", "deep blue")):
        prompt, batch = opened.collator.prompts([one]), opened.collator([one])
        last = prompt["input_ids"].shape[1] - 1
        torch.testing.assert_close(opened.logits(batch)[0, last], opened.logits(prompt)[0, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opened", ["paligemma"], indirect=True)
def test_paligemmas_prompt_attends_to_itself_in_both_directions(opened: Opened) -> None:
    batch = opened.collator([opened.sample(0, "what is it", "red")])
    assert batch["token_type_ids"].tolist() == (batch["labels"] != IGNORED).long().tolist()
    changed = {name: value.clone() for name, value in batch.items()}
    last = int((batch["labels"][0] == IGNORED).nonzero().max())
    changed["input_ids"][0, last] += 1
    assert (opened.logits(batch) - opened.logits(changed))[0, :last].abs().max() > 1e-3
    prompts = opened.collator.prompts([opened.sample(0, "what is it", "red")])
    assert not prompts["token_type_ids"].any()


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("opened", ["llava", "qwen3_vl", "blip2", "idefics"], indirect=True)
def test_audio_for_a_processor_that_takes_none_is_refused(opened: Opened) -> None:
    one = samples.sample("salmonn", opened.media, 0, "what is it", "red")
    name = type(opened.collator.processor).__name__
    for collate in (opened.collator, opened.collator.prompts):
        with pytest.raises(DataError, match=rf"^task task: sample 0 has an audio; {name} takes none$"):
            collate([one])


@pytest.mark.parametrize("opened", ["qwen2_audio", "voxtral", "salmonn"], indirect=True)
def test_an_image_for_a_processor_that_takes_none_is_refused(opened: Opened) -> None:
    one = samples.sample("llava", opened.media, 0, "what is it", "red")
    with pytest.raises(DataError, match=r"^task task: sample 0 has an image; \w+ takes none$"):
        opened.collator([one])


@pytest.mark.parametrize("opened", ["salmonn"], indirect=True)
@pytest.mark.parametrize("content", [None, b"", b"not audio", b"RIFF\x00\x00\x00\x00WAVE"])
def test_audio_that_cannot_be_read_is_named(opened: Opened, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    one = Sample("s1", "task", (Turn("user", "what"), Turn("assistant", "that")), audios=(path,))
    with pytest.raises(DataError, match=r"^task task: sample s1: .*bad\.wav: audio cannot be read \(") as caught:
        opened.collator([one])
    assert len(str(caught.value).splitlines()) == 1
