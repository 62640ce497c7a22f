"""What makes the runs repeat: tried, and measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .causes import OPERATION, SEEDED, THREADS, UNINITIALISED, Cause
from .compare import first_difference
from .evidence import Evidence
from .outcome import Outcome
from .runs import Program, Run

Holders = list[tuple[str, Any]]

_RUNS = 5
_SLOW_S = 5.0  # a run that takes longer is tried twice only
_TIMED = 3  # runs of each arm


class Remedy(NamedTuple):
    """What was tried.

    Attributes:
        name: such as `seeded(..., deterministic=True)`.
        results: the number of different results; None if it raised.
        runs: the number of runs.
        ratio: the time of a run, to that of a run without it; None if it was not measured.
        error: what it raised.
    """

    name: str
    results: int | None
    runs: int
    ratio: float | None = None
    error: str = ""

    @property
    def helps(self) -> bool:
        return self.results == 1

    def __str__(self) -> str:
        if self.results is None:
            return f"{self.name}: raises {self.error}"
        results = f"{self.results} result{'s' * (self.results > 1)} in {self.runs} runs"
        time = "" if self.ratio is None else f", {self.ratio:.1f}x time"
        return f"{self.name}; measured here: {results}{time}"


def remedies(program: Program, cause: Cause, others: Holders, evidence: Evidence) -> list[Remedy]:
    """Try what may help against the cause, and stop at the first that does.

    Args:
        program: what differs from run to run.
        cause: why.
        others: what else a run has left changed and could be restored: (path, thing).
        evidence: what is known of the difference.
    """
    slowest_s = max(evidence.one.seconds, evidence.other.seconds)
    count = _RUNS if slowest_s < _SLOW_S else 2
    tried = []
    for name, options, threads, kept in _candidates(program, cause, others, evidence):
        with _threads(threads):
            found = _try(program, name, count, kept, options)
            if found.helps and cause.kind == OPERATION:
                found = _without_a_trace(program, found, options)
        if found.helps and cause.kind == OPERATION and slowest_s < _SLOW_S:
            found = found._replace(ratio=_ratio(program, options, threads))
        tried.append(found)
        if found.helps:
            break
    return tried


def _candidates(
    program: Program, cause: Cause, others: Holders, evidence: Evidence
) -> Iterator[tuple[str, Any, int | None, Any]]:
    if cause.kind == OPERATION:
        yield "seeded(..., deterministic=True)", {"deterministic": True}, None, None
        yield "torch.set_num_threads(1)", {}, 1, None
    elif cause.kind == THREADS:
        return
    elif cause.kind == UNINITIALISED:
        options = {"deterministic": True, "fill_uninitialized_memory": True}
        name = "seeded(..., deterministic=True, fill_uninitialized_memory=True)"
        yield name, options, None, None
    elif cause.kind != SEEDED and evidence.still_differs:
        # Runs that do not differ any more would be equal with any remedy.
        restored = [id(thing) for thing in program.restored]
        first = [one for one in cause.holders if id(one[1]) not in restored]
        known = [*restored, *(id(thing) for _, thing in first)]
        more = [one for one in others if id(one[1]) not in known]
        for holders in (first, [*first, *more])[: 1 + bool(more)]:
            holders = [one for one in holders if program.can_keep(one[1])]
            if not holders:
                continue
            paths = ", ".join(["...", *(path for path, _ in holders)])
            yield f"restore=[{paths}]", {}, None, program.keep([thing for _, thing in holders])


def _try(program: Program, name: str, count: int, kept: Any, options: Any) -> Remedy:
    different: list[Run] = []
    for number in range(count):
        run = program.run(f"{name}, run {number + 1} of {count}", kept=kept, **options)
        if run.error:
            return Remedy(name, None, number + 1, error=run.error)
        if all(_differ(run, other) for other in different):
            different.append(run)
    return Remedy(name, len(different), count)


def _without_a_trace(program: Program, found: Remedy, options: Any) -> Remedy:
    """Return the remedy as runs show it that no digest slows down."""
    outcomes: list[Outcome] = []
    for _ in range(found.runs):
        outcome = program.run_bare(**options).outcome
        if all(outcome.first_difference(other) for other in outcomes):
            outcomes.append(outcome)
    return found._replace(results=len(outcomes))


def _differ(one: Run, other: Run) -> bool:
    found = first_difference(one.trace, other.trace)
    is_same = found is None or found.is_harmless
    return not is_same or one.outcome.first_difference(other.outcome) is not None


def _ratio(program: Program, options: Any, threads: int | None) -> float:
    """Return the time with a remedy to that without, in turns; medians."""
    without, with_it = [], []
    for _ in range(_TIMED + 1):
        without.append(program.run_bare().seconds)
        with _threads(threads):
            with_it.append(program.run_bare(**options).seconds)
    # The first of each warms up.
    return statistics.median(with_it[1:]) / statistics.median(without[1:])


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
