"""What the runs of scripts/long_run.py came to: the logs, memory, step times, kappa; as Markdown and as a figure.

Nothing here trains; it reads run directories, and the memory that was noted beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

from equipoise.report.canvas import AXIS, dress, fit_logarithmic
from equipoise.report.palette import colour
from equipoise.training.run_directory import RunDirectory

#: The runs, in the order of tables and colours.
NAMES = (
    "commit", "commit-clr", "servo", "constant", "paper", "encoder-lr-up", "llm-lr-up", "feature-cd", "language-cd",
    "sampled",
)  # fmt: skip
WINDOW = 1_000  # steps over which kappa is described
BLOCKS = 15  # of equal length, over which memory is averaged before its slope is taken
ENCODER = "projector"
BOUND = 0.02  # the smallest factor that the defaults allow
AT_BOUND, MOVE, SURE = 0.1, math.log(1.5), 0.01
MIB = 2**20

# ---------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Memory:
    """What a process held: by step, resident bytes and open files; `parts` tells processes apart."""

    steps: np.ndarray
    rss: np.ndarray
    files: np.ndarray
    parts: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        steps: that were to be made.
        done: whether it finished.
        columns: by key, a value a step; nan where the key is missing in a step's line or null.
        flaws: what is wrong with the log, in words.
        seconds: of each step.
        bytes: of files, by name.
    """

    name: str
    steps: int
    done: bool
    columns: dict[str, np.ndarray]
    flaws: tuple[str, ...]
    seconds: np.ndarray
    memory: Memory
    bytes: dict[str, int]

    def column(self, key: str) -> np.ndarray:
        return self.columns.get(key, np.full(self.steps, np.nan))

    @property
    def log_kappa(self) -> np.ndarray:
        """Natural logarithm of each step's own kappa; nan where none was measured."""
        return np.log(self.column("kappa"))

    @property
    def smallest_factor(self) -> np.ndarray:
        """The smallest of a step's learning-rate factors."""
        found = [values for key, values in self.columns.items() if key.startswith("lr_factor/")]
        return np.min(found, axis=0) if found else np.full(self.steps, np.nan)


def load(out: Path) -> list[Run]:
    """The runs of a folder that have made a step."""
    known = [name for name in NAMES if RunDirectory(out / "runs" / name).last_step() is not None]
    return [load_one(RunDirectory(out / "runs" / name), out / f"{name}.memory.jsonl") for name in known]


def load_one(directory: RunDirectory, memory: Path) -> Run:
    """Read one run."""
    steps = directory.recipe().train.max_steps
    assert steps is not None
    flaws, columns = read_log(directory.metrics_file, steps)
    timings = [line["step_seconds"] for line in directory.timings()]
    noted = memory.read_text().splitlines() if memory.is_file() else []
    lines = [line for line in map(json.loads, noted) if line["rss"] > 0]  # none of a process that has just ended
    held = Memory(*(np.array([line[key] for line in lines], dtype=float) for key in ("step", "rss", "files", "part")))
    sizes = {file.name: file.stat().st_size for file in (directory.metrics_file, directory.timings_file)}
    checkpoint = directory.newest_checkpoint()
    if checkpoint is not None:
        sizes |= {file.name: file.stat().st_size for file in checkpoint.glob("*state*")}
    return Run(
        directory.path.name, steps, directory.done, columns, tuple(flaws), np.array(timings), held, sizes
    )  # fmt: skip


def read_log(file: Path, steps: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """What is wrong with a log (lines that are no step's, steps missing or twice, values null), and its columns."""
    columns: dict[str, np.ndarray] = {}
    counts = np.zeros(steps + 1, dtype=int)
    broken, nulls = 0, dict[str, int]()
    text = file.read_text(encoding="utf-8")
    for entry in text.splitlines():
        try:
            line = json.loads(entry)
            step = int(line["step"])
        except (ValueError, KeyError, TypeError):
            broken += 1
            continue
        if not 1 <= step <= steps:
            broken += 1
            continue
        counts[step] += 1
        for key, value in line.items():
            if key not in columns:
                columns[key] = np.full(steps, np.nan)
            if value is None:
                nulls[key] = nulls.get(key, 0) + 1
            else:
                columns[key][step - 1] = value
    last = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
    found = {
        "lines that are no step's": broken,
        "no end of the last line": int(not text.endswith("\n")),
        "steps missing": int((counts[1 : last + 1] == 0).sum()),
        "steps twice": int((counts > 1).sum()),
        **{f"{key} no number": count for key, count in nulls.items()},
    }
    return [f"{words}: {count}" for words, count in found.items() if count], columns


# ---------------------------------------------------------------------- memory and time


@dataclass(frozen=True)
class Slope:
    """Bytes a step, with the ends of the 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.0f} ({self.low:.0f} to {self.high:.0f})"


def memory_slope(memory: Memory, steps: int) -> Slope | None:
    """Of resident memory after the first quarter of a run, within each process and after its own first tenth of a run.

    None where too little was noted.

    Neighbouring readings are nearly equal, so that an interval from all of them would be far too narrow: the line goes
    through the means of blocks.
    """
    edges = np.linspace(steps / 4, steps, BLOCKS + 1)
    x, y, groups = [], [], 0
    for part in np.unique(memory.parts):
        own = memory.parts == part
        own &= memory.steps > memory.steps[own].min() + steps / 10
        blocks = []
        for begin, end in pairwise(edges):
            inside = own & (memory.steps > begin) & (memory.steps <= end)
            if inside.any():
                blocks.append((memory.steps[inside].mean(), memory.rss[inside].mean()))
        if len(blocks) > 1:
            steps_of, bytes_of = np.array(blocks).T
            x += list(steps_of - steps_of.mean())
            y += list(bytes_of - bytes_of.mean())
            groups += 1
    freedom = len(x) - groups - 1
    if freedom < 1:
        return None
    x_array, y_array = np.array(x), np.array(y)
    slope = (x_array @ y_array) / (x_array @ x_array)
    error = math.sqrt(((y_array - slope * x_array) ** 2).sum() / freedom / (x_array @ x_array))
    reach = float(stats.t.ppf(0.975, freedom)) * error
    return Slope(float(slope), float(slope - reach), float(slope + reach))


def step_times(run: Run) -> tuple[float, float]:
    """Milliseconds of a step, the fastest tenth of the first quarter (without its beginning) and of the last.

    The fastest tenth is what other jobs of the machine disturb least.
    """
    quarter = max(1, len(run.seconds) // 4)
    early, late = run.seconds[quarter // 10 : quarter], run.seconds[-quarter:]
    return 1000 * float(np.quantile(early, 0.1)), 1000 * float(np.quantile(late, 0.1))


# ---------------------------------------------------------------------- kappa


@dataclass(frozen=True)
class Window:
    """So many steps of a run.

    Attributes:
        end: its last step.
        low, median, high: 10 %, 50 %, 90 % quantiles of log kappa; nan where none was measured.
        mean, spread: of log kappa.
        memory: autocorrelation of log kappa from one measurement to the next.
        equal: median of log (kappa / (LLM's factor / encoder's factor)^2): log r, r the kappa that equal factors would
            give, where drift is quadratic in the learning rate.
        at_bound: share of steps at which a factor is the smallest allowed.
        loss: mean.
    """

    end: int
    low: float
    median: float
    high: float
    mean: float
    spread: float
    memory: float
    equal: float
    at_bound: float
    loss: float


def windows(run: Run, size: int = WINDOW) -> list[Window]:
    """The run's whole windows, one after the other."""
    kappa, factor, loss = run.log_kappa, run.smallest_factor, run.column("loss")
    with np.errstate(divide="ignore"):  # without a bound, a factor may round to 0
        equal = kappa - 2 * np.log(run.column("lr_factor/llm") / run.column(f"lr_factor/{ENCODER}"))
    made = int(np.flatnonzero(~np.isnan(loss))[-1]) + 1 if (~np.isnan(loss)).any() else 0
    found = []
    for end in range(size, made + 1, size):
        values = kappa[end - size : end]
        values = values[~np.isnan(values)]
        low, median, high = np.quantile(values, (0.1, 0.5, 0.9)) if len(values) else (np.nan,) * 3
        at_bound = (factor[end - size : end] <= BOUND * (1 + 1e-6)) if acts(run) else np.zeros(size)
        found.append(
            Window(
                end, float(low), float(median), float(high),
                float(values.mean()) if len(values) else np.nan, float(values.std()) if len(values) else np.nan,
                _autocorrelation(values), float(np.nanmedian(equal[end - size : end])) if len(values) else np.nan,
                float(np.mean(at_bound)), float(np.nanmean(loss[end - size : end])),
            )
        )  # fmt: skip
    return found


def acts(run: Run) -> bool:
    """Whether the run's factors follow from what is measured."""
    factor = run.smallest_factor
    return bool(np.isfinite(run.column("kappa")).any() and np.nanmax(factor) > np.nanmin(factor))


def _autocorrelation(values: np.ndarray) -> float:
    if len(values) < 3 or values.std() == 0:
        return math.nan
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


@dataclass(frozen=True)
class Trend:
    """Of the windows' medians of log kappa over the second half.

    Attributes:
        change: over that half, from Theil and Sen's slope.
        p: of Kendall's test that there is none, exact for so few windows.
    """

    change: float
    p: float


def trend(found: Sequence[Window]) -> Trend | None:
    """None where fewer than five windows of the second half have a kappa."""
    late = [window for window in found[len(found) // 2 :] if not math.isnan(window.median)]
    if len(late) < 5:
        return None
    medians = [window.median for window in late]
    slope = stats.theilslopes(medians, range(len(late))).slope
    return Trend(float(slope) * (len(late) - 1), float(stats.kendalltau(range(len(late)), medians).pvalue))


def longest(flags: Iterable[bool]) -> int:
    """The longest stretch of steps for which it holds."""
    return max((sum(1 for _ in stretch) for holds, stretch in groupby(flags) if holds), default=0)


def verdict(run: Run, found: Sequence[Window]) -> str:
    """What a run's second half does: the first that holds.

    `not finite`: a loss, kappa or factor is no number. `at the bound`: a factor is the smallest allowed in a tenth of
    the steps. `moves`: the windows' medians have a trend (p < 0.01) over which kappa changes by more than a factor of
    1.5. `steady`: none of these. `too short` for a trend, or `no kappa` at all.
    """
    if any("no number" in flaw for flaw in run.flaws):
        return "not finite"
    late = found[len(found) // 2 :]
    if late and sum(window.at_bound for window in late) / len(late) >= AT_BOUND:
        return "at the bound"
    moved = trend(found)
    if moved is None:
        return "too short" if np.isfinite(run.column("kappa")).any() else "no kappa"
    return "moves" if moved.p < SURE and abs(moved.change) > MOVE else "steady"


# ---------------------------------------------------------------------- Markdown


def summary(runs: Sequence[Run]) -> str:
    """Two tables: of the machine, and of kappa."""
    rows = [
        "| run | steps | flaws in the log | resident MiB | slope, bytes a step | open files | ms a step, early, late "
        "| metrics.jsonl, bytes a step | trainer_state.json, kB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(_machine_row, runs),
        "",
        "| run | kappa, 2nd quarter | last quarter | r in this run, likewise | std of log kappa by window "
        "| autocorrelation | at the bound: all steps, worst window, longest stretch | change over the 2nd half | p "
        "| loss, likewise | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_kappa_row(run, windows(run)) for run in runs),
    ]
    return "\n".join(rows)


def _machine_row(run: Run) -> str:
    early, late = step_times(run)
    made = len(run.seconds)
    quarter = run.memory.steps > run.steps / 4
    held, files = run.memory.rss[quarter] / MIB, run.memory.files[quarter]
    cells = [
        f"{made:,}" + ("" if run.done else f" of {run.steps:,}"),
        "; ".join(run.flaws) or "none",
        f"{held.min():.0f} to {held.max():.0f}" if len(held) else "",
        str(memory_slope(run.memory, run.steps) or ""),
        f"{np.median(files):.0f}, at most {files.max():.0f}" if len(files) else "",
        f"{early:.1f}, {late:.1f}",
        f"{run.bytes['metrics.jsonl'] / max(made, 1):.0f}",
        f"{run.bytes.get('trainer_state.json', 0) / 1000:.0f}",
    ]
    return f"| `{run.name}` | {' | '.join(cells)} |"


def _kappa_row(run: Run, found: Sequence[Window]) -> str:
    second, last = found[len(found) // 4 : len(found) // 2], found[-max(1, len(found) // 4) :]
    moved, spreads = trend(found), [window.spread for window in found if not math.isnan(window.spread)]
    bound = run.smallest_factor <= BOUND * (1 + 1e-6)
    cells = [
        _kappa(second),
        _kappa(last),
        f"{_equal(second)}, {_equal(last)}" if spreads else "",
        f"{min(spreads):.2f} to {max(spreads):.2f}" if spreads else "",
        f"{np.mean([window.memory for window in found]):.2f}" if spreads else "",
        f"{bound.mean():.2%}, {max(window.at_bound for window in found):.1%}, {longest(bound)}"
        if found and acts(run)
        else "",
        f"{math.exp(moved.change):.2f}" if moved else "",
        f"{moved.p:.2g}" if moved else "",
        f"{_loss(second):.3f}, {_loss(last):.3f}" if found else "",
        verdict(run, found),
    ]
    return f"| `{run.name}` | {' | '.join(cells)} |"


def _kappa(part: Sequence[Window]) -> str:
    """Median of the windows' medians; in brackets the same of their 10 % and 90 % quantiles."""
    if not part or math.isnan(part[0].median):
        return ""
    low, median, high = (math.exp(np.median([getattr(w, key) for w in part])) for key in ("low", "median", "high"))
    return f"{median:.2g} ({low:.2g} to {high:.2g})"


def _equal(part: Sequence[Window]) -> str:
    return f"{math.exp(np.median([window.equal for window in part])):.2g}"


def _loss(part: Sequence[Window]) -> float:
    return float(np.mean([window.loss for window in part])) if part else math.nan


# ---------------------------------------------------------------------- figure


def figure(runs: Sequence[Run]) -> go.Figure:
    """kappa of each run that measures it, a panel a run; then the losses, resident memory and step times of all."""
    measured = [run for run in runs if np.isfinite(run.column("kappa")).any()]
    titles = [f"kappa, {run.name}" for run in measured] + ["loss", "resident memory", "a step, fastest tenth"]
    columns = 3 if len(titles) > 4 else 2
    rows = -(-len(titles) // columns)
    drawn = make_subplots(
        rows=rows, cols=columns, subplot_titles=titles, horizontal_spacing=0.06, vertical_spacing=0.3 / rows
    )
    dress(drawn, 270 * rows + 60)
    drawn.update_annotations(font_size=14)
    drawn.update_layout(
        margin={"l": 60, "r": 20, "t": 90, "b": 50}, legend={"y": 1 + 0.14 / rows, "x": 0}, showlegend=True
    )  # fmt: skip
    drawn.update_xaxes(**AXIS, showgrid=False)
    drawn.update_yaxes(**AXIS, showgrid=True)
    paints = {run.name: (colour(number), "solid" if number < 7 else "dot") for number, run in enumerate(runs)}
    for place, run in enumerate(measured):
        _kappa_panel(drawn, windows(run), paints[run.name][0], place // columns + 1, place % columns + 1)
    ends = [math.exp(value) for run in measured for w in windows(run) for value in (w.low, w.high) if value == value]
    fit_logarithmic(drawn, "~g", include=[*ends, 1.0])  # of all; those of the last panels are set below
    for offset, (unit, lines) in enumerate(_common(runs)):
        place = len(measured) + offset
        where = {"row": place // columns + 1, "col": place % columns + 1}
        for name, (steps, values) in lines.items():
            paint, dash = paints[name]
            line = {"color": paint, "width": 1.8, "dash": dash}
            trace = go.Scatter(
                x=steps, y=values, mode="lines", line=line, name=name, legendgroup=name, showlegend=offset == 0
            )
            drawn.add_trace(trace, **where)
        values = [value for _, column in lines.values() for value in column] or [1.0]
        lowest = 0.97 * min(values) if offset == 0 else 0.0  # of the loss, the end alone is of interest
        drawn.update_yaxes(
            type="linear", tickformat="", dtick=None, range=[lowest, 1.05 * max(values)], title_text=unit, **where
        )
    drawn.update_xaxes(title_text="optimizer step", row=rows)
    drawn.update_xaxes(range=[0, 1.02 * max(len(run.seconds) for run in runs)])
    return drawn


def _kappa_panel(drawn: go.Figure, found: Sequence[Window], paint: str, row: int, col: int) -> None:
    """The windows' medians, and as a band their 10 % and 90 % quantiles."""
    steps = [window.end for window in found]
    low, median, high = ([math.exp(getattr(w, key)) for w in found] for key in ("low", "median", "high"))
    band = go.Scatter(
        x=steps + steps[::-1], y=high + low[::-1], fill="toself", fillcolor=paint, opacity=0.18, mode="none",
        showlegend=False,
    )  # fmt: skip
    drawn.add_trace(band, row=row, col=col)
    line = go.Scatter(x=steps, y=median, mode="lines", line={"color": paint, "width": 2.4}, showlegend=False)
    drawn.add_trace(line, row=row, col=col)
    level = {"color": "#1f2428", "width": 1.1, "dash": "dash"}
    one = go.Scatter(x=[0, steps[-1] if steps else 1], y=[1, 1], mode="lines", line=level, showlegend=False)
    drawn.add_trace(one, row=row, col=col)


Lines = dict[str, tuple[Sequence[float], Sequence[float]]]


def _common(runs: Sequence[Run]) -> list[tuple[str, Lines]]:
    """The panels that hold all runs: their unit, and by run steps and values."""
    losses: Lines = {}
    memory: Lines = {}
    times: Lines = {}
    for run in runs:
        found = windows(run)
        losses[run.name] = [w.end for w in found], [w.loss for w in found]
        thinned = slice(None, None, max(1, len(run.memory.steps) // 300))
        memory[run.name] = list(run.memory.steps[thinned]), list(run.memory.rss[thinned] / MIB)
        ends = [w.end for w in found]
        times[run.name] = ends, [1000 * float(np.quantile(run.seconds[end - WINDOW : end], 0.1)) for end in ends]
    return [("nats a token", losses), ("MiB", memory), ("ms", times)]
