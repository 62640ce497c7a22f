"""The list of open scopes, and the thread that may open more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scope import Scope


class ScopeConflictError(RuntimeError):
    """Two scopes would overlap: sources are process-wide, so both would give wrong results."""


# Outermost first. All belong to the thread in `_holder`, except shared scopes and scopes
# that a forked child inherited: their thread is None.
_open_scopes: list[Scope] = []

# `_holder` has the thread that may open scopes, under its only key "thread";
# `_waiting_threads` has a lock for each thread that waits. Each step below is a single
# operation on a dict, a list or a lock, so that neither another thread nor Ctrl-C can
# interrupt the step: Ctrl-C can leave a `with lock:` without releasing the lock.
_holder: dict[str, int] = {}
_waiting_threads: list[Any] = []

# Returns None if no event loop runs in this thread, the usual case: 0.05 us, where the
# public `asyncio.current_task` raises, in 0.9 us.
_running_loop: Any = getattr(asyncio, "_get_running_loop", None)


def innermost_first() -> Iterator[Scope]:
    return reversed(_open_scopes)


def is_listed(scope: Scope) -> bool:
    return scope in _open_scopes


def entered_later(scope: Scope) -> list[Scope]:
    """Return the open scopes that were entered after `scope`."""
    if not _open_scopes or _open_scopes[-1] is scope or scope not in _open_scopes:
        return []
    return _open_scopes[_open_scopes.index(scope) + 1 :]


def add(scope: Scope) -> None:
    """Make `scope` the innermost open scope.

    Raises:
        ScopeConflictError: another task holds a block over an `await`, so that the two blocks
            could interleave. The scope of a decorated call cannot interleave: the scope is
            closed whenever the body is suspended.
    """
    if _open_scopes and scope.opener is not None:
        outer = _open_scopes[-1]
        if outer.thread is not None and outer.task not in (None, scope.task):
            raise ScopeConflictError(_describe_conflict(scope, outer.thread))
    _open_scopes.append(scope)


def remove(scope: Scope) -> None:
    """Take `scope` off the list of open scopes, if it is listed."""
    if scope in _open_scopes:
        _open_scopes.remove(scope)


def hold(scope: Scope, thread: int, waits: bool) -> None:
    """Reserve the opening of scopes for `thread`, once no other thread has scopes open.

    Raises:
        ScopeConflictError: another thread has scopes open, and `waits` is False.
    """
    while (holder := _holder.setdefault("thread", thread)) != thread:
        if not waits:
            raise ScopeConflictError(_describe_conflict(scope, holder))
        woken = threading.Lock()
        woken.acquire()
        _waiting_threads.append(woken)
        if "thread" in _holder:  # checked after listing the lock, so that no release is missed
            woken.acquire()


def is_held_by(thread: int) -> bool:
    return _holder.get("thread") == thread


def release(thread: int | None) -> None:
    """Let another thread open scopes, unless `thread` still has scopes open."""
    if _holder.get("thread") != thread or any(scope.thread == thread for scope in _open_scopes):
        return
    _holder.pop("thread", None)
    while _waiting_threads:
        with contextlib.suppress(IndexError):  # another thread was faster
            _waiting_threads.pop().release()


def current_task() -> Any:
    """Return the asyncio task that runs in this thread, or None."""
    if _running_loop is not None and _running_loop() is None:
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def _describe_conflict(scope: Scope, holder: int) -> str:
    held = next((other for other in innermost_first() if other.thread == holder), None)
    task = held.task if held else None
    names = [thread.name for thread in threading.enumerate() if thread.ident == holder]
    where = f"thread {names[0] if names else holder}" + (f", {task.get_name()}" if task else "")
    advice = (
        "Decorate the coroutine functions with @seeded(...) instead of holding a `with` over "
        "an await: the scope of a decorated function is open only while its body runs."
        if holder == threading.get_ident()
        else 'With threads="wait" this thread waits for the other thread. The backward of an '
        "autograd function may run in another thread: draw in forward() instead, and keep the "
        "result with ctx.save_for_backward()."
    )
    return (
        f"{scope!r} cannot be entered: {held or 'another scope'!r} is open in {where}. Random "
        f"sources are process-wide, so the results of both would be wrong. {advice}"
    )


def _after_fork_in_child() -> None:
    # Only the forking thread lives on, and may still leave its blocks. No thread owns the
    # inherited scopes, so that the child can open its own.
    _holder.clear()
    ident = threading.get_ident()
    _open_scopes[:] = [scope for scope in _open_scopes if scope.thread in (None, ident)]
    for scope in _open_scopes:
        scope.thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
