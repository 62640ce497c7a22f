"""The gate: whether an open scope lets replacements run."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

from ..support.forks import at_fork

R = TypeVar("R")

_OFF, _WARN, _ERROR = 0, 1, 2  # of torch.get_deterministic_debug_mode()


class Probe(NamedTuple):
    """What a run of torch's own kernel under warnings changes, and its thread puts back."""

    thread: int
    filters: Any
    dropped: Any
    mode: int | None = None  # until it is known

    def undo(self) -> None:
        """Put everything back but a mode that was written meanwhile; can be repeated."""
        if self.mode is not None and torch.get_deterministic_debug_mode() == _WARN:
            torch.set_deterministic_debug_mode(self.mode)
        lists: tuple[Any, ...] = self.filters, warnings.filters  # `catch_warnings` makes a copy
        for filters in lists:
            if any(each is self.dropped for each in filters):
                filters.remove(self.dropped)


class Gate:
    """Whether operations are replaced. Kernels of all threads ask, and a scope's setting tells.

    Attributes:
        is_open: whether the innermost scope that decides has opened the gate.
        lock: held while torch's own kernels run under "warn", and while they are tried.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.lock: Any = threading.RLock()
        self._probe: Probe | None = None
        self._probes = 0  # so far

    def replaces(self) -> bool:
        """Return whether an operation that torch cannot repeat is replaced now, in this thread.

        Not if the program itself has switched deterministic algorithms off, or to warnings.
        """
        return self.is_open and self.undisturbed(torch.get_deterministic_debug_mode) == _ERROR

    def alert_stands(self) -> bool:
        """Return whether an alert that torch has raised is not that of a block of another thread.

        Such a block has opened since, or has closed again.
        """
        if self.is_open or self.undisturbed(torch.get_deterministic_debug_mode) == _OFF:
            return False
        return not self.is_open  # it may have opened just before the mode was strict

    def undisturbed(self, call: Callable[..., R], *args: Any) -> R:
        """Return what `call(*args)` returns while no other thread has switched torch to warnings.

        It is called again if one did so meanwhile. Nothing is held: whatever is raised here, by a
        signal's handler too, lets other threads go on.
        """
        while True:
            before = self._probes  # read first, and counted before a probe reads the mode
            if self._is_disturbed():
                time.sleep(0.0001)
                continue
            result = call(*args)
            if before == self._probes:
                return result

    def _is_disturbed(self) -> bool:
        return (probe := self._probe) is not None and probe.thread != threading.get_ident()

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
            outer = self._probe  # of this thread: a signal's handler may have called
            probe = Probe(threading.get_ident(), warnings.filters, dropped)
            try:
                self._probe, self._probes = probe, self._probes + 1
                # Read where other threads know of it: what they have written since, they repeat.
                probe = self._probe = probe._replace(mode=torch.get_deterministic_debug_mode())
                probe.filters.insert(0, dropped)
                torch.set_deterministic_debug_mode(_WARN)
                # A function in C++ gives its warnings to Python when it returns. The operation
                # itself has not: it was called from C++.
                torch.zeros((), device="cpu").apply_(note)
            finally:
                try:
                    probe.undo()
                finally:
                    try:  # again, if a signal's handler has raised in the first call
                        probe.undo()
                    finally:
                        self._probe = outer
        return results[0]

    def after_fork_in_child(self) -> None:
        """Undo the probe of a thread that the child does not have, and hold no lock of it."""
        if (probe := self._probe) and self._is_disturbed():
            probe.undo()
            self._probe = None
        self.lock = threading.RLock()


GATE = Gate()
at_fork(GATE.after_fork_in_child)


def is_alert(error: object) -> bool:
    """Return whether torch says that an operation has no deterministic implementation."""
    return "does not have a deterministic implementation" in str(error)
