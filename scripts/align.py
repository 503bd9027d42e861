"""Make the projector that ships with equipoise: run the alignment recipe and keep its result in float16.

python scripts/align.py runs/align        # about half an hour on 2 CPU cores; goes on where it stopped
"""

import sys
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from equipoise.models.embedded import PROJECTOR
from equipoise.recipe_reading import load_recipe
from equipoise.training.run import train

folder = Path(sys.argv[1])
recipe = load_recipe(PROJECTOR.parents[1] / "recipes" / "align-smol-vlm.yaml")
run = train(recipe, folder, Console(), resume=True)

marker = "multi_modal_projector."
weights = {
    name.partition(marker)[2]: weight.to(torch.float16).contiguous()
    for name, weight in load_file(run.model / "model.safetensors").items()
    if marker in name
}
save_file(weights, PROJECTOR)
print(f"{PROJECTOR}: {sum(w.numel() for w in weights.values()):,} weights, {PROJECTOR.stat().st_size / 1e6:.1f} MB")
