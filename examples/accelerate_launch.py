"""The same script on one process and on several. `accelerate launch --num_processes N accelerate_launch.py [STEPS]`

Modules (`commit`) and tasks are balanced over the samples of all processes, which find the same kappa and learning
rates to the bit. accelerate starts several on GPUs; on CPUs, `torchrun --nproc_per_node N accelerate_launch.py` does.
Plain `python accelerate_launch.py` is one.
"""

import random
import sys

import torch
from accelerate import PartialState
from transformers import AutoProcessor, TrainingArguments

from equipoise import BalancedTrainer, Coordination, TaskWeighting
from equipoise.data.collate import Collator
from equipoise.data.readers import easy_vqa
from equipoise.models import loading
from equipoise.models.embedded import smol_vlm
from equipoise.recipe import Lora, Model
from equipoise.training.processes import leave


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    on_cpu = not torch.cuda.is_available()
    processes = PartialState(cpu=on_cpu)

    with processes.main_process_first():  # the first one assembles the embedded model, the others find it
        folder = smol_vlm()
        questions = list(easy_vqa.read("vqa", "train"))[:200]
        captions = list(easy_vqa.read("caption", "train", kind="caption"))[:100]
    samples = [*questions, *captions]  # each has an attribute `task`
    random.Random(0).shuffle(samples)

    torch.manual_seed(0)  # LoRA's first weights are the same on every process
    trainer = BalancedTrainer(
        model=loading.load(Model(path=str(folder), lora=Lora(rank=16))),  # LoRA on the LLM, the projector in full
        args=TrainingArguments(
            output_dir="runs/accelerate_launch",
            max_steps=steps,
            per_device_train_batch_size=4,  # on each process
            learning_rate=2e-4,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            bf16=not on_cpu,
            use_cpu=on_cpu,
        ),
        train_dataset=samples,
        data_collator=Collator(AutoProcessor.from_pretrained(folder)),
        coordination=Coordination("commit", window=5),
        tasks=TaskWeighting("tla"),
    )
    trainer.train()
    if processes.is_main_process:
        last = trainer.state.log_history[-2]
        print({name: value for name, value in last.items() if name.startswith(("kappa", "task_"))})


if __name__ == "__main__":
    main()
    leave()  # the trainer is gone: one that is alive at exit holds gloo's threads, which may abort the process
