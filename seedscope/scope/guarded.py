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
    found: list[Block] = []  # what is to be left, found once: the next may be an outer block
    error: BaseException | None = None
    try:
        yield 0  # the block runs, until a call sends the None
        yield 0  # the type
        error = yield 0
        yield 0  # the traceback
        _find(context, found)
        found[0].leave(error)
    except BaseException as fault:
        own = None if is_ready and not isinstance(fault, GeneratorExit) else [before]
        try:
            _undo(context, found, own)
        finally:  # again: a second interrupt may come there, and a third
            try:
                _undo(context, found, own)
            finally:
                _undo(context, found, own)
        error = error or fault
        raise
    finally:
        for block in found:
            block.end(error)
    yield 0
    while True:  # the same `__exit__`, called again by hand
        yield 0
        error = yield 0
        yield 0
        context.__exit__(None, error, None)
        yield 0


def _find(context: Guarded, found: list[Block]) -> None:
    block = context.entered()
    if block is None:
        raise RuntimeError(f"{context!r} was left without having been entered")
    found.append(block)


def _undo(context: Guarded, found: list[Block], without: list[Block | None] | None) -> None:
    """Leave the block that is open; another call does what an interrupt has left undone.

    `without` is None if an exit was called. Else the guard was dropped: it leaves neither these
    blocks, which were open before, nor those of another thread, which uses the same context.
    """
    if not found and (block := context.entered()) is not None:
        is_here = block.thread in (None, threading.get_ident())
        if without is None or (block not in without and is_here):
            found.append(block)
    for block in found:
        block.close()
    if not found:
        release(threading.get_ident())
