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
import weakref
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

    def entered(self) -> list[Block]:
        """Return the open blocks that exits leave, that of the next exit first."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def __exit__(self, *raised: Any) -> None:
            """Leave the block, and restore what it has captured."""


class _Entries(threading.local):
    latest: Callable[[], _Entry | None] = staticmethod(lambda: None)


_entries = _Entries()


def fail(*contexts: Guarded | None) -> None:
    """Spare the guard of one of `contexts`, whose entry fails, the end of it.

    `with` drops that guard. What Ctrl-C raises in a generator that is dropped, Python prints, and
    goes on.
    """
    entry = _entries.latest()
    if entry is not None and not entry.is_leaving and entry.context in contexts:
        entry.has_failed = not entry.left_by(is_called=False)  # it may guard an earlier entry


class _Exit:
    """`__exit__`, made anew for each `with`, which looks it up before it enters."""

    @opaque
    def __get__(self, context: Guarded | None, owner: Any = None) -> Callable[..., None]:
        if context is None:
            return _exit  # `contextlib.ExitStack` asks the class
        entry = _Entry(context)
        _entries.latest = weakref.ref(entry)
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
        entry.is_leaving = True
        entry.has_failed = False  # an entry by hand that was tried again
        yield 0  # the type
        error = yield 0
        yield 0  # the traceback
        entry.leave(error)
    except BaseException as fault:
        if entry.has_failed:
            raise
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
            if not entry.has_failed:
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

    __slots__ = (
        "__weakref__",
        "before",
        "block",
        "context",
        "has_failed",
        "is_guarded",
        "is_leaving",
    )

    def __init__(self, context: Guarded) -> None:
        self.context = context
        self.before: list[Block] = context.entered()
        self.is_guarded = False
        self.is_leaving = False  # whether the exit was called
        self.has_failed = False  # and has left nothing to undo
        self.block: Block | None = None  # found once: the next may be an outer one

    def leave(self, error: BaseException | None) -> None:
        entered = self.context.entered()
        if not entered:
            raise RuntimeError(f"{self.context!r} was left without having been entered")
        self.block = entered[0]
        self.block.leave(error)

    def end(self, error: BaseException | None) -> None:
        if self.block is not None:
            self.block.end(error)

    def undo(self, fault: BaseException) -> None:
        """Leave the block that is open; another call does what an interrupt has left undone."""
        is_called = self.is_guarded and not isinstance(fault, GeneratorExit)
        if self.block is None:
            self.block = next(iter(self.left_by(is_called)), None)
        if self.block is None:
            release(threading.get_ident())
            return
        try:
            if is_called and self.block.is_open and not self.block.is_closing:
                self.block.leave(fault)  # so that a stream goes on from here
        finally:
            self.block.close()

    def left_by(self, is_called: bool) -> list[Block]:
        """Return the blocks that a call leaves, or a guard that is dropped without one."""
        found = self.context.entered()
        if is_called:
            return found
        # Neither one that was open before, nor that of another thread with the same context.
        own = (None, threading.get_ident())
        return [block for block in found if block not in self.before and block.thread in own]
