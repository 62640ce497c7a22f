"""What is known of a difference: two runs, and what later runs have shown of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .capture import Capture, Namer, Prober, Taker
from .compare import RESULT, Difference, first_difference
from .places import Place
from .runs import Program, Run
from .witness import Witness

_BARE = 3  # runs without a trace
_LOOKS = 3  # how often an earlier difference may show while the first one is looked at


@dataclass
class Evidence:
    """What is known of a difference.

    Attributes:
        numbers: the numbers of the two runs that part first, from 0.
        one, other: the runs.
        difference: where they part; None if only what they returned differs.
        witness: what a later run has drawn and asked for.
        captures: the operation as later runs had it.
        inside: the module around its forward operation, if it belongs to a backward.
        still_differs: whether a later run differs from the second one, too.
        is_hidden: whether the runs with a trace are equal, and those without one differ.
    """

    numbers: tuple[int, int]
    one: Run
    other: Run
    difference: Difference | None
    witness: Witness = field(default_factory=Witness)
    captures: list[Capture] = field(default_factory=list)
    inside: str = ""
    still_differs: bool = True
    is_hidden: bool = False

    @property
    def order(self) -> float:
        """When the runs part, in operations of the first one."""
        found = self.difference
        return float("inf") if found is None or found.first is None else found.first

    @property
    def is_of_operation(self) -> bool:
        """Whether an operation gave another result for equal inputs."""
        found = self.difference
        return found is not None and found.kind == RESULT and found.inputs_are_equal

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        return self.one.reached.changed(self.other.reached)

    @property
    def seeded(self) -> dict[str, Place | None]:
        """The sources that were seeded inside with a seed that is not the scope's."""
        names = {*self.one.reseeded, *self.other.reseeded}
        return {name: self.witness.seeded.get(name) for name in sorted(names)}

    @property
    def thread_counts(self) -> list[int]:
        """The numbers of threads that torch had at the operation; two if they differ."""
        found = self.difference
        if found is None or found.kind != RESULT or found.first is None or found.second is None:
            return []
        return sorted({self.one.trace.threads[found.first], self.other.trace.threads[found.second]})

    @property
    def forward(self) -> int | None:
        """The number of the forward operation, if the operation belongs to a backward."""
        found, trace = self.difference, self.one.trace
        if found is None or found.first is None:
            return None
        forward = trace.forward[found.first]
        if (
            forward < 0
            and found.last is not None
            and trace.places[found.last] == trace.places[found.first]
        ):
            forward = trace.forward[found.last]  # a gradient that is kept: that of the one before
        return forward if forward >= 0 else None


def first_evidence(runs: list[Run]) -> Evidence | None:
    """Return the two runs that part first; None if all are equal."""
    pairs = []
    for number, other in enumerate(runs[1:], 1):
        difference = first_difference(runs[0].trace, other.trace)
        differs = difference is not None and not difference.is_harmless
        if differs or runs[0].outcome.first_difference(other.outcome):
            pairs.append(Evidence((0, number), runs[0], other, difference))
    return min(pairs, key=lambda pair: pair.order, default=None)


def look(program: Program, runs: list[Run], found: Evidence) -> Evidence:
    """Run again to see the operation at which runs part, and what happens before it.

    The runs are added to `runs`.
    """
    for _ in range(_LOOKS):
        seen = _look_once(program, runs, found)
        now = first_evidence([one for one in runs if not one.error])
        if now is None or not now.is_of_operation or now.order >= found.order:
            break
        found = now
    return seen


def _look_once(program: Program, runs: list[Run], found: Evidence) -> Evidence:
    witness, namer = Witness(), Namer()
    counts = found.thread_counts if len(found.thread_counts) > 1 else []
    takers = [Taker(True, tuple(counts), witness.stop_asking), Taker()]
    index = found.difference.first if found.difference else None
    for number, taker in enumerate(takers):
        focus: dict[int, Taker | Namer] = {} if index is None else {index: taker}
        if found.forward is not None:
            focus[found.forward] = namer
        seen = None if number else witness
        runs.append(program.run("a look at the difference", focus, witness=seen))
    captures = [taker.found for taker in takers if taker.found is not None]
    still_differs = first_evidence([found.other, runs[-1]]) is not None
    return replace(
        found,
        witness=witness,
        captures=captures,
        inside=namer.inside,
        still_differs=still_differs,
    )


def look_without_a_trace(program: Program, runs: list[Run]) -> Evidence | None:
    """Return the evidence of a difference that a trace hides; None if there is none.

    The digests of a trace slow a program down: threads that race for an operation otherwise may
    then run one after another. So what the function returns and leaves is compared in runs without
    a trace; not with those that have one, since some of torch's formulas take another path under a
    dispatch mode. If it differs, a run that replays each operation looks for the one.
    """
    outcomes = [program.run_bare().outcome for _ in range(_BARE)]
    differing = [one for one in outcomes[1:] if outcomes[0].first_difference(one) is not None]
    if not differing:
        return None
    prober = Prober()
    probed = program.run("replays of every operation", always=prober)
    if prober.found is None:
        one, other = (replace(runs[0], outcome=each) for each in (outcomes[0], differing[0]))
        return Evidence((0, 1), one, other, None, is_hidden=True)
    last = prober.index - 1 if prober.index else None
    found = Difference(RESULT, prober.index, prober.index, last)
    return Evidence((0, 1), runs[0], probed, found, captures=[prober.found], is_hidden=True)
