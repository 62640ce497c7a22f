"""The share of luck in the best seed's lead."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass  # type: ignore[import-untyped,unused-ignore]


@dataclass(frozen=True)
class Luck:
    """A comparison of the best of n seeds with the best of n draws of a normal distribution.

    The distribution has the mean and deviation of all n values, including the best. So a few
    values never look like more than luck.

    Attributes:
        n: the number of values.
        expected: the median of the best of n draws.
        distance: how much better the best seed is than `expected`, in deviations.
        chance: the probability that the best of n draws is at least as good as the best seed.
        skewness: the skewness of the values towards better values; 0 for a normal distribution.
    """

    n: int
    expected: float
    distance: float
    chance: float
    skewness: float = 0.0

    @classmethod
    def of(cls, best: float, values: Any, sign: int) -> Luck:
        n, normal = len(values), statistics.NormalDist(values.mean(), values.std(ddof=1))
        expected = normal.inv_cdf(0.5 ** (1 / n))
        chance = 1 - normal.cdf(best) ** n
        skewness = float((((values - normal.mean) / normal.stdev) ** 3).mean())
        return cls(n, sign * expected, (best - expected) / normal.stdev, chance, skewness)

    @property
    def is_all(self) -> bool:
        """Whether luck alone explains the best seed: `chance` is above 1 in 20."""
        return self.chance > 0.05

    def __str__(self) -> str:
        side = "better" if self.distance >= 0 else "worse"
        chance = "under 1 %" if self.chance < 0.01 else f"{self.chance:.0%}".replace("%", " %")
        text = (
            f"the best of {self.n} draws of a normal distribution of this mean and deviation is "
            f"{self.expected:.6g} in the median (the best seed is {abs(self.distance):.2g} "
            f"deviations {side}), and at least as good as the best seed in {chance} of sweeps"
        )
        if self.is_all:
            text += ": nothing says that this seed is better than the others on new data"
        if abs(self.skewness) > 1:
            skewed = f"The values are skewed ({self.skewness:.2g})"
            text += f". {skewed}, so this comparison is a rough guide"
        return text
