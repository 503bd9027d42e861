"""What runs have learned to represent: linear probes and CKA, by method and seed.

    python -m experiments.representations OUT/table1/category --out OUT/representations/category
    python -m experiments.representations RUN RUN ... --task vqa --out FOLDER --figure docs/representations.png

A folder of `equipoise compare` stands for all of its finished runs. The same samples go through each run's model and
through the untuned one. Probes learn a task's answer from features of training samples, choose their penalty on
validation samples and are scored on test samples; CKA compares features of the validation samples between runs.
Features are kept in FOLDER/features, a file a run: what is there is not computed again, so the command goes on where it
was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from equipoise.data.sample import Sample
from equipoise.data.tasks import PARTS, read_task
from equipoise.models import loading
from equipoise.recipe import Recipe, Task
from equipoise.training.fast_paths import answering_paths
from equipoise.training.run_directory import RunDirectory, write_json
from experiments.representation_features import features
from experiments.representation_measures import Split, cka, debiased_cka, probe

UNTUNED = "untuned"
SEED = 0  # of the drawing of samples, the same for all runs
Features = Mapping[str, Mapping[str, torch.Tensor]]
"""By part, by place: [N, D]."""


@dataclass(frozen=True)
class Source:
    """A model that is looked into.

    Attributes:
        name: METHOD@SEED, or `untuned`.
        run: None for the untuned model.
    """

    name: str
    run: RunDirectory | None

    @property
    def method(self) -> str:
        return self.name.partition("@")[0]

    @property
    def seed(self) -> str:
        return self.name.partition("@")[2]


def sources(paths: Sequence[Path]) -> list[Source]:
    """All finished runs below some paths, the untuned model first.

    Raises:
        SystemExit: there is none, or two have one name.
    """
    folders = [
        folder
        for path in paths
        for folder in (sorted((path / "nodes").iterdir()) if (path / "nodes").is_dir() else [path])
    ]
    runs = [RunDirectory(folder) for folder in folders]
    found = [Source(_name(run.path), run) for run in runs if run.done and run.model.is_dir()]
    repeated = [name for name, count in Counter(source.name for source in found).items() if count > 1]
    if not found or repeated:
        sys.exit(f"found runs twice: {', '.join(repeated)}" if repeated else "found no finished run")
    return [Source(UNTUNED, None), *found]


def _name(folder: Path) -> str:
    """METHOD@SEED of a comparison's METHOD@SEED-DIGEST; of another run its folder's name."""
    name, dash, digest = folder.name.rpartition("-")
    return name if "@" in name and dash and digest.isalnum() else folder.name


def chosen_task(recipe: Recipe, name: str | None, sizes: Mapping[str, int]) -> Task:
    """A recipe's task, of so many samples a part.

    Raises:
        SystemExit: there is no such task, or several and none was named.
    """
    tasks = {task.name: task for task in recipe.tasks}
    if name is None and len(tasks) == 1:
        [name] = tasks
    if name not in tasks:
        sys.exit(f"--task: found {name!r}; the recipe has {', '.join(tasks)}")
    limits = {f"max_{part}": size for part, size in sizes.items()}
    return tasks[name].model_copy(update={**limits, "fraction": None})


def parts(task: Task) -> dict[str, list[Sample]]:
    """The samples of each part, the same for every run of the task.

    Raises:
        SystemExit: the recipe leaves a part out.
    """
    found = {part: read_task(task, part, SEED) for part in PARTS}
    if missing := [part for part, samples in found.items() if samples is None]:
        sys.exit(f"tasks.{task.name}: it has no {' and no '.join(missing)} part")
    return {part: list(samples or ()) for part, samples in found.items()}


def label(sample: Sample) -> str:
    """A sample's class: its most frequent reference."""
    return Counter(reference.strip().lower() for reference in sample.references).most_common(1)[0][0]


def computed(
    source: Source, recipe: Recipe, samples: Mapping[str, list[Sample]], folder: Path, batch_size: int
) -> Features:
    """A model's features, from their file if that is of this model and these samples."""
    file = folder / f"{source.name}.safetensors"
    digest = _digest(source, recipe, samples)
    if not _holds(file, digest):
        model = loading.load(recipe.model) if source.run is None else loading.load_tuned(recipe.model, source.run.model)
        collator = loading.load_collator(recipe, loading.load_processor(recipe.model), bounded=False)
        tensors = {}
        with answering_paths(recipe.train, model.device).on(model.requires_grad_(False)):
            for part, of_part in samples.items():
                said = _Counting(f"{source.name}, {part}", len(of_part))
                for place, value in features(model, collator, of_part, batch_size, said).items():
                    tensors[f"{part}/{place}"] = value.contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        save_file(tensors, unfinished, {"digest": digest, "order": json.dumps(list(tensors))})
        os.replace(unfinished, file)
    found: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(file, "pt") as opened:
        for name in json.loads(opened.metadata()["order"]):  # the file itself sorts by name
            part, _, place = name.partition("/")
            found.setdefault(part, {})[place] = opened.get_tensor(name)
    return found


def _digest(source: Source, recipe: Recipe, samples: Mapping[str, list[Sample]]) -> str:
    """Of all that decides the features: the model's files, and which samples."""
    files = sorted(path for path in source.run.model.rglob("*") if path.is_file()) if source.run else []
    states = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    ids = {part: [sample.id for sample in of_part] for part, of_part in samples.items()}
    told = json.dumps([recipe.model.model_dump(mode="json"), states, ids])
    return hashlib.sha256(told.encode()).hexdigest()


def _holds(file: Path, digest: str) -> bool:
    if not file.is_file():
        return False
    with safe_open(file, "pt") as opened:
        return (opened.metadata() or {}).get("digest") == digest


class _Counting:
    """Says how far it is."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.done = name, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        end = "\n" if self.done >= self.total else "\r"
        print(f"{self.name}: {self.done}/{self.total}", end=end, file=sys.stderr, flush=True)


def measure(found: Mapping[str, Features], labels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Probe every model at every place, and compare all models with each other.

    Args:
        found: by model's name.
        labels: by part.
    """
    names = list(found)
    places = [place for place in found[names[0]]["train"] if all(place in of["train"] for of in found.values())]

    def probed(of: Features, place: str) -> dict[str, float]:
        train, validation, test = (Split(of[part][place], labels[part]) for part in PARTS)
        return probe(train, validation, test)

    probes = {name: {place: probed(of, place) for place in places} for name, of in found.items()}
    compared = {}
    for place in places:
        values = {name: of["validation"][place] for name, of in found.items()}
        compared[place] = {
            kind: [[_defined(measure, values[one], values[other]) for other in names] for one in names]
            for kind, measure in (("plain", cka), ("debiased", debiased_cka))
        }
    majority = Counter(labels["train"]).most_common(1)[0][0]
    return {
        "models": names,
        "places": places,
        "classes": len(set(labels["train"])),
        "samples": {part: len(of_part) for part, of_part in labels.items()},
        "majority": sum(label == majority for label in labels["test"]) / len(labels["test"]),
        "probes": probes,
        "cka": compared,
    }


def _defined(measure: Any, one: torch.Tensor, other: torch.Tensor) -> float | None:
    """None where features are the same for all samples: shut gates add nothing."""
    constant = any(float((value - value[:1]).abs().max()) == 0 for value in (one, other))
    return None if constant else measure(one, other)


def summary(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By method and place: the probes' accuracies; debiased CKA with the untuned model, between seeds, with others."""
    names = measured["models"]
    models = [Source(name, None) for name in names]
    rows = []
    for place in measured["places"]:
        matrix = measured["cka"][place]["debiased"]
        pairs = list(itertools.combinations(range(len(names)), 2))
        for method in dict.fromkeys(model.method for model in models):
            own = [number for number, model in enumerate(models) if model.method == method]
            seeds = [(a, b) for a, b in pairs if a in own and b in own]
            others = [
                (a, b) for a, b in pairs
                if (a in own) != (b in own) and models[a].seed == models[b].seed and UNTUNED not in (names[a], names[b])
            ]  # fmt: skip
            accuracies = [measured["probes"][names[number]][place]["accuracy"] for number in own]
            rows.append(
                {
                    "place": place,
                    "method": method,
                    "runs": len(own),
                    "probe": statistics.fmean(accuracies),
                    "probe_std": statistics.stdev(accuracies) if len(own) > 1 else None,
                    "cka_untuned": _mean(matrix[number][names.index(UNTUNED)] for number in own),
                    "cka_seeds": _mean(matrix[a][b] for a, b in seeds),
                    "cka_methods": _mean(matrix[a][b] for a, b in others),
                }
            )
    return rows


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary in Markdown."""
    lines = [
        "| place | method | runs | probe accuracy | CKA with untuned | between seeds | with other methods |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = f" ± {row['probe_std']:.3f}" if row["probe_std"] is not None else ""
        ckas = (row["cka_untuned"], row["cka_seeds"], row["cka_methods"])
        shown = " | ".join("-" if value is None else f"{value:.3f}" for value in ckas)
        lines.append(f"| {row['place']} | `{row['method']}` | {row['runs']} | {row['probe']:.3f}{spread} | {shown} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task")
    parser.add_argument("--figure", type=Path, help="a PNG (needs Chromium)")
    parser.add_argument("--batch-size", type=int, default=16)
    for part, size in (("train", 400), ("validation", 200), ("test", 200)):
        parser.add_argument(f"--{part}", type=int, default=size, help=f"samples of the {part} part at most")
    arguments = parser.parse_args(given)
    models = sources(arguments.paths)
    recipes = {source.name: source.run.recipe() for source in models if source.run is not None}
    first = next(iter(recipes.values()))
    if differing := [name for name, recipe in recipes.items() if recipe.model.path != first.model.path]:
        sys.exit(f"{', '.join(differing)}: of another model than {first.model.path}; runs of one model are compared")
    task = chosen_task(first, arguments.task, {part: getattr(arguments, part) for part in PARTS})
    samples = parts(task)
    kept = arguments.out / "features"
    found = {
        source.name: computed(source, recipes.get(source.name, first), samples, kept, arguments.batch_size)
        for source in models
    }
    labels = {part: [label(sample) for sample in of_part] for part, of_part in samples.items()}
    measured = measure(found, labels)
    rows = summary(measured)
    write_json(arguments.out / "representations.json", {"task": task.name, **measured, "summary": rows})
    print(table(rows))
    if arguments.figure:
        from experiments.representation_figures import draw  # plotly takes its time

        draw(rows, measured["majority"], arguments.figure)


if __name__ == "__main__":
    main()
