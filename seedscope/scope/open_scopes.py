"""Which scopes are open, and which thread may open more."""

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
    """Two scopes would overlap that cannot both be right: the sources are process-wide."""


# Outermost first. All of them belong to the thread that holds them, except those that a
# forked child inherited, whose thread is None.
_open_scopes: list[Scope] = []

# The thread that may open scopes, under the one key "thread", and a lock for each thread
# that waits. Each step below is one operation on a dict, a list or a lock, so that neither
# another thread nor Ctrl-C comes in between: a `with lock:` can be left without its release.
_holder: dict[str, int] = {}
_waiting_threads: list[Any] = []

# Says without an exception that no event loop runs in this thread, which is nearly always
# so: 0.05 us, where the public `asyncio.current_task` raises in 0.9.
_running_loop: Any = getattr(asyncio, "_get_running_loop", None)


def innermost_first() -> Iterator[Scope]:
    return reversed(_open_scopes)


def is_listed(scope: Scope) -> bool:
    return scope in _open_scopes


def entered_later(scope: Scope) -> list[Scope]:
    """Return the scopes that were entered inside `scope` and are still open."""
    if not _open_scopes or _open_scopes[-1] is scope or scope not in _open_scopes:
        return []
    return _open_scopes[_open_scopes.index(scope) + 1 :]


def add(scope: Scope) -> None:
    """Make `scope` the innermost one.

    Raises:
        ScopeConflictError: its block could interleave with another task's, held over an
            `await`. The scope of a decorated call cannot: it is closed wherever its body
            is suspended.
    """
    if _open_scopes and scope.opener is not None:
        outer = _open_scopes[-1]
        if outer.thread is not None and outer.task not in (None, scope.task):
            raise ScopeConflictError(_describe_conflict(scope, outer.thread))
    _open_scopes.append(scope)


def remove(scope: Scope) -> None:
    """Take `scope` off the list, where it is on it."""
    if scope in _open_scopes:
        _open_scopes.remove(scope)


def hold(scope: Scope, thread: int, waits: bool) -> None:
    """Let `thread` alone open scopes, once no other does.

    Raises:
        ScopeConflictError: another thread has scopes open, and `scope` does not wait.
    """
    while (holder := _holder.setdefault("thread", thread)) != thread:
        if not waits:
            raise ScopeConflictError(_describe_conflict(scope, holder))
        woken = threading.Lock()
        woken.acquire()
        _waiting_threads.append(woken)
        if "thread" in _holder:  # asked after the lock is listed, so no release is missed
            woken.acquire()


def is_held_by(thread: int) -> bool:
    return _holder.get("thread") == thread


def release(thread: int | None) -> None:
    """Let another thread open scopes, unless `thread` still has some open."""
    if _holder.get("thread") != thread or any(scope.thread == thread for scope in _open_scopes):
        return
    _holder.pop("thread", None)
    while _waiting_threads:
        with contextlib.suppress(IndexError):  # another thread was faster
            _waiting_threads.pop().release()


def current_task() -> Any:
    """Return the asyncio task that runs in this thread, None without one."""
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
        "an await: a decorated one has its scope open only while its body runs."
        if holder == threading.get_ident()
        else 'threads="wait" lets it wait for the other thread. In the backward of an autograd '
        "function, which may run in another thread, draw in forward() instead and keep the "
        "result with ctx.save_for_backward()."
    )
    return (
        f"{scope!r} cannot be entered: {held or 'another'!r} is open in {where}. Random sources "
        f"are process-wide, so the results of both would be wrong. {advice}"
    )


def _after_fork_in_child() -> None:
    # The forking thread may still be inside its blocks and leave them; all other threads
    # are gone. What was inherited is nobody's, so that the child can open its own.
    _holder.clear()
    _waiting_threads.clear()
    ident = threading.get_ident()
    _open_scopes[:] = [scope for scope in _open_scopes if scope.thread in (None, ident)]
    for scope in _open_scopes:
        scope.thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
