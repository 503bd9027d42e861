"""CoMMIT in somebody else's script: three lines around an unmodified trl SFTTrainer. `python attach_trl.py [STEPS]`

The script between the marks is what a trl user has today. It runs on the embedded model and data; with your own model
and dataset the three lines stay the same.
"""

import sys

import torch
from datasets import Dataset, Image
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from equipoise import Coordination, attach  # line 1
from equipoise.data.readers import easy_vqa
from equipoise.models.embedded import smol_vlm

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
folder = smol_vlm()

# ---------------------------------------------------------------- an ordinary trl script
samples = list(easy_vqa.read("vqa", "train"))[:200]
dataset = Dataset.from_list(
    [
        {
            "images": [str(sample.images[0])],
            "prompt": [{"role": "user", "content": sample.turns[0].text}],
            "completion": [{"role": "assistant", "content": sample.turns[1].text}],
        }
        for sample in samples
    ]
).cast_column("images", [Image()])

trainer = SFTTrainer(
    model=AutoModelForImageTextToText.from_pretrained(folder),
    processing_class=AutoProcessor.from_pretrained(folder),
    args=SFTConfig(
        output_dir="runs/attach_trl",
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=2e-4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        max_length=None,
        bf16=torch.cuda.is_available(),
    ),
    train_dataset=dataset,
    peft_config=LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=r".*language_model.*_proj",
        modules_to_save=["multi_modal_projector"],
    ),
)
# ---------------------------------------------------------------- end of it

attach(trainer, Coordination("commit", window=5, every=1, samples=4))  # line 2
trainer.train()
print(
    {key: value for key, value in trainer.state.log_history[-2].items() if key.startswith(("kappa", "lr/"))}
)  # line 3
