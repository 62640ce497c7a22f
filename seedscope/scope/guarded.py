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
        entry = _Entry(context)
        guard = _guard(entry)
        try:
            next(guard)
            entry.is_guarded = True
            # The way in C to hand three arguments to a generator: `max` calls `key` with the None
            # and with each of the three. All keys are equal, so that it returns the None.
            return functools.partial(max, None, key=guard.send)
        except BaseException:
            # The traceback may keep the guard for long, whose end would leave a later block.
            guard.close()
            raise


if not TYPE_CHECKING:
    Guarded.__exit__ = _Exit()


def _exit(context: Guarded, *raised: Any) -> None:
    context.__exit__(*raised)


@opaque
def _guard(entry: _Entry) -> Generator[int, Any, None]:
    error: BaseException | None = None
    try:
        yield 0  # the block runs, until a call sends the None
        yield 0  # the type
        error = yield 0
        yield 0  # the traceback
        entry.leave(error)
    except BaseException as fault:
        error = fault if error is None else error
        try:
            entry.undo(fault)
        finally:  # again: a second interrupt may come there, and a third
            try:
                entry.undo(fault)
            finally:
                entry.undo(fault)
        raise
    finally:
        try:
            entry.end(error)
        except BaseException:
            entry.end(error)  # what an interrupt has left undone
            raise
        error = None  # it has this frame in its traceback
    yield 0
    while True:  # the same `__exit__`, called again by hand
        yield 0
        error = yield 0
        yield 0
        entry.context.__exit__(None, error, None)
        yield 0


class _Entry:
    """What one `with` has entered, and how that is left."""

    __slots__ = ("before", "block", "context", "is_guarded")

    def __init__(self, context: Guarded) -> None:
        self.context = context
        self.before: Block | None = context.entered()
        self.is_guarded = False
        self.block: Block | None = None  # found once: the next may be an outer one

    def leave(self, error: BaseException | None) -> None:
        block = self.block = self.context.entered()
        if block is None:
            raise RuntimeError(f"{self.context!r} was left without having been entered")
        block.leave(error)

    def end(self, error: BaseException | None) -> None:
        if self.block is not None:
            self.block.end(error)

    def undo(self, fault: BaseException) -> None:
        """Leave the block that is open; another call does what an interrupt has left undone."""
        is_called = self.is_guarded and not isinstance(fault, GeneratorExit)
        if self.block is None and (block := self.context.entered()) is not None:
            # A guard that is dropped leaves neither a block that was open before, nor that of
            # another thread, which uses the same context.
            is_own = block is not self.before and block.thread in (None, threading.get_ident())
            self.block = block if is_called or is_own else None
        if self.block is None:
            release(threading.get_ident())
            return
        try:
            if is_called and self.block.is_open and not self.block.is_closing:
                self.block.leave(fault)  # so that a stream goes on from here
        finally:
            self.block.close()
