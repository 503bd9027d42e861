"""Which figures a comparison's page shows, with what words beside them: those of CoMMIT's paper, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from equipoise.comparing.summary import KAPPA as MEAN_KAPPA
from equipoise.comparing.summary import LOSS as FINAL_LOSS
from equipoise.comparing.summary import SPREAD, Quantity
from equipoise.modules.partition import LLM
from equipoise.report.comparison import figures
from equipoise.report.comparison.bands import Band
from equipoise.report.comparison.view import (
    GRADIENT,
    KAPPA,
    LOSS,
    RATE,
    STEP,
    TASK_LOSS,
    TASK_WEIGHT,
    VALIDATION,
    ComparisonView,
)  # fmt: skip
from equipoise.report.figures import SMOOTHED
from equipoise.report.skeleton import Plot

BAND = "Line: mean over seeds. Band: from the lowest seed to the highest; it is no confidence interval."
DOTS = (
    "Small: each seed. Diamond: the mean, with its 95 % interval (Student's t over seeds; it ends where the axis does, "
    "the tables have its numbers). Dotted: the mean of {baseline}."
)


@dataclass(frozen=True)
class Curve:
    """A figure of curves.

    Attributes:
        identifier, heading, caption: of it in the page.
        prefix: of the logged keys it shows, a panel each.
        quantity: title of its axes, before the part's name.
        draw: draws panels.
        geometric: whether the mean is.
    """

    identifier: str
    heading: str
    caption: str
    prefix: str
    quantity: str
    draw: Callable[[figures.Curves, Sequence[str]], go.Figure] = figures.logarithmic
    geometric: bool = True

    def plot(self, view: ComparisonView) -> Plot | None:
        """The figure with its words; None where no run logged anything of it."""
        keys = view.keys(self.prefix)
        if not keys:
            return None
        found = [(self._title(key, len(keys) > 1), view.curves[key]) for key in keys]
        shown = [method for method in view.methods if any(method in bands for _, bands in found)]
        caption = f"{self.caption} {BAND.replace('mean', 'geometric mean', 1) if self.geometric else BAND}"
        left_out = [method for method in shown if method not in view.methods[: figures.MOST]]
        if left_out:
            caption += f" Only the first {figures.MOST} methods are drawn, without {', '.join(left_out)}."
        label = f"Line chart of {self.heading.lower()} against optimizer step, for {', '.join(shown)}"
        figure = self.draw(found, view.methods)
        if self.prefix == LOSS:
            figure = figures.mark_validation(figure, view.curves.get(VALIDATION, {}), view.methods)
        return Plot(self.identifier, self.heading, caption, label, figure)

    def _title(self, key: str, several: bool) -> str:
        part = key.removeprefix(self.prefix).removeprefix("/") or LLM
        return f"{self.quantity}, {part}" if several else self.quantity


def _loss(found: figures.Curves, methods: Sequence[str]) -> go.Figure:
    return figures.linear(found, methods)


def _weights(found: figures.Curves, methods: Sequence[str]) -> go.Figure:
    return figures.linear(found, methods, include=(0.0, 1.0))


MODULES = (
    Curve(
        "kappa", "Balance coefficient",
        "κ, averaged over its window (CoMMIT, Figure 4): how far the LLM's update alone moves the model's answers, "
        "over how far the feature encoder's does. The grey band, a third to three, is what a run's verdict calls "
        "balanced.",
        KAPPA, "kappa", figures.kappa,
    ),
    Curve(
        "learning-step", "Normalised learning steps",
        "H of each module (eq. 7; Figure 2), where balance.modules.theory has it measured, each seed's mean over "
        f"{SMOOTHED} measurements.",
        STEP, "H",
    ),
    Curve(
        "gradient", "Normalised gradients",
        "Norm of the loss gradient over norm of the weights, by module (Figure 3), each seed's mean over "
        f"{SMOOTHED} logged steps. Diminishing while the loss is still high is the mark of biased learning.",
        GRADIENT, "‖G‖ / ‖θ‖",
    ),
    Curve(
        "learning-rate", "Learning rates",
        "The rate each module's step was made with, after warm-up, decay and coordination.", RATE, "learning rate",
    ),
)  # fmt: skip
LEARNING = Curve(
    "loss", "Learning curves",
    f"Training loss (Figures 3c, 5 and 6), each seed's mean over {SMOOTHED} logged steps. Diamonds: validation loss, "
    "where train.eval_steps has it computed on the way.",
    LOSS, "loss (nats a token)", _loss, geometric=False,
)  # fmt: skip
TASKS = (
    Curve(
        "task-loss", "Loss by task",
        f"Each task's loss a supervised token, each seed's mean over {SMOOTHED} steps that held the task.",
        TASK_LOSS, "loss",
    ),
    Curve(
        "task-weight", "Task weights", "λ of each task (CoTBal, eq. 2); 1 is the ordinary loss.",
        TASK_WEIGHT, "weight", _weights, geometric=False,
    ),
)  # fmt: skip


def of_modules(view: ComparisonView) -> list[Plot]:
    """Figures 2 to 4 of the paper, and the learning rates."""
    plots = [chart.plot(view) for chart in MODULES]
    summed = _quantities(
        view, "kappa-summed", "Mean and spread of kappa",
        "κ of each run after the first quarter of its measurements: the geometric mean, and the standard deviation of "
        "its natural logarithm (the paper's Figure 4 has the standard deviation of κ itself).",
        [MEAN_KAPPA, SPREAD],
    )  # fmt: skip
    return [plot for plot in (plots[0], summed, *plots[1:]) if plot is not None]


def of_scores(view: ComparisonView) -> list[Plot]:
    """Every score and the validation loss, with intervals."""
    scores = list(dict.fromkeys(cell.quantity for cell in view.summary.scores))
    parts = [view.split or "scored", "part"]
    plot = _quantities(
        view, "scores", "Scores by method", f"On the {' '.join(parts)} of each task; higher is better.", scores
    )  # fmt: skip
    loss = _quantities(
        view,
        "final-loss",
        "Validation loss by method",
        "After training, in nats a token; lower is better.",
        [FINAL_LOSS],
    )
    return [one for one in (plot, loss) if one is not None]


def of_learning(view: ComparisonView) -> list[Plot]:
    """The loss by step."""
    plot = LEARNING.plot(view)
    return [plot] if plot is not None else []


def of_tasks(view: ComparisonView) -> list[Plot]:
    """What tells a mixture's tasks apart; empty where there is one, weights only where a method moves them."""
    if len(view.keys(TASK_LOSS)) < 2:
        return []
    charts = [chart for chart in TASKS if chart.prefix != TASK_WEIGHT or _moves(view)]
    return [plot for chart in charts if (plot := chart.plot(view)) is not None]


def _moves(view: ComparisonView) -> bool:
    found: list[Mapping[str, Band]] = [view.curves[key] for key in view.keys(TASK_WEIGHT)]
    return any(max(band.high) > min(band.low) for bands in found for band in bands.values())


def _quantities(
    view: ComparisonView, identifier: str, heading: str, caption: str, quantities: Sequence[Quantity]
) -> Plot | None:
    cells = (*view.summary.scores, *view.summary.training)
    known = [quantity for quantity in quantities if any(cell.quantity == quantity for cell in cells)]
    if not known:
        return None
    figure = figures.quantities(view.summary, view.methods, known)
    label = f"{heading}: {', '.join(view.summary.methods)}; a table with the numbers follows"
    words = f"{caption} {DOTS.format(baseline=view.summary.baseline)}"
    return Plot(identifier, heading, words, label, figure)
