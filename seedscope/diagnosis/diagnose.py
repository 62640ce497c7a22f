"""`diagnose`: which operation differs first between runs of one seed, and why."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..scope.options import Options
from ..seeds import check_seed
from ..support.compiler import opaque
from ..support.modes import Deterministic
from .explain import explain
from .modes import read_modes, write_modes
from .report import Report
from .runs import Program

_TRIES = 3


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
    operations of torch are compared bit for bit, then what `fn` returns and leaves. If they are
    equal, three runs without a trace are compared, which shows races that a trace hides. If runs
    differ, `fn` runs again to look at the operation: it is replayed on its own inputs, and what may
    help is tried. After the call every source, setting, module mode and what `restore` names are
    as before.

    Args:
        fn: the function. Bind arguments of its own that are named as those of `diagnose` by
            `functools.partial`.
        *args: its arguments.
        **kwargs: its arguments by name.
        seed: the seed of each run, in [0, 2**64).
        runs: the number of runs to compare, from 2 on.
        deterministic: the setting of the runs, as for `seeded`; `False` leaves the settings as
            they are.
        restore: what is put back before each run but the first: modules (with gradients, modes
            and parts), optimizers, whatever has `state_dict` and `load_state_dict`, tensors, NumPy
            arrays, generators of random numbers, and iterators among the arguments.

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
    called = (inspect.unwrap(fn), vars(type(fn)).get("__call__"))
    if any(is_kind(one) for is_kind in kinds for one in called):
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
    """Put back what the runs have changed: kept states, modes of modules and of the process."""
    modes = read_modes()
    training = [(module, module.training) for module in program.modules()]

    def put_back() -> None:
        try:
            program.kept.restore()
        finally:
            for module, mode in training:
                module.training = mode
            write_modes(modes)

    try:
        yield
    finally:
        _to_the_end(put_back)


def _to_the_end(function: Callable[[], None]) -> None:
    """Call a function; again if Ctrl-C came in its middle, and raise that at the end."""
    interrupt: KeyboardInterrupt | None = None
    for _ in range(_TRIES):
        try:
            function()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
