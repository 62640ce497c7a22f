"""A process that measures items one after another, and is killed when one of them hangs."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from seedscope.costs import begin_process, first_line

from .items import Found, Slot

Measure = Callable[[Slot], Found]
_PATIENCE_S = 5.0
_LOOK_S = 0.2  # between two looks at a process that measures


class Died(Exception):
    """The process ended before it had answered."""


class Hung(Exception):
    """The process did not answer in time."""


class Process:
    """A fresh interpreter. What it prints goes to stderr."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        method = multiprocessing.get_start_method(allow_none=True)
        self._process = context.Process(target=_serve, args=(theirs, method))
        self._process.start()
        theirs.close()  # so that its death closes the pipe

    def wait(self, limit: float) -> None:
        """Return when it can measure; to be called before each item.

        Raises:
            Died: it could not start, or the last item has cost it its device.
            Hung: it is not ready by `limit` on `time.monotonic()`.
        """
        self._receive(limit)

    def measure(self, measure: Measure, slot: Slot, limit: float) -> Found:
        """Return what `measure` finds, by `limit`; `slot.keep` is called here.

        Raises:
            Died: the process ended first.
            Hung: it was not done in time.
        """
        try:
            self._connection.send((measure, slot.until, slot.before))
        except BrokenPipeError:
            raise Died from None
        while True:
            is_last, found = self._receive(limit)
            if is_last:
                return found
            slot.keep(found)

    def end(self) -> None:
        """Kill it, and every process that it has started."""
        # It leads a group of its own, which may outlive it.
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        # One that waits for a broken device cannot be killed: it is left behind.
        self._process.join(_PATIENCE_S)
        self._connection.close()

    def _receive(self, limit: float) -> tuple[bool, Found]:
        while True:
            if time.monotonic() >= limit:  # first, for one that tells without end
                raise Hung
            if self._connection.poll(_LOOK_S):
                break
            # A child of its own may hold the pipe open: whether it lives is asked for besides.
            if not self._process.is_alive() and not self._connection.poll():
                raise Died
        try:
            received: tuple[bool, Found] = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise Died from None
        return received


def _serve(connection: Connection, method: str) -> None:
    """What the process does: measure what it receives until the pipe is closed."""
    os.setsid()  # before anything is started that has to be killed with it
    begin_process(method, on_orphaned=lambda: os.killpg(0, signal.SIGKILL))
    while not _device_is_lost():
        connection.send((True, {}))  # ready
        try:
            measure, until, before = connection.recv()
        except EOFError:
            return
        kept: Found = {}

        def keep(found: Found, kept: Found = kept) -> None:
            kept.update(found)
            connection.send((False, found))

        try:
            found = measure(Slot(until, keep, before))
        except Exception as error:  # whatever it is, it must not cost the other items their time
            found = kept | {"failed": f"{type(error).__name__}: {first_line(error)}"}
        connection.send((True, found))
        _free()
    os._exit(0)  # without asking the lost device for anything


def _free() -> None:
    """Give back what the item has taken: the next one, or another process, may need it.

    Here no exception holds it any more.
    """
    gc.collect()
    is_running: Any = torch.cuda.is_initialized
    if is_running():
        with contextlib.suppress(RuntimeError):  # a lost device is found out next
            torch.cuda.empty_cache()


def _device_is_lost() -> bool:
    """Whether CUDA is of no use to this process any more, as after an illegal access."""
    is_running: Any = torch.cuda.is_initialized
    if not is_running():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
