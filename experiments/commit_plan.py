"""What is compared with what: cells, methods, rates and ablations of `experiments.commit`.

Fixed before the runs; what came later is in the log of docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Settings = tuple[str, ...]
RECIPES = Path(__file__).parent / "commit"
SEEDS = (0, 1, 2, 3, 4)
#: Rates are tuned with a seed that no table has.
TUNING_SEED = 100
#: CoMMIT's Table 2, and one between.
RATES = (1e-5, 1e-4, 3e-4, 1e-3)
BASELINE = "constant"
#: In the paper's form: every sample measured exactly, the mean of ratios, nothing held back.
PAPER = ["estimator=exact", "average=mean", "min_factor=0", "regulariser_cap=null"]


def modules(*settings: str) -> Settings:
    """Settings of `balance.modules`, as `key=value` of a recipe."""
    return tuple(f"balance.modules.{setting}" for setting in settings)


#: Table 1's, then ours.
METHODS: Mapping[str, Settings] = {
    BASELINE: modules("schedule=constant"),
    "feature-cd": modules("schedule=feature-cd"),
    "language-cd": modules("schedule=language-cd"),
    "commit-clr": modules("schedule=commit-clr"),
    "commit": modules("schedule=commit"),
    "servo": modules("schedule=commit-clr", "controller=servo"),
}
#: What the smaller comparisons look at.
SHORT = {name: METHODS[name] for name in (BASELINE, "commit-clr", "commit")}
#: Both of the paper's own methods in its form, beside ours.
FORMS: Mapping[str, Settings] = {
    **SHORT,
    "commit-clr, paper's form": modules("schedule=commit-clr", *PAPER),
    "commit, paper's form": modules("schedule=commit", *PAPER),
}


def at(settings: Settings, rate: float) -> Settings:
    """A method at a learning rate."""
    return (*settings, f"train.learning_rate={rate:g}")


#: Two to five times as dear: they take the rate of what they are a form of.
TUNED_AS = {"commit-clr, paper's form": "commit-clr", "commit, paper's form": "commit"}


@dataclass(frozen=True)
class Cell:
    """A task on a backbone.

    Attributes:
        name: of the cell and its recipe.
        stack: whose learning rates it uses.
        metric: of its scores.
        of: the recipe's tasks, where there is not one alone that has the cell's name.
    """

    name: str
    stack: str
    metric: str
    of: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The recipe's."""
        return self.of or (self.name,)

    @property
    def file(self) -> Path:
        """The recipe."""
        return RECIPES / f"{self.name}.yaml"


MAIN = {
    cell.name: cell
    for cell in (
        Cell("vqa", "vision", "exact_match"),
        Cell("language", "audio", "exact_match"),
        Cell("category", "vision", "exact_match"),
        Cell("pitch", "audio", "exact_match"),
        Cell("caption", "vision", "cider"),
        Cell("hearing", "audio", "exact_match", ("language", "pitch")),
    )
}
#: Other encoders, other ways to join them to the LLM, three modules. A new Q-Former learns at the audio stack's rates.
BACKBONES = {
    cell.name: cell
    for cell in (
        Cell("language-base", "audio", "exact_match", ("language",)),
        Cell("caption-qformer", "audio", "exact_match", ("caption",)),
        Cell("caption-flamingo", "audio", "exact_match", ("caption",)),
        Cell("both", "audio", "exact_match", ("vqa", "language")),
    )
}
CELLS = MAIN | BACKBONES
#: The encoder's module of a stack that learns.
ENCODER = {"vision": "projector", "audio": "qformer"}
#: The stack's first task: there rates are tuned.
TUNED_ON = {"vision": "vqa", "audio": "language"}


#: Table 2: `commit` at its own rate, and constant rates.
CONSTANT_RATES = {
    "commit": METHODS["commit"],
    **{f"{BASELINE} at {rate:g}": at(METHODS[BASELINE], rate) for rate in RATES},
}
#: Figures 2 and 3: ten times the rate on one side, with everything that the theorems name, at every fourth step.
ONE_SIDE_FASTER = {
    name: modules(f"schedule={name}", "theory=true", "theory_every=4")
    for name in (BASELINE, "encoder-lr-up", "llm-lr-up", "commit-clr", "commit")
}
#: One setting of `commit` changed at a time.
ABLATIONS: Mapping[str, Settings] = {
    "commit": modules("schedule=commit"),
    **{f"window {n}": modules("schedule=commit", f"window={n}") for n in (1, 5, 50)},
    "mean of ratios": modules("schedule=commit", "average=mean"),
    "servo": modules("schedule=commit", "controller=servo"),
    **{f"regulariser {w:g}": modules("schedule=commit", f"regulariser_weight={w:g}") for w in (0, 10)},
    **{f"estimator {e}": modules("schedule=commit", f"estimator={e}") for e in ("exact", "sampled", "lookback")},
}
#: What learns, and by which optimizer: `commit` beside `constant` in each case.
OTHERWISE: Mapping[str, Settings] = {
    "tower too": ("model.train.vision_tower=full",),
    "LLM in full": ("model.lora=null", "model.train.llm=full", "train.learning_rate=1e-5"),
    "SGD": ("train.optimizer=sgd", "train.learning_rate=0.1"),
    "Adafactor": ("train.optimizer=adafactor",),
}


@dataclass(frozen=True)
class Experiment:
    """A comparison that is made on some cells.

    Attributes:
        cells: names of them.
        methods: the first is what the others are compared with.
        seeds: of each.
        rates: where the learning rates come from that settings do not name: `own`, each method's tuned one;
            `constant`, the tuned one of constant for all.
        scored: whether anything but the validation loss is computed.
    """

    cells: Sequence[str]
    methods: Mapping[str, Settings]
    seeds: Sequence[int] = SEEDS
    rates: Literal["own", "constant"] = "constant"
    scored: bool = True


EXPERIMENTS: Mapping[str, Experiment] = {
    "tune": Experiment(
        tuple(TUNED_ON.values()),
        {f"{name} at {rate:g}": at(METHODS[name], rate) for name in METHODS for rate in RATES},
        seeds=(TUNING_SEED,),
        scored=False,
    ),
    "table1": Experiment(tuple(MAIN), METHODS, rates="own"),
    "paper-form": Experiment(tuple(TUNED_ON.values()), FORMS, rates="own"),
    "one-rate": Experiment(tuple(MAIN), SHORT),
    "table2": Experiment([name for name, cell in MAIN.items() if cell.stack == "vision"], CONSTANT_RATES, rates="own"),
    "backbones": Experiment(tuple(BACKBONES), SHORT, seeds=SEEDS[:3]),
    "curves": Experiment(("vqa", "language"), ONE_SIDE_FASTER, seeds=SEEDS[:3]),
    "ablations": Experiment(("vqa",), ABLATIONS, seeds=SEEDS[:3], scored=False),
    **{
        f"otherwise-{name.replace(' ', '-')}": Experiment(
            ("vqa",),
            {method: (*own, *settings) for method, own in SHORT.items()},
            seeds=SEEDS[:3],
            scored=False,
        )
        for name, settings in OTHERWISE.items()
    },
}
