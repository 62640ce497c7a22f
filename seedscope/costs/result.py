"""What `cost` found: the table, and which configuration to use."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from ..support.conditions import versions
from ..support.tables import aligned
from .configurations import AUTOTUNED, CONFIGURATIONS, DEFAULT, STRICT, UNCHECKED
from .measurement import Measurement
from .session import Session

_HINT = (
    ". Are model, optimizer and data made inside the function? Is there a time, or entropy, in "
    "what the step returns?"
)


class Cost:
    """What `cost` found: iterating gives what was `Measurement` of each setting."""

    def __init__(self, name: str, device: str, measured: Iterable[Measurement]) -> None:
        self.name = name
        self.device = device
        self._measured = list(measured)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self._measured)

    @property
    def cheapest(self) -> Measurement | None:
        """The quickest setting of those whose repeats all gave the same bits.

        Where torch warned of operations that need not repeat, those settings count first under
        which it would raise: the operations run in all others, and may have repeated by luck.
        An autotuned setting counts only if two processes have tuned it. Of those that
        cannot be told from the quickest (within 1 %, or the median of one within the interval
        of the other, unless in each process the rounds side by side say which is slower) the
        strictest: it repeats by more than luck.
        """
        strictness = {
            configuration.name: rank for rank, configuration in enumerate(CONFIGURATIONS)
        } | {STRICT.name: len(CONFIGURATIONS)}
        found = [m for m in self if m.repeats and m.ratio and m.configuration in strictness]
        found = [measured for measured in found if not measured.is_of_one_tuning]
        if self._told:
            found = [m for m in found if m.configuration not in UNCHECKED] or found
        quickest = min(found, key=lambda m: m.ratio or 0, default=None)
        if quickest is None:
            return None
        equals = [measured for measured in found if _are_alike(measured, quickest)]
        return max(equals, key=lambda measured: strictness[measured.configuration])

    def recommendation(self) -> str:
        """Return one sentence: what to use."""
        best = self.cheapest
        if best is None:
            raised = next((m for m in self if m.configuration == STRICT.name and m.error), None)
            why = f": {raised.error}" if raised else _HINT
            return f"no setting made it repeat{why}"
        count, processes = len(best.digests), len(best.first_ms)
        text = f"cheapest reproducible setting: {best.configuration}, {best.ratio:.2f}x"
        if best.configuration == DEFAULT.name:
            text += f": it repeated as it is, in all {count} runs here"
        else:
            text += f" ({count} of {count} runs in {processes} processes gave the same bits)"
        if self._told and best.configuration in UNCHECKED:
            text += f", though torch warns: {self._told[0]}"
        return text

    @property
    def _told(self) -> list[str]:
        """What torch warned of, each once."""
        return [*dict.fromkeys(text for measured in self for text in measured.warned)]

    def rows(self) -> list[list[str]]:
        """Return the table's texts, the headers first."""
        has_peak = any(measured.peak_mb for measured in self)
        peak = ["peak MB"] if has_peak else []
        headers = ["setting", "ms a step", "quartiles", "to default", "95 % interval"]
        table = [[*headers, *peak, "repeats"]]
        for measured in self:
            if has_peak:
                peak = [f"{measured.peak_mb:.0f}" if measured.peak_mb else ""]
            table.append(
                [measured.configuration, *self._figures(measured), *peak, self._verdict(measured)]
            )
        return table

    @staticmethod
    def _figures(measured: Measurement) -> list[str]:
        if not measured.ms:
            return ["", "", "", ""]
        q1, median, q3 = statistics.quantiles(measured.ms, n=4, method="inclusive")
        interval = measured.interval()
        return [
            f"{median:.4g}",
            f"{q1:.4g} to {q3:.4g}",
            "" if measured.ratio is None else f"{measured.ratio:.3f}x",
            "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        ]

    @staticmethod
    def _verdict(measured: Measurement) -> str:
        if measured.error is not None:
            return f"cannot run: {measured.error:.70}"
        count = len(measured.digests)
        if measured.repeats:
            return f"yes, {count} of {count}"
        return f"NO, {measured.distinct} results in {count}"

    def __str__(self) -> str:
        notes = [f"warned of: {text}" for text in self._told]
        if bound := [measured.configuration for measured in self if measured.is_launch_bound]:
            notes.append(
                f"the CPU, which asks the GPU for work, sets the time of: {'; '.join(bound)}"
            )
        title = f"{self.name} on {self.device}"
        return "\n".join([title, *aligned(self.rows()), *notes, self.recommendation()])

    def as_dict(self) -> dict[str, Any]:
        """Return everything, in JSON's types."""
        best = self.cheapest
        return {
            "name": self.name,
            "device": self.device,
            "versions": versions(),
            "cheapest": best and best.configuration,
            "recommendation": self.recommendation(),
            "measurements": [vars(m) | {"distinct": m.distinct, "ratio": m.ratio} for m in self],
        }


def _are_alike(slow: Measurement, quick: Measurement) -> bool:
    """Whether the one cannot be told from the other, which is quicker by the medians."""
    at, least = slow.ratio or 0, quick.ratio or 0
    if at <= 1.01 * least:
        return True
    if (slow.configuration in AUTOTUNED) == (quick.configuration in AUTOTUNED):
        # They took turns: what disturbs a round is beside it in the other's.
        pairs = zip(slow.ratios, quick.ratios, strict=False)
        slower = [statistics.median(np.divide(*pair)) for pair in pairs]
        if len(slower) > 1 and min(slower) > 1.01:
            return False
    low, _ = slow.interval() or (at, at)
    _, high = quick.interval() or (least, least)
    return low <= 1.01 * least or at <= high


def combine(sessions: Sequence[Session]) -> list[Measurement]:
    """Put the sessions' measurements together, each with its ratios to torch's defaults.

    A session without the defaults, the one with `cudnn.benchmark` on, is set beside the
    median of the nearest session that has them. The ratios are not corrected by the fixed
    product: it follows the GPU's clocks more closely than most networks do.
    """
    together: dict[str, Measurement] = {}
    for number, session in enumerate(sessions):
        base = _baseline(sessions, number)
        for part in session.measurements:
            found = together.setdefault(part.configuration, Measurement(part.configuration))
            for name in ("ms", "digests", "first_ms", "launch_ms"):
                getattr(found, name).extend(getattr(part, name))
            found.error = found.error or part.error
            found.warned = [*dict.fromkeys([*found.warned, *part.warned])]
            found.peak_mb = max(filter(None, (found.peak_mb, part.peak_mb)), default=None)
            if ratios := [ours / theirs for theirs, ours in zip(base, part.ms, strict=False)]:
                found.ratios.append(ratios)
    ranks = {one.name: rank for rank, one in enumerate(CONFIGURATIONS)}
    return sorted(together.values(), key=lambda found: ranks.get(found.configuration, len(ranks)))


def _baseline(sessions: Sequence[Session], number: int) -> Iterable[float]:
    """The defaults to compare a session's rounds with: its own, with which they took turns.

    Where it has none, the median of those next to it: rounds of two processes are no pairs.
    """
    for other in sorted(range(len(sessions)), key=lambda other: abs(other - number)):
        for found in sessions[other].measurements:
            if found.configuration == DEFAULT.name and found.ms:
                return found.ms if other == number else repeat(statistics.median(found.ms))
    return ()
