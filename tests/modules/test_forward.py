"""What a forward says at supervised positions, and forwards that leave no trace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiny
from equipoise.modules.forward import RandomState, Supervised, inference, replaying, subset, supervised

# ---------------------------------------------------------------------------------------------- supervised


@pytest.mark.parametrize("build", [tiny.lora_llava, tiny.full_llava])
def test_kept_logits_equal_full_logits_at_supervised_positions(build):
    model, batch = build().eval(), tiny.llava_batch((3, 1, 5))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits_BTV = model(**inputs).logits
    shifted_BT = batch["labels"][:, 1:]
    expected = [
        (logits_BTV[b, t], shifted_BT[b, t].item(), b)
        for b in range(3)
        for t in range(shifted_BT.shape[1])
        if shifted_BT[b, t] != -100
    ]
    found = supervised(model, batch)
    torch.testing.assert_close(found.logits_KV, torch.stack([row for row, _, _ in expected]), rtol=1e-12, atol=1e-12)
    assert found.labels_K.tolist() == [label for _, label, _ in expected]
    assert found.samples_K.tolist() == [sample for _, _, sample in expected]
    assert (found.batch_size, found.supervised_samples) == (3, 3)


def test_the_head_runs_at_supervised_positions_only():
    model, batch = tiny.lora_llava(), tiny.llava_batch((3, 1, 5))
    positions = (batch["labels"][:, 1:] != -100).any(dim=0).sum().item()
    widths = []
    hook = model.get_base_model().lm_head.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    supervised(model, batch)
    hook.remove()
    assert widths == [positions]
    assert positions < batch["labels"].shape[1] - 1


def test_a_model_without_logits_to_keep_gives_the_same():
    model, _ = tiny.toy()
    batch = tiny.toy_step(0)[0]
    model.eval()
    found = supervised(model, batch)
    logits_BTV = model(batch["input_ids"], batch["pixel_values"]).logits
    assert torch.equal(found.logits_KV, logits_BTV[:, :-1][batch["labels"][:, 1:] != -100])


def test_a_prefix_that_widens_the_sequence_is_left_out():
    class Prefixed(nn.Module):
        def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
            prefix = torch.full((input_ids.shape[0], 3), 9)
            return SimpleNamespace(logits=nn.functional.one_hot(torch.cat([prefix, input_ids], 1), 10).double())

    ids = torch.tensor([[1, 2, 3, 4]])
    found = supervised(Prefixed(), {"input_ids": ids, "labels": torch.tensor([[-100, -100, 3, 4]])})
    assert found.logits_KV.argmax(-1).tolist() == [2, 3]
    assert found.labels_K.tolist() == [3, 4]


@pytest.mark.parametrize("build", [tiny.lora_llava, lambda: tiny.toy()[0]])
def test_nothing_supervised_gives_no_positions(build):
    model = build()
    batch = tiny.llava_batch((0, 0)) if hasattr(model, "config") else tiny.toy_step(0)[0]
    found = supervised(model, {**batch, "labels": torch.full_like(batch["labels"], -100)})
    assert found.logits_KV.shape[0] == found.supervised_samples == 0


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2]
)
def test_logits_are_float32_unless_the_model_computes_in_float64(dtype, expected):
    model = tiny.full_llava(dtype)
    assert supervised(model, tiny.llava_batch((2, 1), dtype)).logits_KV.dtype == expected


def test_sum_of_sample_means_weighs_samples_and_not_tokens():
    found = Supervised(torch.zeros(4, 2), torch.zeros(4), torch.tensor([0, 0, 0, 2]), batch_size=3)
    assert found.sum_of_sample_means(torch.tensor([1.0, 2.0, 6.0, 10.0])).item() == 13.0
    assert found.supervised_samples == 2


# ---------------------------------------------------------------------------------------------- subset


def test_subset_takes_the_samples_of_every_tensor():
    batch = {**tiny.llava_batch((3, 1, 5)), "names": "left as it is"}
    chosen = subset(batch, torch.tensor([0, 2]), [tiny.IMAGE_TOKEN])
    for name in ("input_ids", "attention_mask", "pixel_values", "labels"):
        assert torch.equal(chosen[name], batch[name][[0, 2]]), name
    assert chosen["names"] == "left as it is"


def test_subset_gives_the_whole_batch_where_image_tokens_are_unequal():
    batch = tiny.llava_batch((3, 1, 5))
    batch["input_ids"][1, 1] = 5
    assert subset(batch, torch.tensor([0]), [tiny.IMAGE_TOKEN])["labels"].shape[0] == 3


def test_subset_gives_the_whole_batch_where_first_dimensions_differ():
    batch = tiny.llava_batch((3, 1, 5))
    batch["pixel_values"] = torch.cat([batch["pixel_values"], batch["pixel_values"][:1]])
    whole = subset(batch, torch.tensor([0]), [tiny.IMAGE_TOKEN])
    tiny.assert_same(whole, batch)


def test_subset_of_everything_is_the_batch():
    batch = tiny.llava_batch((3, 1, 5))
    tiny.assert_same(subset(batch, torch.arange(3), [tiny.IMAGE_TOKEN]), batch)


# ---------------------------------------------------------------------------------------------- no trace


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_inference_gives_flags_and_random_state_back(fails):
    model, _ = tiny.toy()
    model.tower[1].eval()  # as a frozen part may be
    before, state = flags(model), torch.get_rng_state()
    try:
        with inference(model):
            assert not any(flags(model))
            assert not torch.is_grad_enabled()
            torch.rand(3)
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert flags(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_replaying_repeats_the_dropout_of_the_training_forward():
    model, batch = tiny.lora_llava(), tiny.llava_batch((3, 1, 5))
    state = RandomState()
    trained = model(**batch).logits[:, :-1][batch["labels"][:, 1:] != -100]
    torch.rand(100)
    with replaying(model, state):
        again = supervised(model, batch).logits_KV
    torch.testing.assert_close(again, trained, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(supervised(model, batch).logits_KV, trained, rtol=1e-3)


@pytest.mark.parametrize("fails", [False, True])
def test_replaying_gives_batch_norm_and_random_state_back(fails):
    model, _ = tiny.toy()
    batch, state = tiny.toy_step(0)[0], RandomState()
    model(**batch)
    values, random_state = tiny.values_of(model), torch.get_rng_state()
    try:
        with replaying(model, state):
            model(**batch)
            if fails:
                raise ValueError
    except ValueError:
        pass
    tiny.assert_same(values, tiny.values_of(model))
    assert torch.equal(torch.get_rng_state(), random_state)
