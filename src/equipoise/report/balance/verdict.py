"""What a balance found, in words: each finding with the numbers it rests on. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from equipoise.report.balance.compare import relative, wins
from equipoise.report.balance.view import BalanceView
from equipoise.report.markup import decimal
from equipoise.report.numbers import number
from equipoise.tasks.contribution import MINI, full_run, one_takes_all
from equipoise.tasks.plan import STL

GOOD, POOR, NEUTRAL = "good", "poor", "unknown"


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        topic: what it is about.
        name: the finding itself, a few words.
        evidence: its numbers.
        advice: sentences.
        tone: `good`, `poor` or `unknown`.
    """

    topic: str
    name: str
    evidence: str
    advice: str
    tone: str = NEUTRAL


def findings(view: BalanceView) -> list[Finding]:
    """All that can be said with what is there; empty before the weights exist."""
    found = [_giving(view), _receiving(view), _difficulty(view), _weights(view), _comparison(view)]
    found += [_hardly_measured(view), _undefined(view)]
    return [finding for finding in found if finding is not None]


def caveat(view: BalanceView) -> str:
    """How far the numbers can be trusted, as far as that is known."""
    words = []
    if view.estimated:
        words.append(
            "Contributions and difficulties are estimated by one short run (--budget): how far they are from those of "
            "the full probes is in docs/cotbal.md."
        )
    if "seed" in view.settings:
        words.append(f"Every run was trained once, with seed {view.settings['seed']}.")
    if view.answers:
        few, many = min(view.answers.values()), max(view.answers.values())
        counts = f"{few}" if few == many else f"{few} to {many}"
        words.append(
            f"The validation scores rest on {counts} answers a task. A share of {few} answers has a standard error of "
            f"up to {0.5 / sqrt(few):.2f}; contributions and difficulties are quotients of differences of such scores."
        )
    return " ".join(words)


def _giving(view: BalanceView) -> Finding | None:
    if len(view.one2all) < 2:
        return None
    ranked = _ranked(view.one2all)
    (most, highest), (least, lowest) = ranked[0], ranked[-1]
    pairs = {
        (giver, taker): value
        for giver, row in view.contributions.items()
        for taker, value in row.items()
        if giver != taker and taker not in view.undefined_contributions
    }
    sentence = (
        f"Training on {view.called(most)} gives the other tasks, on average, {_share(highest)} of what their own data "
        "gives."
    )
    if pairs:
        (giver, taker), value = max(pairs.items(), key=lambda pair: pair[1])
        sentence += f" The largest single contribution is {view.called(giver)} to {view.called(taker)}, {_plain(value)}"
        (giver, taker), value = min(pairs.items(), key=lambda pair: pair[1])
        sentence += f"; the smallest {view.called(giver)} to {view.called(taker)}, {_plain(value)}."
    name = f"{view.called(most)} helps the others most" if highest > 0 else "No task helps the others"
    if highest == lowest:
        name = "All tasks help alike"
    evidence = f"one2all {_plain(highest)}; least: {view.called(least)}, {_plain(lowest)}"
    return Finding("Who gives", name, evidence, sentence)


def _receiving(view: BalanceView) -> Finding | None:
    known = {task: value for task, value in view.all2one.items() if task not in view.undefined_contributions}
    if len(known) < 2:
        return None
    ranked = _ranked(known)
    (most, highest), (least, lowest) = ranked[0], ranked[-1]
    sentence = (
        f"The others' data gives {view.called(least)}, on average, {_share(lowest)} of what its own gives, and "
        f"{view.called(most)} {_share(highest)}."
    )
    evidence = f"all2one {_plain(lowest)}; most: {view.called(most)}, {_plain(highest)}"
    name = "All tasks are helped alike" if highest == lowest else f"{view.called(least)} is helped least"
    return Finding("Who receives", name, evidence, sentence)


def _difficulty(view: BalanceView) -> Finding | None:
    known = {task: value for task, value in view.difficulty.items() if task not in view.undefined_difficulties}
    if len(known) < 2:
        return None
    ranked = _ranked(known)
    (hardest, highest), (easiest, lowest) = ranked[0], ranked[-1]
    fraction = number(view.settings.get("mini_fraction"))
    data = "its subset" if fraction is None else f"{100 * fraction:.3g} % of its data"
    sentence = f"With {data}, {view.called(hardest)} is {_share(highest)} below its score with all of it. "
    if lowest < 0:
        sentence += f"{view.called(easiest)} is better with its subset than with all of its data."
    else:
        sentence += f"{view.called(easiest)} is {_share(lowest)} below."
    evidence = f"D {_plain(highest)}; easiest: {view.called(easiest)}, {_plain(lowest)}"
    name = "All tasks are as hard" if highest == lowest else f"{view.called(hardest)} is hardest"
    return Finding("Who needs its data", name, evidence, sentence)


def _weights(view: BalanceView) -> Finding | None:
    final = view.weights.get("cotbal", {})
    if len(final) < 2:
        return None
    more = [(task, weight) for task, weight in _ranked(final) if weight > 1]
    less = [(task, weight) for task, weight in reversed(_ranked(final)) if weight < 1]
    if not more:
        return Finding("Final weights", "All weights are equal", "", "The final run has the ordinary loss.")
    names = " and ".join(view.called(task) for task, _ in more[:2])
    top = more[0][0]
    by = {kind: view.weights.get(kind, {}).get(top) for kind in ("contribution", "difficulty")}
    parts = [f"{_plain(value)} by {kind}" for kind, value in by.items() if value is not None]
    sentence = f"Less to {_listed(view, less)}." if less else ""
    if len(parts) == 2:
        sentence = f"{view.called(top)} would have {parts[0]} alone and {parts[1]} alone. {sentence}"
    return Finding("Final weights", f"More to {names}", f"More to {_listed(view, more)}", sentence)


def _comparison(view: BalanceView) -> Finding | None:
    if view.final not in view.results:
        return None
    topic, final = "Compared", view.final
    values = relative(view).values
    rivals = [name for name in view.runs if name != final and name in values]
    counted = {name: wins(values.get(final, {}), values[name]) for name in (*rivals, *_stl(view))}
    sentence = f"Tasks on which {final} is better (worse): " if counted else ""
    sentence += ", ".join(f"than {name} {better} ({worse})" for name, (better, worse, _) in counted.items())
    sentence += "." if counted else ""
    own = view.deltas.get(final)
    if own is None or own.delta_i is None or own.delta_e is None:
        if not rivals:
            reason = "Nothing was trained to compare with (--compare)."
            return Finding(topic, f"{final} stands alone", "", reason)
        ahead = [name for name, (better, worse, _) in counted.items() if worse > better]
        behind = [name for name, (better, worse, _) in counted.items() if better > worse]
        name = f"{final} is not ahead of {_joined([name for name in counted if name not in behind])}"
        if ahead:
            name = f"Ahead of {final} on more tasks: {_joined(ahead)}"
        elif len(behind) == len(counted):
            name = f"{final} is ahead of {_joined(behind)} on more tasks"
        missing = "Delta I and Delta E need one model per task (--compare stl)."
        return Finding(topic, name, missing, sentence, GOOD if len(behind) == len(counted) else POOR)
    others = {name: d for name in rivals if (d := view.deltas.get(name)) and d.delta_i is not None}
    evidence = "; ".join(
        f"{name} ΔI {d.delta_i:.2f} %, ΔE {d.delta_e:.2f} %"
        for name, d in {final: own, **others}.items()
        if d.delta_i is not None and d.delta_e is not None
    )
    above = [name for name, d in others.items() if d.delta_i is not None and d.delta_i > own.delta_i]
    if above:
        return Finding(topic, f"{_joined(above)} above {final}", evidence, sentence, POOR)
    level = [name for name, d in others.items() if d.delta_i == own.delta_i]
    if level:
        return Finding(topic, f"{final} is level with {_joined(level)}", evidence, sentence)
    if others:
        return Finding(topic, f"{final} has the highest ΔI of {len(others) + 1}", evidence, sentence, GOOD)
    name = f"{final} is {'above' if own.delta_i > 0 else 'not above'} one model per task"
    return Finding(topic, name, evidence, sentence, GOOD if own.delta_i > 0 else POOR)


def _hardly_measured(view: BalanceView) -> Finding | None:
    said = one_takes_all(view.weights, view.contributions)
    if said is None:
        return None
    name = "Contributions leave most tasks nothing"
    return Finding("Hardly measured", name, "", f"{said[0].upper()}{said[1:]}.", POOR)


def _undefined(view: BalanceView) -> Finding | None:
    tasks = [task for task in view.tasks if task in view.degenerate]
    if not (tasks or view.undefined_improvements):
        return None
    sentences = []
    so = "count as 0." if view.contributions else "are undefined, at which balance stops (or --on-degenerate zero)."
    for task in view.undefined_contributions:
        small, whole = (view.scores.get(run, {}).get(task) for run in (MINI, full_run(task)))
        scores = f" ({decimal(small)} with its subset, {decimal(whole)} with all)" if None not in (small, whole) else ""
        sentences.append(f"{view.called(task)} learnt nothing from its own data{scores}: contributions to it {so}")
    sentences += [
        f"{view.called(task)} scores 0 with all of its data: its difficulty counts as 0."
        for task in view.undefined_difficulties
    ]
    sentences += [
        f"stl scores 0 on {name}: the improvement over it counts as 0." for name in view.undefined_improvements
    ]
    name = f"Undefined for {_joined([view.called(task) for task in tasks])}" if tasks else "Undefined improvements"
    return Finding("Not measured", name, "", " ".join(sentences), POOR)


def _stl(view: BalanceView) -> list[str]:
    return [STL] if STL in view.results and view.final != STL else []


def _ranked(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Highest first; equal ones in the tasks' order."""
    return sorted(values.items(), key=lambda pair: -pair[1])


def _listed(view: BalanceView, pairs: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{view.called(task)} {weight:.2f}" for task, weight in pairs)


def _joined(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def _share(value: float) -> str:
    percent = f"{100 * value:.0f}"
    return f"{'0' if percent == '-0' else percent} %"


def _plain(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # never -0.00
