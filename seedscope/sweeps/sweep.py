"""`sweep`: one function under many seeds, on any executor."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from os import PathLike
from typing import Any

import torch

from ..runs.log import RunLog, as_log
from ..scope.options import Options
from ..seeds import check_seed
from ..support import conditions
from ..support.modes import Deterministic
from ..support.user_function import digest_of, import_name, seed_parameter, source_of
from .job import Job
from .progress import progress_bar
from .result import Best, Sweep, SweepBroken, SweepInterrupted
from .resume import outcomes_in_log, to_outcome
from .workers import run_all, warn_of_threads


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
        SweepBroken: the executor broke; it holds the outcomes that were there, and is raised
            from the executor's own exception.
    """
    if best not in ("min", "max"):
        raise ValueError(f'best must be "min" or "max", got {best!r}')
    if threads is not None and not (type(threads) is int and threads > 0):
        raise ValueError(f"threads must be a positive integer, got {threads!r}")
    wanted = _check_seeds(seeds)
    known = name or import_name(fn)
    job = Job(
        fn,
        seed_parameter(fn),
        Options(deterministic, threads="wait"),
        threads or torch.get_num_threads(),
    )
    if log is not None:
        log, job.facts = as_log(log), _facts(fn, known)
    title = known or str(getattr(fn, "__name__", fn))
    if isinstance(executor, ThreadPoolExecutor):
        warn_of_threads("here")
        executor = None
    outcomes = {} if log is None else outcomes_in_log(log, job, wanted)
    missing = [seed for seed in wanted if seed not in outcomes]

    def collect() -> Sweep:
        found = [outcomes[seed] for seed in wanted if seed in outcomes]
        return Sweep(title, found, best, len(wanted) - len(missing))

    try:
        with progress_bar(title, len(wanted), len(outcomes), progress) as tick:
            for record in run_all(job, missing, executor):
                if log is not None:
                    log.append("end", record)
                outcomes[record["seed"]] = to_outcome(record)
                tick()
    except KeyboardInterrupt:
        raise SweepInterrupted(collect()) from None
    except Exception as error:
        raise SweepBroken(collect(), error) from error
    result = collect()
    _warn_of(result)
    return result


def _facts(fn: Callable[..., Any], name: str | None) -> dict[str, Any]:
    """Return what the log keeps of `fn`: its name and what tells its code from another."""
    if name is None:
        raise TypeError(
            f"the log needs a name for {fn!r}, which cannot be imported: give it one that is "
            'its own, name="...", since what the log has under the same name is not run again'
        )
    source = source_of(fn)
    function = digest_of(inspect.unwrap(fn))
    return {"sweep": name, "script": source, "function": function, **conditions.code_state(source)}


def _warn_of(result: Sweep) -> None:
    """Warn of seeds that failed, and of a best seed that luck alone explains."""
    if result.failed:
        first = result.failed[0]
        message = f"{len(result.failed)} of {len(result)} seeds failed, the first is {first.seed}"
        warnings.warn(f"{message}:\n{first.error}", stacklevel=3)
    if (luck := result.luck()) and luck.is_all:
        warnings.warn(f"the best seed may be only luck: {luck}", stacklevel=3)


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
