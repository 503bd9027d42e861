"""CoMMIT and task weights in somebody else's script: a plain transformers Trainer. `python trainer.py [STEPS]`

Two tasks on the embedded model: questions about pictures, and captions of them. The script between the marks is what a
user of transformers has today, but for the `task` that each sample names.
"""

import random
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

from equipoise import Coordination, TaskWeighting, attach  # line 1
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.models.embedded import smol_vlm

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
folder = smol_vlm()

# ---------------------------------------------------------------- an ordinary script
torch.manual_seed(0)
model = get_peft_model(
    AutoModelForImageTextToText.from_pretrained(folder),
    LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=r".*language_model.*_proj",
        modules_to_save=["multi_modal_projector"],
    ),
)
questions = list(easy_vqa.read("vqa", "train"))[:200]
captions = list(easy_vqa.read("caption", "train", kind="caption"))[:100]
samples = [*questions, *captions]  # each has an attribute `task`: "vqa" or "caption"
random.Random(0).shuffle(samples)

trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="runs/trainer",
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=2e-4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        bf16=torch.cuda.is_available(),
    ),
    train_dataset=samples,
    data_collator=Collator(AutoProcessor.from_pretrained(folder)),
)
# ---------------------------------------------------------------- end of it

attach(trainer, Coordination("commit-clr", window=5), tasks=TaskWeighting("dwa"))  # line 2
trainer.train()
print({name: value for name, value in trainer.state.log_history[-2].items() if name.startswith(("kappa", "task_"))})
