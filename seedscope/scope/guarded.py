"""A `with` block that is left whatever happens, also if Ctrl-C comes as the block ends.

CPython delivers a signal that came during a block's last operation at the first instruction of
an `__exit__` in Python, before its `try`: that exit would be lost. A generator has no such gap. It
is resumed at a `yield`, which can lie inside a `try`. So the `__exit__` that `with` calls is a C
function that resumes a generator, the guard. `with` alone holds the guard. If an interrupt comes
where no `__exit__` is called any more, the guard is closed, and leaves the block.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ..support.compiler import opaque
from .open_scopes import release

if TYPE_CHECKING:
    from .block import Block


class Guarded:
    """A context manager whose exit no interrupt can skip.

    A subclass has an `__enter__` in Python: CPython 3.14 may deliver a signal right after one in C,
    outside of the `with`.
    """

    __slots__ = ()

    def entered(self) -> Block | None:
        """Return the open block that the next exit leaves, or None."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def __exit__(self, *raised: Any) -> None:
            """Leave the block, and restore what it has captured."""


class _Exit:
    """`__exit__`, made anew for each `with`, which looks it up before it enters."""

    @opaque
    def __get__(self, context: Guarded | None, owner: Any = None) -> Callable[..., None]:
        if context is None:
            return _exit  # `contextlib.ExitStack` asks the class
        is_ready: list[bool] = []
        guard = _guard(context, is_ready)
        next(guard)
        is_ready.append(True)
        # The way in C to hand three arguments to a generator: `max` calls `key` with the None and
        # with each of the three. All keys are equal, so that it returns the None.
        return functools.partial(max, None, key=guard.send)


if not TYPE_CHECKING:
    Guarded.__exit__ = _Exit()


def _exit(context: Guarded, *raised: Any) -> None:
    context.__exit__(*raised)


@opaque
def _guard(context: Guarded, is_ready: list[bool]) -> Generator[int, Any, None]:
    before = context.entered()
    block: Block | None = None
    error: BaseException | None = None
    try:
        yield 0  # the block runs, until a call sends the None
        yield 0  # the type
        error = yield 0
        yield 0  # the traceback
        block = context.entered()
        if block is None:
            raise RuntimeError(f"{context!r} was left without having been entered")
        block.leave(error)
    except BaseException as fault:
        if block is None:
            is_called = is_ready and not isinstance(fault, GeneratorExit)
            block = context.entered() if is_called else _entered_here(context, before)
        _insist(_give_the_turn_back if block is None else block.abandon)
        error = error or fault
        raise
    finally:
        if block is not None:
            block.end(error)
    yield 0
    while True:  # the same `__exit__`, called again by hand
        yield 0
        error = yield 0
        yield 0
        context.__exit__(None, error, None)
        yield 0


def _entered_here(context: Guarded, before: Block | None) -> Block | None:
    """Return the block that the `with` of a dropped guard has entered, or None."""
    block = context.entered()
    is_here = block is not None and block.thread in (None, threading.get_ident())
    return block if is_here and block is not before else None


def _give_the_turn_back() -> None:
    release(threading.get_ident())


def _insist(close: Callable[[], None]) -> None:
    """Call `close`, and again if more interrupts come meanwhile; a second call does no harm."""
    try:
        close()
    finally:
        try:
            close()
        finally:
            close()
