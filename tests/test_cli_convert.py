"""`equipoise convert` and `equipoise data fetch`: arguments reach what does the work, mistakes are one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMultimodalLM

from equipoise import cli, packages

sys.path.append(str(Path(__file__).parent / "models" / "salmonn"))
from _reference import GOLDEN, make_parts

Run = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def equipoise(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Run:
    """Run a command in this process: status, output, errors."""

    def run(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["equipoise", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, errors = capfd.readouterr()
        return end.value.code, " ".join(out.split()), errors

    return run


def test_salmonn_converts_with_and_without_merging(equipoise, tmp_path):
    whisper, llm = make_parts(tmp_path / "parts")
    # The release's Q-Former has twelve heads, which the small golden one's width of 24 allows too.
    given = ["convert", "salmonn", GOLDEN / "salmonn.pth"]
    options = ["--whisper", whisper, "--llm", llm, "--beats", GOLDEN / "beats.pt"]
    status, out, _ = equipoise(*given, tmp_path / "merged", *options)
    assert (status, out) == (0, f"model: {tmp_path / 'merged'}")
    equipoise(*given, tmp_path / "apart", *options, "--no-merge-lora")
    assert (tmp_path / "apart" / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "merged" / "adapter").exists()
    one, other = (AutoModelForMultimodalLM.from_pretrained(tmp_path / name) for name in ("merged", "apart"))
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))
    assert torch.equal(one.model.qformer.query_tokens, other.model.qformer.query_tokens)
    assert one.model.beats is not None


def test_a_conversion_that_cannot_be_is_one_line(equipoise, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}', encoding="utf-8")
    status, _, errors = equipoise("convert", "internvl2", tmp_path, tmp_path / "out")
    assert status == 2
    assert errors == (f"equipoise: {tmp_path / 'config.json'}: model_type is 'llava'; 'internvl_chat' is converted\n")
    assert not (tmp_path / "out").exists()


def test_data_is_listed_with_its_licence(equipoise, monkeypatch, tmp_path):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    monkeypatch.setattr(cli.console, "width", 400)
    status, out, _ = equipoise("data", "fetch")
    assert status == 0
    for data in packages.DATA.values():
        assert data.name in out
        assert data.licence in out
    assert list(tmp_path.iterdir()) == []  # nothing is fetched unasked


def test_data_that_nobody_knows_is_one_line(equipoise):
    status, _, errors = equipoise("data", "fetch", "everything")
    assert status == 2
    assert errors == f"equipoise: found 'everything'; data that can be fetched: {', '.join(packages.DATA)}\n"
