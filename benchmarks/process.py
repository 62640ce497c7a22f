"""A process that measures items one after another, and is killed when an item hangs."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from seedscope.costs.measurement import first_line
from seedscope.support.fresh_process import begin_process

from .items import Found, Slot

Measure = Callable[[Slot], Found]
_PATIENCE_S = 5.0
_LOOK_S = 0.2  # between two looks at a process that measures


class Died(Exception):
    """The process ended before it answered."""


class Hung(Exception):
    """The process did not answer in time."""


class Process:
    """A fresh interpreter, whose output goes to stderr.

    Call `end` also if `start` was interrupted: Python waits at its exit for a process left alive.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._theirs = context.Pipe()
        method = multiprocessing.get_start_method(allow_none=True)
        self._process = context.Process(target=_serve, args=(self._theirs, method))
        # One place: a process that sends without end then waits, and does not fill the memory.
        self._messages: queue.Queue[tuple[bool, Found] | None] = queue.Queue(1)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._process.start()
        self._theirs.close()  # so that the process's death closes the pipe
        self._reader.start()

    def wait(self, limit: float) -> None:
        """Wait until the process can measure; call this before each item.

        Raises:
            Died: the process could not start, or has lost its device through the last item.
            Hung: the process is not ready by `limit` on `time.monotonic()`.
        """
        self._receive(limit)

    def measure(self, measure: Measure, slot: Slot, limit: float) -> Found:
        """Return the result of `measure`; call `slot.keep` here with each partial result.

        Raises:
            Died: the process ended first.
            Hung: `measure` did not end by `limit`.
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
        """Kill the process, and every process that it has started."""
        if self._process.pid is not None:
            # The process leads its own group, which may outlive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            # A process that waits for a broken device cannot be killed, and is left behind.
            self._process.join(_PATIENCE_S)
        deadline = time.monotonic() + _PATIENCE_S
        while self._reader.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):  # the reader may wait for a place
                self._messages.get(timeout=_LOOK_S)
        self._connection.close()

    def _read(self) -> None:
        """Read in a separate thread, because a partial message blocks the reader for ever."""
        try:
            while True:
                self._messages.put(self._connection.recv())
        except Exception:  # the pipe ended, or a message is partial or does not unpickle
            self._messages.put(None)

    def _receive(self, limit: float) -> tuple[bool, Found]:
        wait_s = _LOOK_S
        while time.monotonic() < limit:
            try:
                received = self._messages.get(timeout=wait_s)
            except queue.Empty:
                if wait_s == _PATIENCE_S:
                    raise Died from None
                # A child of the process may hold the pipe open after the process's death.
                if not self._process.is_alive():
                    wait_s = _PATIENCE_S  # for messages that the reader still reads
                continue
            if received is None:
                raise Died
            return received
        raise Hung


def _serve(connection: Connection, method: str) -> None:
    """Measure, in the process, each item that the pipe delivers, until the pipe is closed."""
    me = os.getpid()
    os.setsid()  # before the process starts others, which must be killed with it
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
            if not isinstance(found, dict):
                raise TypeError(f"the item returned {found!r:.100}, and not what it found")
        except Exception as error:  # no error may cost the other items their time
            found = kept | {"failed": f"{type(error).__name__}: {first_line(error)}"}
        if os.getpid() != me:
            os._exit(1)  # a child that the item forked has returned here
        connection.send((True, found))
        _free()
    os._exit(0)  # without a call to the lost device


def _free() -> None:
    """Free the item's memory, which the next item or another process may need.

    Call this where no exception holds the memory any more.
    """
    gc.collect()
    is_running: Any = torch.cuda.is_initialized
    if is_running():
        with contextlib.suppress(RuntimeError):  # `_device_is_lost` finds a lost device next
            torch.cuda.empty_cache()


def _device_is_lost() -> bool:
    """Return whether this process can no longer use CUDA, as after an illegal access."""
    is_running: Any = torch.cuda.is_initialized
    if not is_running():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
