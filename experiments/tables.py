"""Tables over seeds: means with intervals, paired differences with p by Holm over all cells of a table, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from equipoise.comparing.statistics import Difference, difference, estimate, holm
from equipoise.comparing.verdict import SIGNIFICANT, probability, shown, signed

#: By seed.
Values = dict[int, float]


@dataclass(frozen=True)
class Table:
    """One quantity of some methods on some cells, each method against the first.

    Attributes:
        title: what is shown, which way is better.
        values: by cell, by method, by seed.
        ratio: whether logarithms are averaged and tested.
    """

    title: str
    values: Mapping[str, Mapping[str, Values]]
    ratio: bool = False

    @cached_property
    def methods(self) -> list[str]:
        """In order; the first is what the others are compared with."""
        return list(dict.fromkeys(method for by_method in self.values.values() for method in by_method))

    @cached_property
    def differences(self) -> dict[tuple[str, str], tuple[Difference, float | None]]:
        """By (method, cell): the paired difference to the first method, and its p by Holm over the whole table."""
        found = {}
        for cell, by_method in self.values.items():
            against = by_method.get(self.methods[0], {})
            for method in self.methods[1:]:
                own = by_method.get(method, {})
                both = [seed for seed in own if seed in against]
                if both:
                    pair = [own[seed] for seed in both], [against[seed] for seed in both]
                    found[method, cell] = difference(*pair, self.ratio)
        corrected = holm([one.p for one in found.values()])
        return {key: (one, p) for (key, one), p in zip(found.items(), corrected, strict=True)}

    def markdown(self) -> str:
        """Means with intervals, then differences with intervals and p."""
        lines = [f"**{self.title}**", "", row(["method", *self.values]), row(["---"] * (len(self.values) + 1))]
        for method in self.methods:
            lines.append(row([f"`{method}`", *(self._mean(method, cell) for cell in self.values)]))
        lines.append(row(["seeds", *(_counts(by_method) for by_method in self.values.values())]))
        if self.differences:
            first = f"against `{self.methods[0]}`"
            lines += ["", row([first, *self.values]), row(["---"] * (len(self.values) + 1))]
            for method in self.methods[1:]:
                lines.append(row([f"`{method}`", *(self._difference(method, cell) for cell in self.values)]))
        return "\n".join(lines)

    def _mean(self, method: str, cell: str) -> str:
        values = list(self.values[cell].get(method, {}).values())
        if not values:
            return ""
        found = estimate(values, self.ratio)
        interval = "" if found.low is None or found.high is None else f" [{shown(found.low)}, {shown(found.high)}]"
        return f"{shown(found.mean)}{interval}"

    def _difference(self, method: str, cell: str) -> str:
        if (method, cell) not in self.differences:
            return ""
        found, p = self.differences[method, cell]
        show = (lambda value: f"×{shown(value)}") if self.ratio else signed
        interval = "" if found.low is None or found.high is None else f" [{show(found.low)}, {show(found.high)}]"
        text = f"{show(found.mean)}{interval}{f', p {probability(p)}' if p is not None else ''}"
        return f"**{text}**" if p is not None and p < SIGNIFICANT else text


def _counts(by_method: Mapping[str, Values]) -> str:
    """How many seeds the methods have: one number where they have alike."""
    counts = sorted({len(values) for values in by_method.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def row(texts: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(texts)} |"
