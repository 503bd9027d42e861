"""Models small enough to check by brute force, batches for them, and a plain training step.

The LLaVA is transformers' own class with random weights; float64 is float64 all the way (Llama's norms, which compute
in float32, are replaced by torch's). `Toy` is a few linear maps with BatchNorm and dropout, for what needs many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from equipoise.modules.coordinator import Coordinator, Record
from equipoise.modules.partition import Partition, partition

Batch = dict[str, Any]
IMAGE_TOKEN, IMAGE_TOKENS, VOCABULARY = 99, 4, 100
LORA_TARGETS = r".*language_model.*\.(q_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
TOWER_PATTERNS = {"vision_tower": r"^model\.vision_tower", "projector": r"^model\.multi_modal_projector"}
STEP = ((3, 1, 5), (2,), (4, 1))  # supervised tokens of each sample, in micro-batches of 3, 1 and 2 samples


def llava(dtype: torch.dtype = torch.float64, attention_dropout: float = 0.1) -> LlavaForConditionalGeneration:
    """A LLaVA in training mode whose every parameter learns."""
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, max_position_embeddings=64, attention_dropout=attention_dropout, initializer_range=0.15,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN, vision_feature_layer=-1)
    model = LlavaForConditionalGeneration(config)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LlamaRMSNorm):
                setattr(parent, name, nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon))
    return model.to(dtype).train()


def lora_llava(dtype: torch.dtype = torch.float64, dropout: float = 0.1) -> PeftModel:
    """LoRA with dropout on the LLM, the projector learns, the tower is frozen."""
    model = llava(dtype, attention_dropout=0.0)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=LORA_TARGETS)
    tuned = get_peft_model(model, config).to(dtype)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what lora_A does
            nn.init.normal_(parameter, std=0.05)
        if "multi_modal_projector" in name:
            parameter.requires_grad_(True)
    return tuned.train()


def full_llava(dtype: torch.dtype = torch.float64) -> LlavaForConditionalGeneration:
    """LLM and projector learn in full, with attention dropout; the tower is frozen."""
    model = llava(dtype)
    model.model.vision_tower.requires_grad_(False)
    return model


#: Name to (builder, patterns): two modules by LoRA, two in full, three in full.
LLAVAS = {"lora": (lora_llava, None), "full": (full_llava, None), "three modules": (llava, TOWER_PATTERNS)}
#: What the names of each module's parameters contain, written down without the code under test.
MARKERS = {
    "llm": ("language_model", "lm_head"),
    "encoder": ("multi_modal_projector",),
    "projector": ("multi_modal_projector",),
    "vision_tower": ("vision_tower",),
}


def names_of(model: nn.Module, module: str) -> list[str]:
    """The trainable parameters of a module of one of the `LLAVAS`."""
    return [n for n, p in model.named_parameters() if p.requires_grad and any(m in n for m in MARKERS[module])]


def llava_batch(answers: Sequence[int], dtype: torch.dtype = torch.float64, seed: int = 0) -> Batch:
    """One image, a prompt and an answer of that many supervised tokens a sample; padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    rows, labels = [], []
    for index, supervised in enumerate(answers):
        prompt = torch.randint(1, IMAGE_TOKEN, (2 + index % 2,), generator=generator).tolist()
        answer = torch.randint(1, IMAGE_TOKEN, (supervised,), generator=generator).tolist()
        rows.append([1] + [IMAGE_TOKEN] * IMAGE_TOKENS + prompt + answer)
        labels.append([-100] * (1 + IMAGE_TOKENS + len(prompt)) + answer)
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "pixel_values": torch.randn(len(rows), 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
    }


def llava_step(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Batch]:
    """The micro-batches of one optimizer step: unequal in samples, in length, in supervised tokens."""
    return [llava_batch(answers, dtype, seed=100 * seed + index) for index, answers in enumerate(STEP)]


class Toy(nn.Module):
    """Tower (with BatchNorm), projector, LLM (with dropout); float64; frozen parts are the caller's affair."""

    def __init__(self, width: int = 6, vocabulary: int = 11):
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.GELU())
        self.projector = nn.Linear(width, width)
        self.llm = nn.ModuleDict(
            {
                "embed": nn.Embedding(vocabulary, width),
                "layer": nn.Sequential(nn.Dropout(0.2), nn.Linear(width, width), nn.GELU(), nn.Dropout(0.2)),
                "head": nn.Linear(width, vocabulary),
            }
        )
        self.double()

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> SimpleNamespace:
        features_B1D = self.projector(self.tower(pixel_values)).unsqueeze(1)
        hidden_BTD = self.llm["embed"](input_ids) + features_B1D
        logits_BTV = self.llm["head"](hidden_BTD + self.llm["layer"](hidden_BTD))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits_BTV, loss=loss)


TOY_PATTERNS = {"tower": r"^tower\.", "projector": r"^projector\.", "llm": r"^llm\."}


def toy(tower_learns: bool = False) -> tuple[Toy, Partition]:
    """A toy of two learning modules (three with the tower), in training mode, the same weights whenever called."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = Toy()
    model.tower.requires_grad_(tower_learns)
    return model, partition(model, TOY_PATTERNS)


def toy_step(seed: int, sizes: Sequence[int] = (3, 2)) -> list[Batch]:
    """The micro-batches of one optimizer step of the toy, of that many samples each."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for size in sizes:
        input_ids = torch.randint(0, 11, (size, 5), generator=generator)
        labels = input_ids.clone()
        labels[:, :2] = -100
        labels[0, 4] = -100
        pixels = torch.randn(size, 5, generator=generator, dtype=torch.float64)
        batches.append({"input_ids": input_ids, "pixel_values": pixels, "labels": labels})
    return batches


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    coordinator: Coordinator | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Record:
    """One optimizer step over all micro-batches, as any training loop makes it; returns the coordinator's record."""
    optimizer.zero_grad()
    for batch in batches:
        if coordinator is not None:
            coordinator.observe(batch)
        (model(**batch).loss / len(batches)).backward()
    if coordinator is not None:
        coordinator.before_step()
    optimizer.step()
    record = coordinator.after_step() if coordinator is not None else {}
    if scheduler is not None:
        scheduler.step()
    return record


def values_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Two trees of containers, tensors and numbers are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert one == other, where
