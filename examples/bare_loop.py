"""CoMMIT in a plain PyTorch loop: no Trainer, just the parts. `python examples/bare_loop.py [STEPS]`

Tunes the embedded vision-language model on easy-VQA: the projector and the last layers of the LLM learn. Read it top to
bottom.
"""

import random
import sys

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from equipoise import Coordination
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.models.embedded import smol_vlm
from equipoise.modules.coordinator import Coordinator
from equipoise.modules.partition import partition

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 12
ACCUMULATION = 2

torch.manual_seed(0)
folder = smol_vlm()
model = AutoModelForImageTextToText.from_pretrained(folder)
collate = Collator(AutoProcessor.from_pretrained(folder))
samples = list(easy_vqa.read("vqa", "train"))

# What learns: the projector and the LLM's last two layers. Everything else is frozen.
for name, parameter in model.named_parameters():
    parameter.requires_grad_("multi_modal_projector" in name or ".layers.28." in name or ".layers.29." in name)

# Which module each parameter belongs to: the decoder is "llm"; we name the rest.
modules = partition(model, {"projector": "multi_modal_projector", "vision_tower": "vision_tower"})

optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.0)
coordinator = Coordinator(
    model, optimizer, Coordination("commit", window=5, every=1, samples=4), modules, total_steps=STEPS
)  # after this, each of the optimizer's groups holds one module's parameters
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 3))

draw = random.Random(0)
for step in range(1, STEPS + 1):
    model.train()
    micro_batches = [collate(draw.sample(samples, 4)) for _ in range(ACCUMULATION)]
    tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in micro_batches)
    loss = 0.0
    for batch in micro_batches:
        coordinator.observe(batch)  # 1. before the forward
        share = model(**batch, num_items_in_batch=tokens).loss
        share.backward()
        loss += share.item()
    coordinator.before_step()  # 2. after the last backward: regulariser in, learning rates set
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    record = coordinator.after_step()  # 3. after the step: drifts measured, learning rates put back
    scheduler.step()
    optimizer.zero_grad()
    kappa = record.get("kappa_average", float("nan"))
    rates = "  ".join(f"{name} {record[f'lr/{name}']:.1e}" for name in ("projector", "llm"))
    print(f"step {step:3d}  loss {loss:.3f}  kappa {kappa:.2f}  learning rates: {rates}", flush=True)
