"""`sweep`: one function under many seeds, on any executor."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from os import PathLike
from typing import Any

import torch

from ..runs.log import RunLog, as_log
from ..scope.options import Options
from ..seeds import check_seed
from ..support import conditions
from ..support.modes import Deterministic
from ..support.remarks import warn
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
    """Return the outcome of `fn` under each seed, each in a scope of its own.

    If a seed raises, its outcome has the traceback, and the other seeds still run.

    Args:
        fn: a function that returns a number. A parameter named `seed` gets the seed, else the
            first parameter if it has no default. Without either, `fn` is called without the seed.
        seeds: the seeds, or a number n for the seeds 0 to n - 1.
        executor: any `concurrent.futures.Executor`, also of Dask, loky or mpi4py; `None` runs the
            seeds in this process. All give the same values. A `ThreadPoolExecutor` is not used,
            with a warning: random sources are process-wide.
        log: a `RunLog` or a path. The sweep appends its outcomes, and does not run again the
            seeds whose outcomes the log has. So a sweep that was killed resumes.
        best: whether the smallest or the largest value is the best.
        progress: whether to show the time left, on a terminal.
        deterministic: as for `seeded`.
        threads: the number of CPU threads of torch in each run, by default the caller's number,
            since bits can depend on it. Many processes on few cores are faster with 1.
        name: the name of `fn` in the log. Required if `fn` cannot be imported by name.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. Nothing was run.
        SweepInterrupted: Ctrl-C stopped the sweep. The exception has the outcomes so far.
        SweepBroken: the executor broke. The exception has the outcomes so far, and the
            executor's own exception as its cause.
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

    records = run_all(job, missing, executor)
    if executor is not None:
        records = _or_broken(records, collect)
    try:
        with progress_bar(title, len(wanted), len(outcomes), progress) as tick:
            for record in records:
                if log is not None:
                    log.append("end", record)
                outcomes[record["seed"]] = to_outcome(record)
                tick()
    except KeyboardInterrupt:
        raise SweepInterrupted(f"stopped after {len(outcomes)} seeds", collect()) from None
    result = collect()
    _warn_of(result)
    return result


def _or_broken(
    records: Iterable[dict[str, Any]], collect: Callable[[], Sweep]
) -> Iterator[dict[str, Any]]:
    """Yield the records; say of an exception that it is the executor's."""
    try:
        yield from records
    except Exception as error:
        found = collect()
        message = f"the executor broke after {len(found)} seeds: {error}"
        raise SweepBroken(message, found) from error


def _facts(fn: Callable[..., Any], name: str | None) -> dict[str, Any]:
    """Return the name, source and code digest of `fn`, for the log."""
    if name is None:
        raise TypeError(
            f"the log needs a name for {fn!r}, which cannot be imported: pass a unique name, "
            'name="...", since seeds that the log has under the same name do not run again'
        )
    source = source_of(fn)
    function = digest_of(inspect.unwrap(fn))
    return {"sweep": name, "script": source, "function": function, **conditions.code_state(source)}


def _warn_of(result: Sweep) -> None:
    """Warn of seeds that failed, or decide nothing, and of a best seed that is only luck."""
    if result.failed:
        first = result.failed[0]
        message = f"{len(result.failed)} of {len(result)} seeds failed, the first is {first.seed}"
        warn(f"{message}:\n{first.error}", stacklevel=3)
    for text in result.warnings():
        warnings.warn(text, stacklevel=3)
    if (luck := result.luck()) and luck.is_all:
        warnings.warn(f"the best seed may be only luck: {luck}", stacklevel=3)


def _check_seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, bool) or not isinstance(seeds, (int, Iterable)):
        raise TypeError(f"seeds must be a number of seeds or an iterable of seeds, got {seeds!r}")
    checked = [*map(check_seed, range(seeds) if isinstance(seeds, int) else seeds)]
    if not checked:
        raise ValueError(f"seeds must have at least one seed, got {seeds!r}")
    if len(set(checked)) < len(checked):
        twice = next(seed for seed in checked if checked.count(seed) > 1)
        raise ValueError(
            f"seeds must differ, got {twice} more than once: equal seeds give equal values"
        )
    return checked
