"""Statistics of resamples, drawn with a seed of their own, so that each call gives the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SEED = 1029
_AT_ONCE = 1_000_000  # values drawn at a time: 16 MB


class Bootstrap:
    """Resamples values with replacement."""

    def __init__(self) -> None:
        # Its own generator: a scope does not seed it, and np.random does not move.
        self._generator = np.random.Generator(np.random.PCG64(_SEED))

    def statistics(
        self, values: NDArray[np.float64], statistic: Callable[..., Any], count: int
    ) -> NDArray[np.float64]:
        """Return `statistic`, such as `np.mean`, of each of `count` resamples of `values`."""
        rows = max(1, _AT_ONCE // len(values))
        parts = [
            statistic(values[self.choices(len(values), (min(rows, count - done), len(values)))], -1)
            for done in range(0, count, rows)
        ]
        return np.concatenate(parts)

    def choices(self, number: int, shape: int | tuple[int, int]) -> NDArray[np.int64]:
        """Return indices below `number`, each as likely as any other."""
        return self._generator.integers(number, size=shape)


def interval(statistics: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the percentiles between which the share `level` of the statistics lies."""
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
