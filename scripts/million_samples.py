"""What a task of a million samples costs: indexing it, and from a process's start to its first batch.

    python scripts/million_samples.py [COUNT]

Writes COUNT (1,000,000) samples about 1,000 small images, as one JSON file in LLaVA's form and as JSON lines. For each,
a process indexes it; then fresh ones open the index, order all samples as training does, and collate a batch of 16 for
the embedded vision-language stack. Prints seconds, seconds of CPU (the ones to compare where the machine does other
things too), seconds of all after the imports, and the most memory that was resident; the status is 1 where a first
batch took more than 5 s or 500 MiB.

Nothing heavy is imported here: what a process inherits would count as its own memory.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGES = 1_000
SECONDS, MEBIBYTES = 5.0, 500
READERS = {"llava": "train.json", "jsonl": "train.jsonl"}
ORDERS = {
    "shuffled": {},
    "one-modality": {"batches": "one-modality"},
    "every-modality, by length": {"batches": "every-modality", "group_by_length": True},
}


def write(folder: Path, count: int) -> None:
    """Both files and the images; about 200 characters a sample, every tenth of them without an image."""
    from PIL import Image

    (folder / "images").mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (32, 32), (number % 256, number // 4, 99)).save(folder / f"images/{number}.png")
    with (folder / "train.json").open("w") as array, (folder / "train.jsonl").open("w") as lines:
        for number in range(count):
            about = {"image": f"images/{number * 7 % IMAGES}.png"} if number % 10 else {}
            question = f"Question {number}: what is to be seen here? {'Say it in some words. ' * (number % 9)}".strip()
            answer = f"Number {number} of {count}; a plain picture of one colour."
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            array.write(f"{',' if number else '['}\n{json.dumps({'id': str(number), **about, 'conversations': turns})}")
            lines.write(json.dumps({"id": number, **about, "prompt": question, "answer": answer}) + "\n")
        array.write("\n]\n")


def index(reader: str, folder: Path) -> float:
    """Read the task's training part, from the index where it is there; returns when the imports were done."""
    from equipoise.data.tasks import read_task

    began = time.time()
    read_task(task(reader, folder), "train", seed=0)
    return began


def first_batch(reader: str, folder: Path, order: str) -> float:
    """What training does before its first step, without the model; returns when the imports were done."""
    from torch.utils.data import DataLoader, RandomSampler

    from equipoise.data.collate import Collator
    from equipoise.data.mixture import Mixture, MixtureSampler
    from equipoise.data.tasks import read_task
    from equipoise.models import loading
    from equipoise.recipe import Data, Model

    began = time.time()
    samples = read_task(task(reader, folder), "train", seed=0)
    assert samples is not None
    mixture = Mixture({"million": samples})
    settings = Data(**ORDERS[order])
    # Trainer's own sampler where samples are simply shuffled, as in equipoise.training.run
    ours = MixtureSampler(mixture, settings, [1.0], batch_size=16, together=1, seed=0)
    sampler = RandomSampler(mixture) if settings == Data() else ours
    collate = Collator(loading.load_processor(Model(path="embedded:smol-vlm")))
    batch = next(iter(DataLoader(mixture, batch_size=16, sampler=sampler, collate_fn=collate)))
    assert len(batch["input_ids"]) == 16
    return began


def task(reader: str, folder: Path):
    """The task as a recipe has it."""
    from equipoise.recipe import Task

    return Task.model_validate({"name": "million", "reader": reader, "path": folder})


def peak() -> float:
    """The most memory that was resident in this process, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


def measured(*arguments: object) -> tuple[float, float, float, float]:
    """Seconds from the start of a process to the end of its work, seconds of CPU, seconds after imports, and memory."""
    began = time.time()
    command = [sys.executable, __file__, *map(str, arguments)]
    ended, *others = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return ended - began, *others


def main(count: int) -> int:
    """Measure and print."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    met = True
    print(f"{count:,} samples:{'':28}   size    wall     CPU   after imports   memory")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        write(folder, count)
        for reader, name in READERS.items():
            indexes = Path(scratch) / f"index-{reader}"
            os.environ["EQUIPOISE_INDEX"] = str(indexes)
            show(f"{reader}, indexing", (folder / name).stat().st_size, *measured("index", reader, folder))
            size = sum(file.stat().st_size for file in indexes.rglob("*") if file.is_file())
            for order in ORDERS:
                figures = measured("first-batch", reader, folder, order)
                met &= figures[0] < SECONDS and figures[-1] < MEBIBYTES
                show(f"{reader}, first batch, {order}", size, *figures)
    print(f"first batch within {SECONDS:.0f} s and {MEBIBYTES} MiB: {'yes' if met else 'no'}")
    return 0 if met else 1


def show(what: str, size: float, seconds: float, processor: float, after: float, memory: float) -> None:
    """Print one row."""
    row = f"{what:44} {size / 1e6:4.0f} MB {seconds:5.1f} s {processor:5.1f} s {after:13.1f} s {memory:4.0f} MiB"
    print(row, flush=True)


def work(arguments: list[str]) -> None:
    """One measured process."""
    match arguments:
        case ["index", reader, folder]:
            began = index(reader, Path(folder))
        case ["first-batch", reader, folder, order]:
            began = first_batch(reader, Path(folder), order)
    print(json.dumps([time.time(), time.process_time(), time.time() - began, peak()]))


if __name__ == "__main__":
    if sys.argv[1:2] in (["index"], ["first-batch"]):
        work(sys.argv[1:])
    else:
        sys.exit(main(int(sys.argv[1].replace("_", "")) if sys.argv[1:] else 1_000_000))
