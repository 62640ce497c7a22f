"""The measurements of one configuration."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import numpy as np

from ..support.bootstrap import Bootstrap, interval
from .configurations import AUTOTUNED

_RESAMPLES = 2000


@dataclass
class Measurement:
    """The measurements of one setting.

    Attributes:
        configuration: the name of the setting.
        ms: milliseconds of a step, one figure for each round. Empty if the step raised.
        ratios: the ratios of `ms` to torch's defaults, a list for each process. A ratio is to the
            same round, or to the nearest process's median if the process has no defaults.
        digests: digests of the results from one seed, one for each repeat.
        error: the first line of the exception, if the step raised.
        warned: torch's warnings of operations that need not repeat.
        first_ms: milliseconds of the first step, one figure for each process.
        peak_mb: the peak of allocated GPU memory in 10**6 bytes, without the first step, which
            may autotune.
        launch_ms: milliseconds of the CPU to launch a step on an idle GPU, three for each
            process.
        replaced: how often operations ran in seedscope's form, in the steps of one repeat: see
            `Scope.replaced`.
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
    replaced: dict[str, int] = field(default_factory=dict)

    def fail(self, error: Exception) -> None:
        """Keep the reason why the setting cannot run, and drop the figures so far."""
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
        """Whether the CPU, which launches the GPU's work, limits the time of a step."""
        if not self.launch_ms:
            return False
        return statistics.median(self.launch_ms) > 0.9 * statistics.median(self.ms)

    @property
    def ratio(self) -> float | None:
        """The median over processes of each process's median ratio, so that all weigh the same."""
        medians = [statistics.median(process) for process in self.ratios]
        return statistics.median(medians) if medians else None

    @property
    def is_of_one_tuning(self) -> bool:
        """Whether only one process has autotuned the setting: each process chooses other plans."""
        return self.configuration in AUTOTUNED and len(self.ratios) < 2

    def interval(self) -> tuple[float, float] | None:
        """Return a 95 % bootstrap interval of the ratio, over processes and their rounds.

        Return None for fewer than 3 ratios, and for an autotuned setting, which is compared with
        another process, for fewer than 2 processes. If processes differ as much as rounds do, an
        interval from 2 processes covers the truth in only 3 of 4 cases.
        """
        shortest, count = min(map(len, self.ratios), default=0), len(self.ratios)
        if shortest * count < 3 or self.is_of_one_tuning:
            return None
        draws = Bootstrap()
        medians = [draws.statistics(np.array(each), np.median, _RESAMPLES) for each in self.ratios]
        # Resample processes too: one process does not show how processes differ.
        which = [draws.choices(count, _RESAMPLES) for _ in range(count)]
        drawn = [np.array(medians)[one, np.arange(_RESAMPLES)] for one in which]
        return interval(np.median(drawn, axis=0))


def first_line(what: object) -> str:
    line = str(what).strip().partition("\n")[0]
    return line.partition(", but you set ")[0].partition(". You can turn off")[0]
