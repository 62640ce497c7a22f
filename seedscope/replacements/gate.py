"""The gate: whether an open scope lets replacements run."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..support.forks import at_fork

R = TypeVar("R")

_WARN, _ERROR = 1, 2  # of torch.get_deterministic_debug_mode()


class _Fork(threading.local):
    """Whether this thread holds the gate's lock over a fork."""

    holds = False


class Gate:
    """Whether operations are replaced. Kernels of all threads ask, and a scope's setting tells.

    Attributes:
        is_open: whether the innermost scope that decides has opened the gate.
        lock: held while torch's own kernels run under "warn", and while they are tried.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.lock: Any = threading.RLock()
        self._is_probing = False
        self._fork = _Fork()

    def replaces(self) -> bool:
        """Return whether an operation that torch cannot repeat is replaced now, in this thread.

        Not if the program itself has switched deterministic algorithms off, or to warnings.
        """
        if not self.is_open:
            return False
        mode = torch.get_deterministic_debug_mode()
        if mode == _WARN and self._is_probing:
            with self.lock:  # if another thread runs torch's own kernel, until it has
                mode = torch.get_deterministic_debug_mode()
        return mode == _ERROR

    def native(self, call: Callable[[], R], alert: str) -> R:
        """Return what `call` returns, in which torch's own kernels run, also those that differ.

        torch's warnings of that are dropped: those of `alert`, or all if it is empty.
        """
        # No `catch_warnings`: it would keep those of other threads, and undo what they do.
        told = rf".*{re.escape(alert)}.* does not have a deterministic implementation"
        dropped = ("ignore", re.compile(told, re.DOTALL), UserWarning, None, 0)
        results = []

        def note(value: float) -> float:
            results.append(call())
            return value

        with self.lock:
            before, filters = torch.get_deterministic_debug_mode(), warnings.filters
            try:
                filters.insert(0, dropped)  # type: ignore[attr-defined]
                self._is_probing = True
                torch.set_deterministic_debug_mode(_WARN)
                # A function in C++ gives its warnings to Python when it returns. The operation
                # itself has not: it was called from C++.
                torch.zeros((), device="cpu").apply_(note)
            finally:
                try:
                    torch.set_deterministic_debug_mode(before)
                finally:  # again, if a signal's handler has raised in the first call
                    torch.set_deterministic_debug_mode(before)
                    self._is_probing = False
                    _drop(dropped, filters)
                    if warnings.filters is not filters:  # another thread's `catch_warnings`
                        _drop(dropped, warnings.filters)
        return results[0]

    def before_fork(self) -> None:
        """Wait until no other thread has switched torch to warnings: the child would stay so."""
        self._fork.holds = self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        if self._fork.holds:
            self.lock.release()
            self._fork.holds = False

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self._fork.holds = False


GATE = Gate()
at_fork(GATE.after_fork_in_child, GATE.before_fork, GATE.after_fork_in_parent)


def _drop(entry: Any, filters: Any) -> None:
    if entry in filters:
        filters.remove(entry)


def is_alert(error: object) -> bool:
    """Return whether torch says that an operation has no deterministic implementation."""
    return "does not have a deterministic implementation" in str(error)
