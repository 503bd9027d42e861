"""Which figures the report shows, in which order, with what words beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from equipoise.report import figures
from equipoise.report.skeleton import Plot
from equipoise.report.view import RunView


@dataclass(frozen=True)
class Chart:
    """One figure and its words.

    Attributes:
        identifier: of its element in the page.
        heading: its title.
        caption: what is drawn and how to read it.
        prefixes: the logged keys it needs, by their beginnings.
        build: draws it.
    """

    identifier: str
    heading: str
    caption: str
    prefixes: tuple[str, ...]
    build: Callable[[Sequence[RunView]], go.Figure]

    def without(self, runs: Sequence[RunView]) -> list[str]:
        """Labels of the runs that logged nothing of this."""
        return [run.label for run in runs if not any(key.startswith(self.prefixes) for key in run.columns)]

    def plot(self, runs: Sequence[RunView]) -> Plot | None:
        """The figure with its words; None where no run logged anything of it."""
        without = self.without(runs)
        if len(without) == len(runs):
            return None
        names = ", ".join(run.label for run in runs if run.label not in without)
        caption = self.caption + (f" Nothing was logged by {', '.join(without)}." if without else "")
        label = f"Line chart of {self.heading.lower()} against optimizer step, for {names}"
        figure = self.build(runs)
        if len(runs) > 1:
            figure.update_layout(showlegend=False)  # the page has one for all
        return Plot(self.identifier, self.heading, caption, label, figure)


CHARTS = (
    Chart(
        "kappa",
        "Balance coefficient",
        "κ: how far the LLM's update alone moves the model's answers, over how far the feature encoder's update alone "
        "moves them (CoMMIT, eq. 5). Above 1 the learning leans toward the LLM, below 1 toward the encoder. Thin: each "
        "measurement; thick: the average over the window, which the schedule acts on. The grey band, a third to three, "
        "is what the verdict calls balanced. Where more than two modules learn, each has its own κ over one encoder.",
        ("kappa",),
        figures.kappa,
    ),
    Chart(
        "drift",
        "Drift",
        "KL divergence between the model's answers before a step and after the step of one module alone (eq. 3 and 4), "
        "in nats a token. Balanced modules drift alike; a module far below the others is starving.",
        ("drift/",),
        lambda runs: figures.by_module(runs, "drift/", "drift"),
    ),
    Chart(
        "learning-rate",
        "Learning rate",
        "The rate each module's step was made with, after warm-up, decay and coordination. The axis is logarithmic and "
        f"ends at {figures.RATES:,} times below the highest rate; a rate of 0, of a module that waits, is not on it.",
        ("lr/",),
        figures.learning_rate,
    ),
    Chart(
        "loss",
        "Loss",
        f"Training loss of each step, thin, and its mean over the last {figures.SMOOTHED} logged steps, thick. "
        "Diamonds: validation loss.",
        ("loss", "validation_loss"),
        figures.loss,
    ),
    Chart(
        "gradient",
        "Relative gradient norm",
        "Norm of the loss gradient over norm of the weights, by module (Figure 3 of the paper). Diminishing in one "
        "module while the loss is still high is the mark of biased learning.",
        ("grad_norm_relative/",),
        lambda runs: figures.by_module(runs, "grad_norm_relative/", "‖G‖ / ‖θ‖"),
    ),
)
"""In the order of the page."""

THEORY = (
    Chart(
        "learning-step",
        "Learning step",
        "H (eq. 7): how large the logits are after a module's update alone, for the size of the input that it works "
        "on. With κ it bounds the other side's gradient: ‖G‖ of the LLM by (κ + 1) H of the encoder (Theorem 4.2).",
        ("theory/H/",),
        lambda runs: figures.by_module(runs, "theory/H/", "H"),
    ),
    Chart(
        "lambda",
        "Convergence factor of Theorem A.3",
        "λ, from one window average of κ to the next. The paper claims that it stays above the line.",
        ("theory/lambda",),
        figures.convergence_factor,
    ),
)
"""Those of the section on theory."""
