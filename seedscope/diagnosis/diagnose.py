"""`diagnose`: which operation differs first between runs of one seed, and why."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..scope.options import Options
from ..seeds import check_seed
from ..support.compiler import opaque
from ..support.modes import Deterministic
from .explain import explain
from .report import Report
from .runs import Program


@opaque
def diagnose(
    fn: Callable[..., Any],
    *args: Any,
    seed: int,
    runs: int = 2,
    deterministic: Deterministic = False,
    restore: Iterable[Any] = (),
    **kwargs: Any,
) -> Report:
    """Return a report that names the first operation that differs between runs, and why.

    `fn(*args, **kwargs)` runs several times, each time in `seeded(seed)`. The results of all
    operations of torch are compared bit for bit, then what `fn` returns. If runs differ, `fn`
    runs again to look at the operation: it is replayed on its own inputs, and what may help is
    tried. After the call every source, setting, module mode and what `restore` names are as
    before.

    Args:
        fn: the function. Bind arguments of its own that are named as those of `diagnose` by
            `functools.partial`.
        *args: its arguments.
        **kwargs: its arguments by name.
        seed: the seed of each run, in [0, 2**64).
        runs: the number of runs to compare, from 2 on.
        deterministic: the setting of the runs, as for `seeded`; `False` leaves the settings as
            they are.
        restore: what is put back before each run: modules (with gradients and modes), optimizers,
            whatever has `state_dict` and `load_state_dict`, tensors, NumPy arrays, generators of
            random numbers, and iterators among the arguments.

    Raises:
        TypeError: `fn` is a coroutine or generator function, or `restore` has something that
            cannot be kept. Nothing was run.
        ValueError: the seed or the number of runs is out of range.
    """
    _check(fn, runs, restore)
    Options(deterministic)  # refuses another value
    program = Program(fn, args, kwargs, check_seed(seed), restore, deterministic)
    with _put_back(program):
        found = [program.run(f"run {number} of {runs}") for number in range(1, runs + 1)]
        return explain(program, found)


@opaque
def assert_reproducible(fn: Callable[..., Any], *args: Any, seed: int, **options: Any) -> Report:
    """Return the report of `diagnose`, with the same arguments, if all runs are equal.

    For a test in one line: `assert_reproducible(train_step, model, batch, seed=1029)`.

    Raises:
        AssertionError: the runs differ, or one raised; its argument is the report.
    """
    report = diagnose(fn, *args, seed=seed, **options)
    if not report.reproducible:
        raise AssertionError(report)
    return report


def _check(fn: Any, runs: Any, restore: Any) -> None:
    if not callable(fn):
        raise TypeError(f"fn must be a function, got {fn!r:.100}")
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(inspect.unwrap(fn)) for is_kind in kinds):
        raise TypeError(
            f"{fn!r:.100} is a coroutine or generator function: give a function that runs it to "
            "its end"
        )
    if type(runs) is not int or runs < 2:
        raise ValueError(f"runs must be an integer from 2 on, got {runs!r:.100}")
    if not isinstance(restore, (list, tuple)):
        raise TypeError(f"restore must be a list, such as [model, optimizer]; got {restore!r:.100}")


@contextmanager
def _put_back(program: Program) -> Iterator[None]:
    """Put back what the runs have changed: kept states, modes of modules, the number of threads."""
    threads = torch.get_num_threads()
    modes = [(module, module.training) for module in program.modules()]
    try:
        yield
    finally:
        program.kept.restore()
        for module, training in modes:
            module.training = training
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
