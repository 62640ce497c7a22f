"""`sweep`: one function under many seeds, on any executor."""

from __future__ import annotations

import inspect
import numbers
import os
import random
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch

from .outcomes import Best, Outcome, Sweep, SweepInterrupted
from .runs.log import RunLog, as_log
from .runs.process import is_replaying
from .runs.run import Run, changed_since, describe
from .runs.values import decode
from .scope import Deterministic, Options, Scope
from .seeds import check_seed
from .support import conditions
from .support.optional_imports import load_extra
from .support.user_function import digest_of, name_of, source_of, takes_seed


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
        source = source_of(fn)
        log = as_log(log)
        function = digest_of(inspect.unwrap(fn))
        job.facts = {
            "sweep": known,
            "script": source,
            "function": function,
            **conditions.code(source),
        }
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
                outcomes[record["seed"]] = _outcome(record)
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
        recorder = self.options.recorder(seed, counted=False, **self.facts, **more)
        arguments: Any = [seed] if self.takes_seed == "first" else []
        named: Any = {"seed": seed} if self.takes_seed == "by name" else {}
        error = None
        try:
            with Scope(seed, self.options, recorder=recorder) as scope, _threads(self.threads):
                scope.note(value=_check_number(self.fn(*arguments, **named)))
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # SystemExit, asyncio's CancelledError
            error = "".join(traceback.format_exception(raised))
            recorder.begin()  # where the scope could not even be opened
        return {**recorder.end(), "error": error}


def _outcome(record: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a record of the run log, or of a `Job`, tells of."""
    error = record["error"]
    value = None if error else decode(record["notes"]["value"])
    return Outcome(record["seed"], value, error, record["duration"])


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
