"""Real signals that interrupt a block, and what must be as before right after each."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from seedscope import snapshot
from seedscope.scope import turns
from seedscope.scope.open_scopes import _open_scopes
from seedscope.sources.watch import WATCH


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
    found += ["turn"] * bool(turns._holder)
    found += ["watch"] * bool(WATCH.capture())
    found += ["gradients"] * (not torch.is_grad_enabled())
    if model is not None:
        found += ["modes"] * (not all(module.training for module in model.modules()))
    return tuple(found)


class Sender:
    """Sends SIGALRM to the process after a random time: by a timer, or from another thread."""

    def __init__(self, by_thread: bool) -> None:
        self.by_thread = by_thread
        self.delay: float | None = None
        self.wanted, self.sent = threading.Event(), threading.Event()
        if by_thread:
            threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        while True:
            self.wanted.wait()
            self.wanted.clear()
            time.sleep(self.delay or 0)
            os.kill(os.getpid(), signal.SIGALRM)
            self.sent.set()

    def start(self, delay: float) -> None:
        if self.by_thread:
            self.delay = delay
            self.wanted.set()
        else:
            signal.setitimer(signal.ITIMER_REAL, delay)

    def end(self) -> None:
        """Wait until no signal of this round can come any more."""
        if self.by_thread:
            self.sent.wait()
            self.sent.clear()
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
    came = 0

    def interrupt(*_: Any) -> None:
        nonlocal came
        came += 1
        raise KeyboardInterrupt

    chance, sender = random.Random(seed), Sender(by_thread)
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
                    if found := not_as_before(before, model):
                        lost.append(found)
                        _begin_anew(before, model)
                    reached += 1
                sender.end()
            except KeyboardInterrupt:
                late += 1
                sender.end()
    finally:
        signal.signal(signal.SIGALRM, previous)
    return Interrupted(reached, came - reached - late, lost)


def _duration(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _begin_anew(before: Any, model: Any) -> None:
    """Put back what was lost, so that the next interrupt is judged by itself."""
    for block in reversed([*_open_scopes]):
        block.close(again=True)
    turns._holder.clear()
    torch.set_grad_enabled(True)
    if model is not None:
        model.train()
    before.restore()


if __name__ == "__main__":
    import interrupted_blocks

    names = sys.argv[2:] or [*interrupted_blocks.ACTIONS]
    for name in names:
        for by_thread in (False, True):
            found = attack(
                interrupted_blocks.ACTIONS[name],
                int(sys.argv[1]),
                by_thread=by_thread,
                model=interrupted_blocks.MODEL,
            )
            kinds = {what: found.lost.count(what) for what in found.lost}
            print(f"{name:28} {'thread' if by_thread else 'timer':7}", end="")
            print(found.signals, found.swallowed, len(found.lost), kinds, flush=True)
