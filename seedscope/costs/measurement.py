"""What was found of one configuration."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import numpy as np

from ..support.bootstrap import Bootstrap, interval
from .configurations import AUTOTUNED

_RESAMPLES = 2000


@dataclass
class Measurement:
    """What was found of one setting.

    Attributes:
        ms: milliseconds of a step, one figure for each round; none if it raised.
        ratios: of those to torch's defaults, each paired with a round beside it; a list
            for each process.
        digests: of the results of repeats from one seed, one for each repeat.
        error: the first line of what it raised.
        warned: what it warned of: operations that do not repeat.
        first_ms: milliseconds of the first step, in each process.
        peak_mb: the most GPU memory that was allocated after the first step, which may also
            tune, in 10**6 bytes.
        launch_ms: milliseconds in which the CPU asks an idle GPU for a step, three in each
            process.
    """

    configuration: str
    ms: list[float] = field(default_factory=list)
    ratios: list[list[float]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    error: str | None = None
    warned: list[str] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    peak_mb: float | None = None
    launch_ms: list[float] = field(default_factory=list)

    def fail(self, error: Exception) -> None:
        """Keep why it cannot run; what it did until then is no result."""
        self.error = first_line(error) or type(error).__name__
        for kept in (self.ms, self.launch_ms, self.digests):
            kept.clear()

    @property
    def distinct(self) -> int:
        return len(set(self.digests))

    @property
    def repeats(self) -> bool:
        """Whether all repeats, in all processes, gave the same bits."""
        return self.error is None and self.distinct == 1

    @property
    def is_launch_bound(self) -> bool:
        """Whether the CPU, which asks for the work, sets the time, and not the GPU."""
        if not self.launch_ms:
            return False
        return statistics.median(self.launch_ms) > 0.9 * statistics.median(self.ms)

    @property
    def ratio(self) -> float | None:
        """The median, over processes, of the median of each: all weigh the same."""
        medians = [statistics.median(process) for process in self.ratios]
        return statistics.median(medians) if medians else None

    @property
    def is_of_one_tuning(self) -> bool:
        """Whether it is autotuned and seen in one process: each chooses its plans anew."""
        return self.configuration in AUTOTUNED and len(self.ratios) < 2

    def interval(self) -> tuple[float, float] | None:
        """A 95 % bootstrap interval of the ratio, over processes and their rounds.

        None where too little is known: of an autotuned setting, which is compared with another
        process, that is less than two processes. Two processes tell little of how processes
        differ: where they do, as much as rounds, it holds the truth in 3 of 4 cases only.
        """
        shortest, count = min(map(len, self.ratios), default=0), len(self.ratios)
        if shortest * count < 3 or self.is_of_one_tuning:
            return None
        draws = Bootstrap()
        medians = [draws.statistics(np.array(each), np.median, _RESAMPLES) for each in self.ratios]
        # Processes too: what differs between them is not seen within one.
        which = [draws.choices(count, _RESAMPLES) for _ in range(count)]
        drawn = [np.array(medians)[one, np.arange(_RESAMPLES)] for one in which]
        return interval(np.median(drawn, axis=0))


def first_line(what: object) -> str:
    line = str(what).strip().partition("\n")[0]
    return line.partition(", but you set ")[0].partition(". You can turn off")[0]
