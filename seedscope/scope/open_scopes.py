"""The list of open blocks."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..support.forks import at_fork
from . import turns

if TYPE_CHECKING:
    from .block import Block
    from .position import Position


class ScopeConflictError(RuntimeError):
    """Two scopes would overlap: sources are process-wide, so both would give wrong results."""


# Outermost first. All belong to the thread that has the turn, except shared blocks and blocks
# that a forked child inherited: their thread is None.
_open_scopes: list[Block] = []

# In a forked child, the blocks of threads that have not lived on, until they are left.
_ending: list[Block] = []

_OF_BLOCKS = f"{__package__}.block"

# Returns None if no event loop runs in this thread, the usual case: 0.05 us, where the
# public `asyncio.current_task` raises, in 0.9 us.
_running_loop: Any = getattr(asyncio, "_get_running_loop", None)


def innermost_first() -> Iterator[Block]:
    return reversed([*_open_scopes])  # a copy: another thread may leave its block meanwhile


def of_opener(opener: Any) -> list[Block]:
    """Return the open blocks that `opener` has entered, the next to leave first.

    That is the innermost one; but a thread leaves its own before that of a borrower of its turn.
    """
    own = (None, threading.get_ident())
    found = [block for block in innermost_first() if block.opener is opener]
    return sorted(found, key=lambda block: block.thread not in own)


def open_at(position: Position, besides: Block | None = None) -> Block | None:
    """Return the innermost open block that resumes at `position`, `besides` one; or None."""
    course = position.course
    for block in innermost_first():
        is_at = block.position is position and block.course is course
        if is_at and block is not besides:
            return block
    return None


def is_listed(block: Block) -> bool:
    return block in _open_scopes


def entered_later(block: Block) -> list[Block]:
    """Return the open blocks that were entered after `block`."""
    scopes = [*_open_scopes]
    if not scopes or scopes[-1] is block or block not in scopes:
        return []
    return scopes[scopes.index(block) + 1 :]


def add(block: Block) -> None:
    """Make `block` the innermost open block.

    Raises:
        ScopeConflictError: another task holds a block over an `await`, so that the two blocks
            could interleave. The block of a decorated call cannot interleave: it is closed
            whenever the body is suspended.
    """
    if _open_scopes and block.opener is not None:
        outer = _open_scopes[-1]
        is_same_thread = outer.thread == block.thread  # else a backward has borrowed the turn
        if is_same_thread and outer.task not in (None, block.task):
            raise ScopeConflictError(_describe_conflict(block, threading.get_ident()))
    _open_scopes.append(block)


def remove(block: Block) -> None:
    """Take `block` off the list, if it is listed."""
    if block in _open_scopes:
        _open_scopes.remove(block)


def hold(block: Block, thread: int, waits: bool) -> None:
    """Reserve the opening of scopes for `thread`, once no other thread has scopes open.

    Raises:
        ScopeConflictError: another thread has scopes open, and `waits` is False.
    """
    holder = turns.take(thread, waits)
    if holder is not None:
        raise ScopeConflictError(_describe_conflict(block, holder))


def release(thread: int | None) -> None:
    """Let another thread open scopes, unless `thread`, the present one, still has scopes open."""
    if thread is None or any(block.thread == thread for block in [*_open_scopes]):
        return
    if not _is_joining():
        turns.give_back(thread)


def _is_joining() -> bool:
    """Return whether this thread is in the middle of an entry, whose block is not listed yet.

    In a signal handler, a finaliser or a forked child: that entry has the turn, and keeps it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_join" and frame.f_globals.get("__name__") == _OF_BLOCKS:
            return True
        frame = frame.f_back
    return False


def current_task() -> Any:
    """Return the asyncio task that runs in this thread, or None."""
    if _running_loop is not None:
        return None if _running_loop() is None else asyncio.current_task()
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _describe_conflict(block: Block, holder: int) -> str:
    held = next((other for other in innermost_first() if other.thread == holder), None)
    task = held.task if held else None
    names = [thread.name for thread in threading.enumerate() if thread.ident == holder]
    where = f"thread {names[0] if names else holder}" + (f", {task.get_name()}" if task else "")
    advice = (
        "Decorate the coroutine functions with @seeded(...) instead of holding a `with` over "
        "an await: the scope of a decorated function is open only while its body runs."
        if holder == threading.get_ident()
        else 'With threads="wait" this thread waits for the other thread. For a backward that runs '
        "in this thread, let the other thread wait: join() or result(). Or draw in forward() "
        "instead, and keep the result with ctx.save_for_backward()."
    )
    return (
        f"{block!r} cannot be entered: {held or 'another scope'!r} is open in {where}. Random "
        f"sources are process-wide, so the results of both would be wrong. {advice}"
    )


def _before_fork() -> None:
    # A child inherits a generator's lock as it is: wait until another thread's draw has ended. To
    # begin another draw, that thread needs the GIL, which this one holds until the fork. No copy of
    # the list: a block that is entered meanwhile counts too.
    for block in _open_scopes:
        if block.thread not in (None, threading.get_ident()):
            block.wait_for_draws()


def _after_fork_in_child() -> None:
    # Only the forking thread lives on, and may still leave its blocks. No thread owns the
    # inherited scopes, so that the child can open its own. The blocks of the other threads end
    # here: the child gets their outer state.
    ident = threading.get_ident()
    turns.after_fork_in_child(ident if turns.has(ident) and _is_joining() else None)
    _ending.extend(block for block in _open_scopes if block.thread not in (None, ident))
    failures: list[Exception] = []
    for block in reversed(_ending):
        try:
            block.close()
        except ScopeConflictError:
            pass  # a block inside of it lives on
        except Exception as error:
            failures.append(error)
    if _ending:
        random.seed()  # as Python does in each child, which would draw its siblings' numbers
    _ending.clear()
    for block in _open_scopes:
        block.after_fork_in_child()
    if failures:  # Python prints it
        raise ExceptionGroup("the blocks of other threads were left in a forked child", failures)


at_fork(_after_fork_in_child, _before_fork)
