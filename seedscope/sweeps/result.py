"""The result of a sweep: outcomes, statistics, a table, a plot, and the luck of the best seed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any, Literal

import numpy as np

from ..support.bootstrap import Bootstrap, interval
from ..support.optional_imports import import_extra
from .luck import Luck

Best = Literal["min", "max"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one seed.

    Attributes:
        seed: the seed.
        value: the function's return value; None if the function raised.
        error: the traceback if the function raised, else None.
        duration: the time of the run in seconds.
        reseeded: the sources that the function has seeded with another seed, and that seed; None
            for fresh entropy.
    """

    seed: int
    value: Any
    error: str | None
    duration: float
    reseeded: Mapping[str, int | None] = field(default_factory=dict)


class _Ended(BaseException):
    def __init__(self, message: str, sweep: Sweep) -> None:
        super().__init__(message)
        self.sweep: Sweep = sweep

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.sweep)


class SweepInterrupted(_Ended, KeyboardInterrupt):
    """Ctrl-C stopped a sweep; the attribute `sweep` has the outcomes so far."""


class SweepBroken(_Ended, RuntimeError):
    """The executor of a sweep broke; the attribute `sweep` has the outcomes so far."""


class Sweep:
    """The outcomes of a sweep, in the order of the seeds; also as a table and as a plot.

    All statistics are over `values`, and NaN if there are too few values.
    """

    def __init__(
        self, name: str, outcomes: Iterable[Outcome], best: Best, resumed: int = 0
    ) -> None:
        self.name = name
        self._outcomes = list(outcomes)
        self._sense = best
        self._resumed = resumed

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)

    def __getitem__(self, index: int) -> Outcome:
        return self._outcomes[index]

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes of the seeds whose run raised."""
        return [outcome for outcome in self if outcome.error is not None]

    @property
    def _valued(self) -> list[Outcome]:
        return [o for o in self if o.error is None and np.isfinite(float(o.value))]

    @cached_property
    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The finite values as float64; without seeds that raised or gave NaN or infinity."""
        return np.array([float(outcome.value) for outcome in self._valued], dtype=np.float64)

    @property
    def is_constant(self) -> bool:
        """Whether several seeds gave one and the same value."""
        return len(self.values) > 1 and bool((self.values == self.values[0]).all())

    @property
    def reseeded(self) -> dict[str, int | None]:
        """The sources that the function seeds in each run with one and the same seed, and the seed.

        None stands for fresh entropy. A seed that differs from run to run is not counted: it may
        follow from the seed of the sweep.
        """
        runs = [outcome.reseeded for outcome in self if outcome.error is None]
        if len(runs) < 2:
            return {}
        return {
            name: seed
            for name, seed in sorted(runs[0].items())
            if all(name in run and run[name] == seed for run in runs)
        }

    @property
    def best(self) -> Outcome | None:
        """The outcome with the smallest or largest value, as `best=` says.

        None without a value, and if all values are equal: then no seed is better than another.
        """
        if self.is_constant:
            return None
        choose: Any = min if self._sense == "min" else max
        return choose(self._valued, key=lambda o: float(o.value), default=None)  # type: ignore[no-any-return]

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self.values) else float("nan")

    @property
    def deviation(self) -> float:
        """The standard deviation of the sample (n - 1)."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else float("nan")

    def quantiles(
        self, at: Iterable[float] = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    ) -> dict[float, float]:
        """Return, for each share in `at`, the value below which this share of the values lies."""
        values = self.values if len(self.values) else [float("nan")]
        return {share: float(np.quantile(values, share)) for share in at}

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return a bootstrap interval of the mean.

        The ends are percentiles of the means of up to 10,000 resamples. The resampling has a
        seed of its own, so that each call returns the same interval. If all values are equal,
        the ends are NaN: the values say nothing about other seeds.
        """
        values = self.values
        if len(values) < 2 or self.is_constant:
            return float("nan"), float("nan")
        resamples = min(10_000, max(1_000, 20_000_000 // len(values)))
        return interval(Bootstrap().statistics(values, np.mean, resamples), level)

    def luck(self) -> Luck | None:
        """Return how far the best seed is from what luck alone would give.

        Return None for fewer than 3 values, or if all values are equal.
        """
        best, values = self.best, self.values
        if best is None or len(values) < 3 or not 0 < self.deviation < np.inf:
            return None
        sign = -1 if self._sense == "min" else 1
        return Luck.of(sign * float(best.value), sign * values, sign)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with the columns seed, value, error and duration (seconds).

        The annotation does not name the type, because pandas is optional.
        """
        pandas = import_extra("pandas", "to_pandas()")
        columns = ("seed", "value", "error", "duration")
        data: dict[str, list[Any]] = {
            column: [getattr(o, column) for o in self] for column in columns
        }
        data["value"] = [float("nan" if x is None else x) for x in data["value"]]
        data["reseeded"] = [" ".join(sorted(o.reseeded)) for o in self]
        return pandas.DataFrame(data)

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw the distribution and the running best into a file (.png, .svg, .pdf).

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: no seed gave a finite value, or all values are equal.
        """
        figures = import_extra("matplotlib.figure", "plot()")
        values, best = self.values, self.best
        if best is None:
            raise ValueError(
                f"no seed of {self.name} gave a finite value, or all values are equal: there is "
                "nothing to plot"
            )
        figure = figures.Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.hist(values, bins="auto" if len(values) > 2 else 1, color="#8fb0d6")
        left.plot(values, np.zeros_like(values), "|", color="#234a7d", markersize=12)
        left.axvline(self.mean, color="#234a7d", label=f"mean {self.mean:.6g}")
        label = f"best {float(best.value):.6g}, seed {best.seed}"
        left.axvline(float(best.value), color="#c8501e", label=label)
        if luck := self.luck():
            label = f"median best of {len(values)} draws {luck.expected:.6g}"
            left.axvline(luck.expected, color="#c8501e", linestyle=":", label=label)
        left.set(xlabel="value", ylabel="seeds", title=f"{self.name}: {len(values)} seeds")
        figure.legend(loc="outside lower left", ncols=3, fontsize="small", frameon=False)
        running = (np.minimum if self._sense == "min" else np.maximum).accumulate(values)
        count = np.arange(1, len(values) + 1)
        right.plot(count, values, ".", color="#8fb0d6")
        right.step(count, running, where="post", color="#c8501e")
        right.set(xlabel="seeds tried", ylabel="value", title="best so far")
        right.xaxis.get_major_locator().set_params(integer=True)
        figure.savefig(path, dpi=150)

    def _rows(self) -> list[tuple[str, str]]:
        """Return the rows of the printed result, as pairs of a name and a text."""
        values, best = self.values, self.best
        total = sum(outcome.duration for outcome in self)
        resumed = f", {self._resumed} of them from the log" if self._resumed else ""
        rows = [("seeds", f"{len(self)}, {total:.4g} s in all{resumed}")]
        if self.failed:
            first = self.failed[0]
            reason = str(first.error).strip().rpartition("\n")[2]
            rows.append(("failed", f"{len(self.failed)}; seed {first.seed}: {reason}"))
        if missing := len(self) - len(self.failed) - len(values):
            rows.append(("not finite", f"{missing}, left out below"))
        rows += [("warning", text) for text in self.warnings()]
        if best is None:
            return rows
        rows.append(("best", f"{float(best.value):.6g} ({self._sense}), seed {best.seed}"))
        if len(values) > 1:
            low, high = self.interval()
            mean = f"{self.mean:.6g}, 95 % interval {low:.6g} to {high:.6g} (bootstrap)"
            rows += [("mean", mean), ("deviation", f"{self.deviation:.6g}")]
            quantiles = self.quantiles().items()
            rows.append(("quantiles", ", ".join(f"{q:.0%} {x:.6g}" for q, x in quantiles)))
        if luck := self.luck():
            rows.append(("luck", str(luck)))
        return rows

    def warnings(self) -> list[str]:
        """Return in words what says that the function does not follow the seed; often nothing."""
        found = []
        if self.reseeded:
            pairs = self.reseeded.items()
            seeds = ", ".join(f"{x} with {'fresh entropy' if y is None else y}" for x, y in pairs)
            found.append(
                f"the function itself seeds {seeds} in each run: what it draws from there does not "
                "follow the seed. Give the function a parameter `seed`, and pass it on to the code "
                "that seeds"
            )
        if self.is_constant:
            of = "" if len(self.values) == len(self) else f" finite values of {len(self)} seeds"
            found.append(
                f"all {len(self.values)}{of or ' values'} are {self.values[0]:.6g}: the function "
                "does not follow the seed, or its value does not depend on it; no seed is better "
                "than another"
            )
        return found

    def __str__(self) -> str:
        lines = [f"sweep of {self.name}"]
        for name, text in self._rows():
            first, rest = f"  {name:<10} ", " " * 13
            lines += textwrap.wrap(text, 80, initial_indent=first, subsequent_indent=rest)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Sweep of {self.name}, {len(self)} seeds, best {self.best}>"

    def _repr_html_(self) -> str:
        from html import escape

        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._rows()
        )
        return f"<table><caption>sweep of {escape(self.name)}</caption>{cells}</table>"
