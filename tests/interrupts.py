"""Real signals that interrupt a block, and what must be as before right after each."""

from __future__ import annotations

import dis
import inspect
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import seedscope
from seedscope import snapshot
from seedscope.scope import turns
from seedscope.scope.open_scopes import _open_scopes
from seedscope.sources.watch import WATCH

# No signal comes at the NOP of a `try:`, which CPython leaves out of the `try` around it, nor at a
# `return`, which is outside of it: CPython looks for signals after a call, as it jumps back, and
# where a function begins or goes on. An error at a POP_EXCEPT would leave the exception that it
# ends in the thread for good, as the context of all later ones.
_QUIET = {dis.opmap.get(name) for name in ("NOP", "RETURN_VALUE", "RETURN_CONST", "POP_EXCEPT")}
_OF_STEPS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
PACKAGE = str(Path(seedscope.__file__).parent)

# Python 3.12 traces bytecodes from the first `settrace` after a frame has asked for them.
sys._getframe().f_trace_opcodes = True


class Fault(BaseException):
    """Like Ctrl-C: no `except Exception` stops it."""


class FaultAt:
    """Raises an error when the package executes its n-th line, or bytecode, from here.

    Args:
        place: n.
        error: the type of the error.
        event: "line" or "opcode".
        then: another error, which comes so many calls of the package later, and its type.
    """

    def __init__(
        self,
        place: int,
        error: type[BaseException] = Fault,
        *,
        event: str = "line",
        then: tuple[int, type[BaseException]] | None = None,
    ) -> None:
        self.left = place
        self.error = error
        self.event = event
        self.then = then
        self.errors = (error, then[1]) if then else (error,)
        self.where = ""
        self.came: list[str] = []
        self.told: list[str] = []  # what reached the caller, or Python has printed

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE) or self.left <= 0:
            return None
        frame.f_trace_opcodes = self.event == "opcode"
        if event == self.event and frame.f_code.co_code[frame.f_lasti] not in _QUIET:
            self.left -= 1
            if self.left == 0:
                if self.then is not None:
                    sys.setprofile(self._second)  # Python ends a trace that raises
                self._raise(self.error, frame)
        return self

    def _second(self, frame, event, argument):
        # CPython looks for signals where a function begins, and after a call of C; as a generator
        # goes on, too, but no `try` of the generator gets what a profiler raises there.
        is_step = event == "call" and frame.f_code.co_flags & _OF_STEPS
        if event not in ("call", "c_return") or is_step:
            return
        if frame.f_code.co_filename.startswith(PACKAGE):
            left, error = self.then
            self.then = left - 1, error
            if left == 1:
                self._raise(error, frame)

    def _raise(self, error, frame):
        where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_lasti}"
        self.where = f"{self.where} {where}".strip()
        raised = error(self.where)
        self.came.append(repr(raised))
        raise raised

    def run(self, action) -> bool:
        """Run the action, and return whether the fault happened before its end."""
        previous, hook = sys.gettrace(), sys.unraisablehook
        sys.unraisablehook = lambda ignored: self._tell(ignored.exc_value)
        sys.settrace(self)
        try:
            action()
        except self.errors as error:
            self._tell(error)
        finally:
            sys.settrace(previous)
            if self.then is not None:
                sys.setprofile(None)
                if hasattr(sys, "monitoring"):
                    # Python 3.13.0 traces no more what it ran under the profiler alone.
                    sys.monitoring.restart_events()
            sys.unraisablehook = hook
        return self.left <= 0

    def _tell(self, error: BaseException | None) -> None:
        while error is not None:
            self.told.append(repr(error))
            error = error.__context__


class Interrupted(NamedTuple):
    """The outcome of an attack.

    Attributes:
        signals: the number of signals whose interrupt reached the caller.
        swallowed: the number of interrupts that did not reach the caller.
        lost: what was not as before, for each interrupt after which something was not.
    """

    signals: int
    swallowed: int
    lost: list[tuple[str, ...]]


def not_as_before(before: Any, model: Any = None) -> tuple[str, ...]:
    """Return the names of what differs from `before`, a snapshot of outside of all blocks."""
    found = [*before.changed(snapshot())]
    found += ["open blocks"] * bool(_open_scopes)
    found += ["turn"] * (turns._present().thread is not None)
    found += ["watch"] * bool(WATCH.capture())
    found += ["gradients"] * (not torch.is_grad_enabled())
    if model is not None:
        found += ["modes"] * (not all(module.training for module in model.modules()))
    return tuple(found)


class Sender:
    """Sends SIGALRM to the process after a random time: by a timer, or from another thread."""

    def __init__(self, by_thread: bool) -> None:
        self.by_thread = by_thread
        self.asked = 0
        self.came = 0  # counted by the handler
        # Queues of C alone, and no lock below: an interrupt can leave a lock of Python held.
        self.delays: queue.SimpleQueue[float] = queue.SimpleQueue()
        if by_thread:
            threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        while True:
            time.sleep(self.delays.get())
            os.kill(os.getpid(), signal.SIGALRM)

    def start(self, delay: float) -> None:
        if self.by_thread:
            self.asked += 1
            self.delays.put(delay)
        else:
            signal.setitimer(signal.ITIMER_REAL, delay)

    def end(self) -> None:
        """Wait until no signal of this round can come any more."""
        if self.by_thread:
            while self.came < self.asked:
                time.sleep(1e-5)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0)


def attack(
    action: Callable[[], Any],
    signals: int,
    *,
    by_thread: bool = False,
    model: Any = None,
    seed: int = 0,
) -> Interrupted:
    """Interrupt `action`, at random times, until `signals` interrupts have reached the caller."""
    chance, sender = random.Random(seed), Sender(by_thread)

    def interrupt(*_: Any) -> None:
        sender.came += 1
        raise KeyboardInterrupt

    longest = 1.1 * min(_duration(action) for _ in range(5))
    before, lost, reached, late = snapshot(), [], 0, 0
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        while reached < signals:
            try:
                try:
                    sender.start(chance.uniform(1e-6, longest))
                    action()
                except KeyboardInterrupt:
                    reached += 1  # Python 3.12 may handle a signal a round later, and another below
                    if found := not_as_before(before, model):
                        lost.append(found)
                        _begin_anew(before, model)
                sender.end()
            except KeyboardInterrupt:
                late += 1
                sender.end()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return Interrupted(reached, sender.came - reached - late, lost)


def _duration(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _begin_anew(before: Any, model: Any) -> None:
    """Put back what was lost, so that the next interrupt is judged by itself."""
    for block in reversed([*_open_scopes]):
        block.close()
    turns.after_fork_in_child(None)
    WATCH.restore(False)
    torch.set_grad_enabled(True)
    if model is not None:
        model.train()
    before.restore()
