"""What `equipoise bench` prints. Every figure is a ratio, a correlation, or an error of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_steps(costs: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """A row a contestant."""
    table = _table("a step of", "costs", "quartiles", "without measuring", "measuring", "steps that measure")
    for name, cost in costs.items():
        quartiles = f"{cost['lower']:.2f} to {cost['upper']:.2f}"
        table.add_row(
            name, _shown(cost["ratio"]), quartiles, _shown(cost["plain"]), _shown(cost["measuring"]),
            f"{cost['share']:.0%}",
        )  # fmt: skip
    console.print(table)
    first = next(iter(costs))
    rounds = len(costs[first]["ratios"])
    console.print(
        f"medians over {rounds} rounds of the ratio to the round's step of {first}; steps that measure and steps that "
        "do not are weighted as they come; batches are collated before, and were seen before",
        highlight=False,
    )


def print_memory(peaks: Mapping[str, Mapping[str, float | None]], console: Console) -> None:
    """A row a contestant."""
    table = _table("peak memory of", "beyond the loaded model", "of the whole process", "on the device")
    for name, peak in peaks.items():
        table.add_row(name, _shown(peak["steps"]), _shown(peak["process"]), _shown(peak["device"]))
    console.print(table)
    console.print(
        "each in a process of its own; the device's is what torch allocated beyond the model", highlight=False
    )


def print_curves(curves: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """A row a contestant."""
    table = _table("trained by", "first loss", "last loss", "largest difference at any step")
    for name, curve in curves.items():
        losses = curve["losses"]
        table.add_row(name, _shown(losses[0], 4), _shown(losses[-1], 4), f"{curve['largest_difference']:.1e}")
    console.print(table)
    console.print("to the loss of the first at the same step; without LoRA's dropout", highlight=False)


def print_fidelity(
    pooled: Mapping[str, Mapping[str, Any]], seeds: Mapping[str, Mapping[str, Any]], console: Console
) -> None:
    """A row an estimator and seed, and one for all seeds."""
    table = _table(
        "estimator", "seed", "measurements", "r of log kappa~", "RMSE", "r, same span", "RMSE, same span",
        "RMSE of LR factors",
    )  # fmt: skip
    for name, figures in pooled.items():
        for seed, own in [*seeds[name].items(), ("all", figures)]:
            table.add_row(
                name, seed, str(own["measurements"]), _shown(own["r_log_kappa"]), _shown(own["rmse_log_kappa"]),
                _shown(own["r_log_kappa_same_span"]), _shown(own["rmse_log_kappa_same_span"]),
                _shown(own["rmse_lr_factor"]),
            )  # fmt: skip
    console.print(table)
    console.print(
        "against exact on the steps of its own run; kappa~: of the window's averages; same span: exact averaged over "
        "as many steps as the estimator's window reaches",
        highlight=False,
    )
    for name, figures in pooled.items():
        modules = [key.removeprefix("cosines/") for key in figures if key.startswith("cosines/")]
        if modules:
            table = _table(f"regulariser, {name}", "cosine", "norm, to exact", "cosine of the whole gradient")
            for module in modules:
                own = [figures[f"{kind}/{module}"] for kind in ("cosines", "norm_ratios", "step_cosines")]
                table.add_row(module, *map(_shown, own))
            console.print(table)
        console.print(
            f"loss at the end, on samples that no run has seen: {name} and exact differ by at most "
            f"{_shown(figures['largest_loss_difference'], 4)}; exact's standard deviation over seeds is "
            f"{_shown(figures['loss_spread'], 4)}",
            highlight=False,
        )


def print_growth(axes: Mapping[str, Sequence[Mapping[str, Any]]], console: Console) -> None:
    """A table an axis, a row a value."""
    for axis, rows in axes.items():
        names = list(rows[0]["costs"])
        table = _table(axis, f"{names[0]}, to the first row", *names[1:])
        for row in rows:
            costs = [_shown(row["costs"][name]["ratio"]) for name in names[1:]]
            table.add_row(str(row["value"]), _shown(row["reference"]), *costs)
        console.print(table)
    console.print("each to the step of ew, constant at the row's own size, in turn in one process", highlight=False)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
