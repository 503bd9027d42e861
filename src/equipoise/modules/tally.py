"""What a measurement adds up, over samples, micro-batches and processes, and the drifts that come of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from equipoise.modules.forward import InputNorms
from equipoise.modules.processes import Processes


@dataclass
class Drifts:
    """What one measurement found.

    Attributes:
        by_module: d_m in nats, for each module that learns.
        samples: over how many samples it is a mean.
        floor: drifts below it are rounding.
        amplification: the multiple of the step that was measured (drifts are given back divided by its square).
        theory: what `equipoise.modules.theory` needs, if it was asked for.
        by_group: for each group of samples that the batches tell apart, the drifts on its samples alone.
        gap: where drifts were estimated from gradients, the largest root mean square over samples by which a module's
            step moved logits; 0 where they were measured by forwards.
    """

    by_module: dict[str, float]
    samples: int
    floor: float
    amplification: float = 1.0
    theory: TheoryTerms | None = None
    by_group: dict[int, dict[str, float]] = field(default_factory=dict)
    gap: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether every drift is finite and above the floor."""
        return self.samples > 0 and all(math.isfinite(d) and d > self.floor for d in self.by_module.values())


@dataclass
class TheoryTerms:
    """Norms, losses and reversed drifts of one measurement, for eq. 7, 15 and 16.

    Attributes:
        logits: squared Frobenius norm of the logits with that module's update alone.
        inputs: squared norms of what went in; None if the model hides its embeddings.
        loss_before, loss_after: mean loss (eq. 2) on the measured samples before and after the whole step.
        reversed_by_module, reversed_joint: KL(new || old), the direction that eq. 15-16 print.
    """

    logits: dict[str, float] = field(default_factory=dict)
    inputs: InputNorms | None = None
    loss_before: float = 0.0
    loss_after: float = 0.0
    reversed_by_module: dict[str, float] = field(default_factory=dict)
    reversed_joint: float = 0.0


class Tally:
    """The sums of one measurement.

    Args:
        modules: those that learn, the same in every process.
        theory: whether the terms of eq. 7, 15 and 16 are among them, likewise.

    Attributes:
        samples: how many supervise anything.
        floor: of the drifts; of what was computed least precisely.
        sums: by module, of the samples' drifts.
        squares: by module, of the gaps between the samples' logits.
        theory: sums, where `Drifts.theory` has means; None where they are not wanted.
        blind: how many micro-batches hid their embeddings, which leaves the sum of the others' without meaning.
    """

    def __init__(self, modules: Iterable[str], theory: bool = False):
        self.modules = tuple(modules)
        self.samples = 0
        self.floor = 0.0
        self.sums = dict.fromkeys(self.modules, 0.0)
        self.squares = dict.fromkeys(self.modules, 0.0)
        self.theory = self._no_terms() if theory else None
        self.blind = 0
        self._groups: dict[int, dict[str, tuple[float, int]]] = {}

    def _no_terms(self) -> TheoryTerms:
        zeros = dict.fromkeys(self.modules, 0.0)
        return TheoryTerms(logits=zeros, inputs=InputNorms(), reversed_by_module=dict(zeros))

    def see(self, samples: int, floor: float) -> None:
        """So many more samples, whose drifts are rounding below `floor`."""
        self.samples += samples
        self.floor = max(self.floor, floor)

    def see_inputs(self, norms: InputNorms | None) -> None:
        """What went into one more micro-batch; None where it hides its embeddings."""
        assert self.theory is not None
        assert self.theory.inputs is not None
        if norms is None:
            self.blind += 1
        else:
            self.theory.inputs = _plus(self.theory.inputs, norms)

    def see_group(self, group: int, module: str, drift: float, samples: int = 1) -> None:
        """The drift on one more sample of a group, or the sum of so many."""
        sums = self._groups.setdefault(group, dict.fromkeys(self.modules, (0.0, 0)))
        total, count = sums[module]
        sums[module] = total + drift, count + samples

    def over(self, processes: Processes) -> Tally:
        """The sums of all processes, added in the processes' order; one message to each."""
        whole = Tally(self.modules, self.theory is not None)
        for numbers in processes.gather(list(self._numbers())):
            whole._add(numbers)
        return whole

    def _numbers(self) -> Iterator[float]:
        """All sums in a fixed order; last the groups, of which no other process may know."""
        yield from (self.samples, self.floor, self.blind, *self.sums.values(), *self.squares.values())
        if self.theory is not None:
            terms, inputs = self.theory, self.theory.inputs
            assert inputs is not None
            yield from (inputs.text, inputs.encoded, inputs.raw)
            yield from (terms.loss_before, terms.loss_after, terms.reversed_joint)
            yield from (*terms.logits.values(), *terms.reversed_by_module.values())
        for group, sums in self._groups.items():
            yield group
            for pair in sums.values():
                yield from pair

    def _add(self, numbers: Sequence[float]) -> None:
        """Add what another's `_numbers` gave."""
        given = iter(numbers)
        self.see(int(next(given)), next(given))
        self.blind += int(next(given))
        for sums in (self.sums, self.squares):
            _add_to(sums, given)
        if self.theory is not None:
            terms = self.theory
            assert terms.inputs is not None
            terms.inputs = _plus(terms.inputs, InputNorms(next(given), next(given), next(given)))
            terms.loss_before += next(given)
            terms.loss_after += next(given)
            terms.reversed_joint += next(given)
            for sums in (terms.logits, terms.reversed_by_module):
                _add_to(sums, given)
        for group in given:
            for module in self.modules:
                self.see_group(int(group), module, next(given), int(next(given)))

    def drifts(self, amplification: float = 1.0) -> Drifts:
        """The means, for a step that was measured at a multiple."""
        square, count = amplification**2, max(self.samples, 1)
        by_group = {
            group: {module: total / samples / square for module, (total, samples) in sums.items() if samples}
            for group, sums in self._groups.items()
        }
        return Drifts(
            {module: total / count / square for module, total in self.sums.items()},
            self.samples,
            self.floor / square,
            amplification,
            self._theory_means(count) if self.samples else None,
            by_group,
            gap=math.sqrt(max(self.squares.values(), default=0.0) / count),
        )

    def _theory_means(self, count: int) -> TheoryTerms | None:
        if self.theory is None:
            return None
        terms = self.theory
        return TheoryTerms(
            logits=terms.logits,
            inputs=terms.inputs if not self.blind else None,
            loss_before=terms.loss_before / count,
            loss_after=terms.loss_after / count,
            reversed_by_module={name: total / count for name, total in terms.reversed_by_module.items()},
            reversed_joint=terms.reversed_joint / count,
        )


def _add_to(sums: dict[str, float], given: Iterator[float]) -> None:
    for module in sums:
        sums[module] += next(given)


def _plus(one: InputNorms, other: InputNorms) -> InputNorms:
    return InputNorms(one.text + other.text, one.encoded + other.encoded, one.raw + other.raw)
