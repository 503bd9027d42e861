"""Processors without torchvision: video is left out, the rest is as the files say; with it, AutoProcessor decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from equipoise.models import processors
from models import zoo

LENGTHS = {"internvl": ("image_seq_length", 4), "smolvlm": ("image_seq_len", 4)}
CLASSES = {
    "internvl": "InternVLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor",
    "smolvlm": "SmolVLMProcessor",
}  # fmt: skip
RED = Image.new("RGB", (16, 16), "red")


@pytest.fixture(scope="module", params=sorted(zoo.VIDEO))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, zoo.make(request.param, tmp_path_factory.mktemp("zoo") / request.param)


@pytest.fixture(autouse=True)
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "is_torchvision_available", lambda: False)


def test_the_parts_are_the_files(case: tuple[str, Path]) -> None:
    family, folder = case
    processor = processors.from_pretrained(str(folder))
    assert type(processor).__name__ == CLASSES[family]
    assert "video_processor" not in type(processor).get_attributes()
    assert {"image_processor", "tokenizer"} <= set(type(processor).get_attributes())
    assert processor.chat_template == (folder / "chat_template.jinja").read_text()
    written = json.loads((folder / "preprocessor_config.json").read_text())
    assert type(processor.image_processor).__name__.removesuffix("Pil") == written["image_processor_type"].removesuffix(
        "Pil"
    )
    assert dict(processor.image_processor.size) == written["size"]
    if family in LENGTHS:
        name, length = LENGTHS[family]
        assert getattr(processor, name) == length


def test_the_class_transformers_has_keeps_its_video(case: tuple[str, Path]) -> None:
    family, folder = case
    processor = processors.from_pretrained(str(folder))
    [original] = [kind for kind in type(processor).__mro__[1:] if kind.__name__ == CLASSES[family]]
    assert "video_processor" in original.get_attributes()


def test_its_template_and_its_images_work(case: tuple[str, Path]) -> None:
    processor = processors.from_pretrained(str(case[1]))
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it"}]}
    text = processor.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    batch = processor(text=[text], images=[[RED]], return_tensors="pt")
    assert "pixel_values" in batch
    assert "what is it" in processor.tokenizer.decode(batch["input_ids"][0])


def test_a_saved_one_opens_again(case: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = case
    processor = processors.from_pretrained(str(folder))
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == CLASSES[family]
    again = processors.from_pretrained(str(tmp_path))
    assert again.chat_template == processor.chat_template
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()
    if family in LENGTHS:
        assert getattr(again, LENGTHS[family][0]) == LENGTHS[family][1]


def test_a_saved_one_opens_without_the_models_config_and_keeps_the_videos_settings(
    case: tuple[str, Path], tmp_path: Path
) -> None:
    """As it lies beside an adapter; others have torchvision and open its video part."""
    processors.from_pretrained(str(case[1])).save_pretrained(tmp_path / "one")
    processors.from_pretrained(str(tmp_path / "one")).save_pretrained(tmp_path / "two")
    assert not (tmp_path / "one" / "config.json").exists()
    settings = [folder / "video_preprocessor_config.json" for folder in (case[1], tmp_path / "one", tmp_path / "two")]
    first, *others = [json.loads(file.read_text()) for file in settings]
    assert first["video_processor_type"]
    assert others == [first, first]
    assert not any(
        name.startswith("video") for name in json.loads((tmp_path / "two/processor_config.json").read_text())
    )


def test_a_tokenizer_with_code_of_its_own_is_refused_and_nobody_is_asked(
    case: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would ask at a prompt, and run it for a yes; as it lies beside an adapter there is no config."""
    processors.from_pretrained(str(case[1])).save_pretrained(tmp_path)
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\nclass Planted: pass\n")
    file = tmp_path / "tokenizer_config.json"
    planted = {"tokenizer_class": "Planted", "auto_map": {"AutoTokenizer": ["planted.Planted", None]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | planted))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    with pytest.raises(ValueError, match="trust_remote_code"):
        processors.from_pretrained(str(tmp_path))
    assert asked == []
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("remote", [False, True])
def test_with_torchvision_auto_processor_decides(
    case: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(processors, "is_torchvision_available", lambda: True)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *args, **options: calls.append((args, options)))
    processors.from_pretrained(str(case[1]), trust_remote_code=remote)
    assert calls == [((str(case[1]),), {"trust_remote_code": remote})]


def test_without_a_video_part_auto_processor_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    auto = AutoProcessor.from_pretrained
    monkeypatch.setattr(
        AutoProcessor, "from_pretrained", lambda path, **options: calls.append(path) or auto(path, **options)
    )
    folder = str(zoo.make("llava", tmp_path))
    assert type(processors.from_pretrained(folder)).__name__ == "LlavaProcessor"
    assert calls == [folder]
