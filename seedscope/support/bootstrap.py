"""Bootstrap statistics from a fixed seed, so that the same values give the same interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SEED = 1029
_AT_ONCE = 1_000_000  # values in one draw: 16 MB


class Bootstrap:
    """A sampler with replacement; each instance starts from the same seed."""

    def __init__(self) -> None:
        # A private generator: a scope does not seed it, and draws leave np.random unchanged.
        self._generator = np.random.Generator(np.random.PCG64(_SEED))

    def statistics(
        self, values: NDArray[np.float64], statistic: Callable[..., Any], count: int
    ) -> NDArray[np.float64]:
        """Return `statistic`, such as `np.mean`, of `count` resamples of `values`."""
        rows = max(1, _AT_ONCE // len(values))
        parts = [
            statistic(values[self.choices(len(values), (min(rows, count - done), len(values)))], -1)
            for done in range(0, count, rows)
        ]
        return np.concatenate(parts)

    def choices(self, number: int, shape: int | tuple[int, int]) -> NDArray[np.int64]:
        """Return uniformly distributed indices in [0, number)."""
        return self._generator.integers(number, size=shape)


def interval(statistics: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the two percentiles that enclose the share `level` of the statistics."""
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
