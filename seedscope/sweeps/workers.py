"""Run the seeds in this process or on an executor."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from ..sources.watch import WATCH
from ..support.forks import at_fork
from ..support.remarks import warn
from .job import Job


def run_all(job: Job, seeds: list[int], executor: Executor | None) -> Iterator[dict[str, Any]]:
    """Yield the record of each seed when its run ends."""
    if executor is None:
        for seed in seeds:
            yield job(seed)
        return
    with WATCH.expecting_processes():  # each seed has a scope of its own there
        yield from _run_on(executor, job, seeds)


def _run_on(executor: Executor, job: Job, seeds: list[int]) -> Iterator[dict[str, Any]]:
    threads: dict[str, set[int]] = {}
    futures = []
    try:
        # In the `try`, since an executor may start, and fail, at the first seed.
        futures = [executor.submit(_run_away, job, seed) for seed in seeds]
        for future in as_completed(futures):
            record, thread = future.result()
            used = threads.setdefault(record["process"], set())
            used.add(thread)
            if len(used) == 2:
                warn_of_threads(f"in process {record['process']}")
            yield record
    finally:
        for future in futures:
            future.cancel()


# In a forked worker: the only thread that runs seeds.
_fresh_thread: ThreadPoolExecutor | None = None


def _after_fork_in_child() -> None:
    global _fresh_thread
    _fresh_thread = ThreadPoolExecutor(1)


at_fork(_after_fork_in_child)


def _run_away(job: Job, seed: int) -> tuple[dict[str, Any], int]:
    """Run a seed in a worker; return the record and the thread that received the task."""
    # A forked thread inherits OpenMP's record of threads that do not exist in the child: its
    # next parallel operation would wait for them forever. A new thread has its own record.
    run = _apart_from_other_threads
    if _fresh_thread is not None:
        return _fresh_thread.submit(run, job, seed).result(), threading.get_ident()
    return run(job, seed), threading.get_ident()


def _apart_from_other_threads(job: Job, seed: int) -> dict[str, Any]:
    """Run a seed while all other threads of the worker draw from separate generators.

    For example, the heartbeat of a Dask worker draws with `random.sample`, in another thread
    than the task's.
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


def warn_of_threads(where: str) -> None:
    warn(
        f"random sources are process-wide, so seeds that share a process ran {where} one after "
        "another; to run seeds in parallel, use an executor with one thread per process",
        stacklevel=3,
    )
