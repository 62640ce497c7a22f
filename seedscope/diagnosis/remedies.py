"""What makes the runs repeat: tried, and measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .causes import OPERATION, SEEDED, THREADS, UNINITIALISED, Cause
from .compare import first_difference
from .keeping import Kept
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


def remedies(program: Program, cause: Cause, others: Holders, slowest_s: float) -> list[Remedy]:
    """Try what may help against the cause, and stop at the first that does.

    Args:
        program: what differs from run to run.
        cause: why.
        others: what else a run has left changed and could be restored: (path, thing).
        slowest_s: the seconds of the slower of the two runs.
    """
    count = _RUNS if slowest_s < _SLOW_S else 2
    tried = []
    for name, options, threads, kept in _candidates(cause, others):
        with _threads(threads):
            found = _try(program, name, count, kept, options)
        if found.helps and cause.kind == OPERATION and slowest_s < _SLOW_S:
            found = found._replace(ratio=_ratio(program, options, threads))
        tried.append(found)
        if found.helps:
            break
    return tried


def _candidates(cause: Cause, others: Holders) -> Iterator[tuple[str, Any, int | None, Any]]:
    if cause.kind == OPERATION:
        yield "seeded(..., deterministic=True)", {"deterministic": True}, None, None
        yield "torch.set_num_threads(1)", {}, 1, None
    elif cause.kind == THREADS:
        return
    elif cause.kind == UNINITIALISED:
        options = {"deterministic": True, "fill_uninitialized_memory": True}
        name = "seeded(..., deterministic=True, fill_uninitialized_memory=True)"
        yield name, options, None, None
    elif cause.kind != SEEDED and cause.holders:
        known = [id(thing) for _, thing in cause.holders]
        more = [one for one in others if id(one[1]) not in known]
        for holders in (cause.holders, [*cause.holders, *more])[: 1 + bool(more)]:
            paths = ", ".join(["...", *(path for path, _ in holders)])
            yield f"restore=[{paths}]", {}, None, Kept([thing for _, thing in holders])


def _try(program: Program, name: str, count: int, kept: Any, options: Any) -> Remedy:
    different: list[Run] = []
    for number in range(count):
        run = program.run(f"{name}, run {number + 1} of {count}", kept=kept, **options)
        if run.error:
            return Remedy(name, None, number + 1, error=run.error)
        if all(_differ(run, other) for other in different):
            different.append(run)
    return Remedy(name, len(different), count)


def _differ(one: Run, other: Run) -> bool:
    is_same = first_difference(one.trace, other.trace) is None
    return not is_same or one.outcome.first_difference(other.outcome) is not None


def _ratio(program: Program, options: Any, threads: int | None) -> float:
    """Return the time with a remedy to that without, in turns; medians."""
    without, with_it = [], []
    for _ in range(_TIMED + 1):
        without.append(program.seconds())
        with _threads(threads):
            with_it.append(program.seconds(**options))
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
