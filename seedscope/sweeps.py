"""`sweep`: one function under many seeds, on any executor, and what came out."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import numbers
import os
import random
import statistics
import sys
import textwrap
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from . import machine
from .extras import load_extra
from .runlog import Run, RunLog, as_log, changed_since, decode, describe, is_replaying
from .scope import Deterministic, Options, Scope
from .seeds import check_seed

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,unused-ignore]

Best = Literal["min", "max"]


@dataclass(frozen=True)
class Outcome:
    """What one seed gave.

    Attributes:
        seed: the seed.
        value: what the function returned, None if it raised.
        error: the traceback if it raised, None otherwise.
        duration: seconds.
    """

    seed: int
    value: Any
    error: str | None
    duration: float


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a sweep; `sweep` holds the outcomes that were there by then."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(f"stopped after {len(sweep)} seeds")
        self.sweep = sweep


class Sweep:
    """The outcomes of a sweep, in the order of its seeds; also as a table, and as a plot.

    All statistics are over `values`. They are NaN where there are too few.
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
        """What the seeds gave, as float64, without those that raised or gave NaN or infinity."""
        return np.array([float(outcome.value) for outcome in self._valued], dtype=np.float64)

    @property
    def best(self) -> Outcome | None:
        """The outcome with the smallest value, or the largest; None if there is no value."""
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
        """Return the value below which each given share of the values lies."""
        values = self.values if len(self.values) else [float("nan")]
        return {share: float(np.quantile(values, share)) for share in at}

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return a bootstrap interval of the mean: percentiles of the means of up to
        10,000 resamples.

        The resampling has a seed of its own, so that it gives the same each time.
        """
        values = self.values
        if len(values) < 2:
            return float("nan"), float("nan")
        generator = np.random.Generator(np.random.PCG64(1029))
        resamples = min(10_000, max(1_000, 20_000_000 // len(values)))
        means = [generator.choice(values, len(values)).mean() for _ in range(resamples)]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def luck(self) -> Luck | None:
        """Return how far the best is from what luck gives; None for fewer than 3 values,
        or if all are equal."""
        best, values = self.best, self.values
        if best is None or len(values) < 3 or not 0 < self.deviation < np.inf:
            return None
        sign = -1 if self._sense == "min" else 1
        return Luck.of(sign * float(best.value), sign * values, sign)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with the columns seed, value, error and duration (seconds)."""
        pandas = load_extra("pandas", "to_pandas()")
        columns = ("seed", "value", "error", "duration")
        data = {column: [getattr(o, column) for o in self] for column in columns}
        data["value"] = [float("nan" if x is None else x) for x in data["value"]]
        return pandas.DataFrame(data)

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw the distribution and the running best into a file (.png, .svg, .pdf).

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no value to draw.
        """
        figures = load_extra("matplotlib.figure", "plot()")
        values, best = self.values, self.best
        if best is None:
            raise ValueError(f"no seed of {self.name} gave a value: there is nothing to plot")
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
        """What there is to say, as pairs of a name and a text."""
        values, best = self.values, self.best
        total = sum(outcome.duration for outcome in self)
        resumed = f", {self._resumed} of them from the log" * bool(self._resumed)
        rows = [("seeds", f"{len(self)}, {total:.4g} s in all{resumed}")]
        if self.failed:
            first = self.failed[0]
            reason = str(first.error).strip().rpartition("\n")[2]
            rows.append(("failed", f"{len(self.failed)}; seed {first.seed}: {reason}"))
        if missing := len(self) - len(self.failed) - len(values):
            rows.append(("not finite", f"{missing}, left out below"))
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

    def __str__(self) -> str:
        lines = [f"sweep of {self.name}"]
        for name, text in self._rows():
            first, rest = f"  {name:<10} ", " " * 13
            lines += textwrap.wrap(text, 96, initial_indent=first, subsequent_indent=rest)
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


@dataclass(frozen=True)
class Luck:
    """How far the best of n seeds is from the best of n draws of a normal distribution.

    The distribution has the mean and deviation of all n values, the best among them, so
    that few values never look like more than luck.

    Attributes:
        n: the number of values.
        expected: the median of the best of n draws.
        distance: how much better the best is than that, in deviations.
        chance: how often the best of n draws is at least as good.
        skewness: of the values towards the better ones; 0 for a normal distribution.
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
        """Whether luck alone would do: it gives as much more often than one time in 20."""
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
            text += ": nothing says that it is better than the others on new data"
        if abs(self.skewness) > 1:
            text += f". The values are skewed ({self.skewness:.2g}), so this is a rough guide"
        return text


# ------------------------------------------------------------------------------- running


def sweep(
    fn: Callable[..., Any],
    seeds: int | Iterable[int] = 100,
    *,
    executor: Executor | None = None,
    log: RunLog | str | PathLike[str] | None = None,
    best: Best = "min",
    progress: bool = True,
    deterministic: Deterministic = True,
    threads: int | None = None,
    name: str | None = None,
) -> Sweep:
    """Call `fn` once for each seed, each in a scope of its own, and return every outcome.

    A seed whose run raises is kept with its traceback, and the others go on.

    Args:
        fn: a function that returns a number. If it has a parameter named `seed` that gets
            the seed, else the one without a default.
        seeds: the seeds, or a number n for the seeds 0 to n - 1.
        executor: where to run: any `concurrent.futures.Executor`, also of Dask, loky or
            mpi4py; None runs here. Each gives the same values. One of threads is not used,
            with a warning: random sources are process-wide.
        log: a `RunLog` or a path. Outcomes are appended, and those that it has are not
            run again, so that a sweep that was killed goes on.
        best: whether the smallest or the largest value is the best.
        progress: show the time left, on a terminal.
        deterministic: as for `seeded`.
        threads: of torch's CPU work in each run, by default as many as here: bits can depend
            on it. Many processes on few cores are quicker with 1.
        name: what the log calls `fn`; needed where `fn` has no name to be imported by.

    Raises:
        TypeError, ValueError: an argument is not one of these. Nothing was run.
        SweepInterrupted: on Ctrl-C; it holds the outcomes that were there.
        Exception: the executor's own, where it breaks; its attribute `sweep` has the outcomes.
    """
    if best not in ("min", "max"):
        raise ValueError(f'best must be "min" or "max", got {best!r}')
    if threads is not None and not (type(threads) is int and threads > 0):
        raise ValueError(f"threads must be a positive integer, got {threads!r}")
    wanted = _check_seeds(seeds)
    options = Options(deterministic, threads="wait")
    known = name or name_of(fn)
    job = Job(fn, takes_seed(fn), options, threads or torch.get_num_threads())
    if log is not None:
        if known is None:
            raise TypeError(
                f"the log needs a name for {fn!r}, which cannot be imported: give it one that is "
                'its own, name="...", since what the log has under the same name is not run again'
            )
        source = _source_of(fn)
        log = as_log(log)
        function = _digest_of(inspect.unwrap(fn))
        job.facts = {"sweep": known, "script": source, "function": function, **machine.code(source)}
    title = known or str(getattr(fn, "__name__", fn))
    if isinstance(executor, ThreadPoolExecutor):
        _warn_of_threads("here")
        executor = None
    outcomes = {} if log is None else _resume(log, job, wanted)
    missing = [seed for seed in wanted if seed not in outcomes]

    def collect() -> Sweep:
        found = [outcomes[seed] for seed in wanted if seed in outcomes]
        return Sweep(title, found, best, len(wanted) - len(missing))

    try:
        with _progress(title, len(wanted), len(outcomes), progress) as tick:
            for record in _run_all(job, missing, executor):
                if log is not None:
                    log.append("end", record)
                outcomes[record["seed"]] = outcome_of(record)
                tick()
    except KeyboardInterrupt:
        raise SweepInterrupted(collect()) from None
    except Exception as error:
        error.sweep = collect()  # type: ignore[attr-defined]
        raise
    result = collect()
    if result.failed:
        first = result.failed[0]
        message = f"{len(result.failed)} of {len(result)} seeds failed, the first is {first.seed}"
        warnings.warn(f"{message}:\n{first.error}", stacklevel=2)
    if (luck := result.luck()) and luck.is_all:
        warnings.warn(f"the best seed may be only luck: {luck}", stacklevel=2)
    return result


@dataclass
class Job:
    """One seed's run, to be called in whatever process: it is pickled."""

    fn: Callable[..., Any]
    takes_seed: Literal["by name", "first", "no"]
    options: Options
    threads: int
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, seed: int, **more: Any) -> dict[str, Any]:
        """Run `seed` and return its record, in the run log's JSON types."""
        entry = self.options.entry(seed, counted=False, **self.facts, **more)
        arguments: Any = [seed] if self.takes_seed == "first" else []
        named: Any = {"seed": seed} if self.takes_seed == "by name" else {}
        error = None
        try:
            with Scope(seed, self.options, entry=entry) as scope, _threads(self.threads):
                scope.note(value=_check_number(self.fn(*arguments, **named)))
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # SystemExit, asyncio's CancelledError
            error = "".join(traceback.format_exception(raised))
            entry.begin()  # where the scope could not even be opened
        return {**entry.end(), "error": error}


def outcome_of(record: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a record of the run log, or of a `Job`, tells of."""
    error = record["error"]
    value = None if error else decode(record["notes"]["value"])
    return Outcome(record["seed"], value, error, record["duration"])


def name_of(fn: Any) -> str | None:
    """Return `module:function`, by which another process can import `fn`; None if it cannot.

    A function of the main script has the name that it would have if the script were imported.
    """
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    found: Any = module
    path = getattr(fn, "__qualname__", "")
    for part in path.split("."):
        found = getattr(found, part, None)
    if module is None or found is not fn:
        return None
    spec = getattr(module, "__spec__", None)
    name = spec.name if spec else Path(getattr(module, "__file__", None) or module.__name__).stem
    return f"{name.removesuffix('.__main__')}:{path}"


def load_function(name: str, script: str | None = None) -> Callable[..., Any]:
    """Return the function that `name_of` gave `name` to, or of `FILE.py:FUNCTION`.

    Modules are looked for in the working folder, and beside `script`, first.

    Raises:
        LookupError: there is no such module or function; the message is one line.
    """
    module, _, path = name.partition(":")
    if not (module and path):
        raise LookupError(f"{name!r} is not of the form MODULE:FUNCTION")
    folders = [os.getcwd()]
    if module.endswith(".py"):
        file = Path(module)
        module, script = file.stem, str(file.absolute())
    if script:
        folders.insert(0, os.path.dirname(script))
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and what it imports is not
        raise LookupError(f"there is no module {module!r} here") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise LookupError(f"{path!r} is not in {module} ({found.__file__})")
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def _source_of(fn: Any) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(fn))
    except TypeError:  # neither a function nor a class: a partial, a callable object
        return machine.main_file()


def _check_seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, bool) or not isinstance(seeds, (int, Iterable)):
        raise TypeError(f"seeds must be a number of seeds or an iterable of seeds, got {seeds!r}")
    checked = [*map(check_seed, range(seeds) if isinstance(seeds, int) else seeds)]
    if not checked:
        raise ValueError(f"seeds has no seed in it: {seeds!r}")
    if len(set(checked)) < len(checked):
        twice = next(seed for seed in checked if checked.count(seed) > 1)
        raise ValueError(f"the seed {twice} is there more than once; the same seed gives the same")
    return checked


def takes_seed(fn: Any) -> Literal["by name", "first", "no"]:
    """Whether and how `fn` is called with the seed.

    Raises:
        TypeError: it can be called neither with the seed alone nor without.
    """
    if not callable(fn):
        raise TypeError(f"expected a function, got {fn!r} ({type(fn).__name__})")
    try:
        signature = inspect.signature(fn)
    except ValueError:  # a builtin that does not tell
        return "no"
    seed = signature.parameters.get("seed")
    positional = [p for p in signature.parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    try:
        if seed is not None and seed.kind in (seed.POSITIONAL_OR_KEYWORD, seed.KEYWORD_ONLY):
            signature.bind(seed=0)
            return "by name"
        if positional and positional[0].default is positional[0].empty:
            signature.bind(0)
            return "first"
        signature.bind()
    except TypeError as error:
        name = getattr(fn, "__name__", fn)
        raise TypeError(f"{name} is called as fn(seed) or fn(), and cannot be: {error}") from None
    return "no"


def _digest_of(fn: Any) -> str | None:
    """A digest of a function's code, None where it has none, as a callable object."""
    code = getattr(fn, "__code__", None)
    return code and hashlib.sha256(_spelled(code).encode()).hexdigest()[:16]


def _spelled(code: types.CodeType) -> str:
    inner = [_spelled(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, inner))


def _check_number(value: Any) -> Any:
    is_array = isinstance(value, (np.ndarray, torch.Tensor))
    is_complex = value.is_complex() if isinstance(value, torch.Tensor) else np.iscomplexobj(value)
    if is_complex or not (
        isinstance(value, (numbers.Real, np.bool_)) or (is_array and value.ndim == 0)
    ):
        raise TypeError(f"the function must return a number, got {value!r:.200}")
    number = float(value)  # refuses an integer that is too large
    is_kept = is_array or isinstance(value, np.generic) or type(value) in (bool, int, float)
    return value if is_kept else number


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """As many CPU threads as the caller has: engines limit their workers, and bits depend on it."""
    before = torch.get_num_threads()
    if before == number:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resume(log: RunLog, job: Job, seeds: Iterable[int]) -> dict[int, Outcome]:
    """The outcomes that the log has of this function, its code and versions, and options."""
    if is_replaying():  # to take from the log what is to be compared with it proves nothing
        return {}
    wanted, options = set(seeds), job.options.as_dict()
    code = {name: job.facts[name] for name in ("script_sha256", "git")}
    runs: dict[int, Run] = {}
    other: dict[int, Run] = {}
    for run in log:
        is_of_this = run.sweep == job.facts["sweep"] and run.options == options
        if is_of_this and run.seed in wanted and run.replays is None:
            changed = set(changed_since(run, code))
            # Another commit may have changed what does not matter here.
            changed -= {"commit", "uncommitted changes"}
            same = run.threads == job.threads and run.function == job.facts["function"]
            (runs if same and not changed else other).setdefault(run.seed, run)
    again = [run for seed, run in other.items() if seed not in runs]
    if again:
        what = changed_since(again[0], code) | {"threads": (again[0].threads, job.threads)}
        what["the function's code"] = (again[0].function, job.facts["function"])
        _warn_of_conditions(f"{len(again)} outcomes in {log.path}", what, "they are run again")
    elif found := [what for run in runs.values() if (what := changed_since(run, code))]:
        _warn_of_conditions(f"{len(found)} outcomes in {log.path}", found[0], "they are used")
    return {
        seed: Outcome(
            seed, None if run.error else run.notes["value"], run.error, run.duration or 0.0
        )
        for seed, run in runs.items()
    }


def _warn_of_conditions(what: str, found: Mapping[str, tuple[Any, Any]], then: str) -> None:
    texts = [describe(name, *pair) for name, pair in found.items() if pair[0] != pair[1]]
    warnings.warn(
        f"{what} were made under other conditions ({'; '.join(texts)}): {then}", stacklevel=4
    )


def _run_all(job: Job, seeds: list[int], executor: Executor | None) -> Iterator[dict[str, Any]]:
    """Give the record of each seed as it comes in."""
    if executor is None:
        for seed in seeds:
            yield job(seed)
        return
    threads: dict[str, set[int]] = {}
    futures = []
    try:
        # Inside, since an executor may start running, and fail, with the first.
        futures = [executor.submit(_run_away, job, seed) for seed in seeds]
        for future in as_completed(futures):
            record, thread = future.result()
            used = threads.setdefault(record["process"], set())
            used.add(thread)
            if len(used) == 2:
                _warn_of_threads(f"in process {record['process']}")
            yield record
    finally:
        for future in futures:
            future.cancel()


# In a forked worker: the one thread that runs its seeds.
_fresh_thread: ThreadPoolExecutor | None = None


def _after_fork_in_child() -> None:
    global _fresh_thread
    _fresh_thread = ThreadPoolExecutor(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _run_away(job: Job, seed: int) -> tuple[dict[str, Any], int]:
    """Run a seed in a worker; return its record and the thread that was asked for it."""
    # A forked thread has OpenMP's books of a team of threads that were not forked: its next
    # parallel operation would wait for them forever. A new thread has a team of its own.
    run = _apart_from_other_threads
    if _fresh_thread is not None:
        return _fresh_thread.submit(run, job, seed).result(), threading.get_ident()
    return run(job, seed), threading.get_ident()


def _apart_from_other_threads(job: Job, seed: int) -> dict[str, Any]:
    """Run a seed while threads that the worker has for itself draw from generators of their own.

    Dask's workers, for one, estimate the size of what their heartbeat sends with
    `random.sample`, in another thread than that of the task.
    """
    strangers = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    if not strangers:
        return job(seed)
    kept: list[tuple[Any, str, Any]] = []
    try:
        for module, theirs in ((random, random.Random()), (np.random, np.random.RandomState())):
            everyones = module.random.__self__
            for name, function in list(vars(module).items()):
                if getattr(function, "__self__", None) is everyones and hasattr(theirs, name):
                    kept.append((module, name, function))
                    setattr(module, name, _by_thread(strangers, getattr(theirs, name), function))
        return job(seed)
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def _by_thread(strangers: Collection[int | None], theirs: Any, ours: Any) -> Any:
    def draw(*args: Any, **kwargs: Any) -> Any:
        chosen = theirs if threading.get_ident() in strangers else ours
        return chosen(*args, **kwargs)

    return draw


def _warn_of_threads(where: str) -> None:
    warnings.warn(
        f"random sources are process-wide, so seeds that share a process ran {where} one after "
        "another; give the executor processes of one thread to run them side by side",
        stacklevel=3,
    )


@contextmanager
def _progress(name: str, total: int, done: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """Show a bar with the time left on a terminal; give what tells it that a seed is done."""
    if not (wanted and sys.stderr.isatty() and total > done):
        yield lambda: None
        return
    try:
        rich = load_extra("rich.progress", "The progress bar")
        console = load_extra("rich.console", "The progress bar").Console(stderr=True)
    except ImportError as error:
        print(error, file=sys.stderr)
        yield lambda: None
        return
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    # No refreshing thread: executors may fork.
    with rich.Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(name, total=total, completed=done)
        bar.refresh()

        def tick() -> None:
            bar.update(task, advance=1, refresh=True)

        yield tick
