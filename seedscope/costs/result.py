"""The result of `cost`: the table, and the setting to use."""

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
    ". Make model, optimizer and data inside the function, and return no time and no entropy "
    "from the step"
)


class Cost:
    """The result of `cost`; iterate over a `Cost` for the `Measurement` of each setting."""

    def __init__(self, name: str, device: str, measured: Iterable[Measurement]) -> None:
        self.name = name
        self.device = device
        self._measured = list(measured)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self._measured)

    @property
    def cheapest(self) -> Measurement | None:
        """The fastest setting whose repeats all gave the same bits; None if no setting repeats.

        If torch warned of operations that need not repeat, settings under which torch would raise
        come first: under all others the operations run, and may have repeated by luck. An
        autotuned setting counts only if two processes have tuned it.

        If several settings cannot be told from the fastest, `cheapest` is the strictest of them,
        which repeats by more than luck. Two settings cannot be told apart if they are within 1 %,
        or if the median of one is within the interval of the other. But they can be told apart if
        in each process the paired rounds show which is slower.
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
        """Return one sentence that names the setting to use."""
        best = self.cheapest
        if best is None:
            raised = next((m for m in self if m.configuration == STRICT.name and m.error), None)
            why = f": {raised.error}" if raised else _HINT
            return f"no setting made the step repeat{why}"
        count, processes = len(best.digests), len(best.first_ms)
        text = f"cheapest reproducible setting: {best.configuration}, {best.ratio:.2f}x"
        if best.configuration == DEFAULT.name:
            text += f": the step repeated without any setting, in all {count} runs here"
        else:
            text += f" ({count} of {count} runs in {processes} processes gave the same bits)"
        if self._told and best.configuration in UNCHECKED:
            text += f", though torch warns: {self._told[0]}"
        return text

    @property
    def _told(self) -> list[str]:
        """The warnings of torch, each once."""
        return [*dict.fromkeys(text for measured in self for text in measured.warned)]

    def rows(self) -> list[list[str]]:
        """Return the rows of the table, the headers first."""
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
        notes = [f"torch warned: {text}" for text in self._told]
        if bound := [measured.configuration for measured in self if measured.is_launch_bound]:
            notes.append(
                f"the CPU, which launches the GPU's work, limits the time of: {'; '.join(bound)}"
            )
        replaced = next((found.replaced for found in self if found.replaced), {})
        notes += [
            f"seedscope replaced {name}, {count} calls in a repeat"
            for name, count in replaced.items()
        ]
        title = f"{self.name} on {self.device}"
        return "\n".join([title, *aligned(self.rows()), *notes, self.recommendation()])

    def as_dict(self) -> dict[str, Any]:
        """Return the whole result, in JSON's types."""
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
    """Return whether `slow` cannot be told from `quick`, which has the smaller median."""
    at, least = slow.ratio or 0, quick.ratio or 0
    if at <= 1.01 * least:
        return True
    if (slow.configuration in AUTOTUNED) == (quick.configuration in AUTOTUNED):
        # They took turns, so that a disturbance affects the same round of both.
        pairs = zip(slow.ratios, quick.ratios, strict=False)
        slower = [statistics.median(np.divide(*pair)) for pair in pairs]
        if len(slower) > 1 and min(slower) > 1.01:
            return False
    low, _ = slow.interval() or (at, at)
    _, high = quick.interval() or (least, least)
    return low <= 1.01 * least or at <= high


def combine(sessions: Sequence[Session]) -> list[Measurement]:
    """Return the measurements of all sessions together, with their ratios to torch's defaults.

    Sessions with `cudnn.benchmark` on have no defaults, and are compared with the median of the
    nearest session that has. The fixed product does not correct the ratios, since the product
    depends on the GPU's clocks more than most networks do.
    """
    together: dict[str, Measurement] = {}
    for number, session in enumerate(sessions):
        base = _baseline(sessions, number)
        for part in session.measurements:
            found = together.setdefault(part.configuration, Measurement(part.configuration))
            for name in ("ms", "digests", "first_ms", "launch_ms"):
                getattr(found, name).extend(getattr(part, name))
            found.error = found.error or part.error
            found.replaced = found.replaced or part.replaced
            found.warned = [*dict.fromkeys([*found.warned, *part.warned])]
            found.peak_mb = max(filter(None, (found.peak_mb, part.peak_mb)), default=None)
            if ratios := [ours / theirs for theirs, ours in zip(base, part.ms, strict=False)]:
                found.ratios.append(ratios)
    ranks = {one.name: rank for rank, one in enumerate(CONFIGURATIONS)}
    return sorted(together.values(), key=lambda found: ranks.get(found.configuration, len(ranks)))


def _baseline(sessions: Sequence[Session], number: int) -> Iterable[float]:
    """Return torch's defaults for each round of a session: its own, which took turns with it.

    Without its own, return the median of the nearest session's: rounds of two processes cannot
    be paired.
    """
    for other in sorted(range(len(sessions)), key=lambda other: abs(other - number)):
        for found in sessions[other].measurements:
            if found.configuration == DEFAULT.name and found.ms:
                return found.ms if other == number else repeat(statistics.median(found.ms))
    return ()
