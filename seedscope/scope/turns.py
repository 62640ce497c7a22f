"""The turn: which thread may open scopes, and a backward that borrows it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

from ..support.garbage import uncollected
from ..support.torch_internals import current_backward


class _Turn:
    """The turn of the thread that may open scopes. Another one follows it.

    Attributes:
        thread: the thread, or None if the turn is nobody's.
        lender: the turn that the thread's backward has borrowed, of a thread that waits for it.
        place: where the lender waits, to see at the end that it still does; None if it cannot go
            on before the thread has ended.
        has_ended: whether the thread has left its blocks while its turn was lent.
        next: the turn that follows, under the only key None.
    """

    __slots__ = ("has_ended", "lender", "next", "place", "thread")

    def __init__(
        self,
        thread: int | None = None,
        lender: _Turn | None = None,
        place: tuple[FrameType, int] | None = None,
        has_ended: bool = False,
    ) -> None:
        self.thread = thread
        self.lender = lender
        self.place = place
        self.has_ended = has_ended
        self.next: dict[None, _Turn] = {}

    def is_followed_by(self, turn: _Turn) -> bool:
        """Let `turn` follow, and return True; return False if another one does.

        In a single operation on a dict: neither another thread nor Ctrl-C nor the scope of a signal
        handler can come between the look and the change. Ctrl-C can leave a lock held.
        """
        return self.next.setdefault(None, turn) is turn


_known = _Turn()  # from here the present turn is found

# A lock for each thread that waits. Ctrl-C can lose a release: a thread looks again after a while.
_waiting_threads: list[Any] = []
_LONGEST_SLEEP_S = 0.05

# The modules of the function that a thread runs while it waits.
_ENGINE = ("torch.autograd", "torch.autograd.graph")
_WAITING = ("threading", "concurrent.futures._base", "concurrent.futures.thread")


def take(thread: int, waits: bool) -> int | None:
    """Reserve the turn for `thread`, once no other thread has it.

    Return None, or the thread that has the turn if it is another one and `waits` is False.
    A backward borrows the turn of a thread that waits for the backward.
    """
    turn: _Turn | None = None
    try:
        while (turn := _present()).thread != thread:
            if turn.thread is None:
                turn.is_followed_by(_Turn(thread))
                continue
            if current_backward() >= 0:
                if _borrow(thread, turn):
                    continue
                # On several GPUs the parts of a backward run at once, and must not meet here.
                is_refused = turn.lender is None
            else:
                is_refused = True
            if is_refused and not waits:
                if turn.next:  # it has lost its lender, at its end
                    continue
                return turn.thread
            _sleep_during(turn)
        return None
    finally:
        turn = None  # in a traceback it would keep all turns that follow


def has(thread: int) -> bool:
    return _present().thread == thread


def give_back(thread: int) -> None:
    """Let another thread take the turn; a borrowed turn goes back to its lender.

    Raises:
        RuntimeError: the lender has gone on, so that both may have drawn from the sources.
    """
    while (turn := _present()).thread is not None:
        if turn.thread == thread:
            if turn.is_followed_by(_after(turn)):
                break
        else:
            marked = _with_the_end_of(thread, turn)
            if marked is turn or turn.is_followed_by(marked):
                return
    # Also if nobody has the turn: Ctrl-C may have come here at the first try.
    while _waiting_threads:
        with contextlib.suppress(IndexError):  # another thread was faster
            _waiting_threads.pop().release()
    if turn.lender is None:
        return
    lender, place = turn.lender.thread, turn.place
    turn.lender = turn.place = None  # they would live in a cycle
    del turn
    if place is not None and place != _place(lender):
        raise RuntimeError(
            f"thread {lender} went on with its block while a backward in thread {thread} "
            "drew from the same sources, so the results of both may be wrong: let the thread that "
            "holds the block wait for the backward"
        )


def _present() -> _Turn:
    """Return the present turn."""
    global _known
    turn = _known
    while turn.next:
        turn = turn.next[None]
    _known = turn
    return turn


def _after(turn: _Turn) -> _Turn:
    """Return the turn that follows at the end of `turn`: that of its lender, or nobody's."""
    lender = turn.lender
    while lender is not None and lender.has_ended:
        lender = lender.lender
    return _Turn() if lender is None else _Turn(lender.thread, lender.lender, lender.place)


def _sleep_during(turn: _Turn) -> None:
    """Sleep until another thread gives the turn back, or a short time."""
    woken = threading.Lock()
    try:
        woken.acquire()
        _waiting_threads.append(woken)
        if not turn.next:  # checked after listing the lock, so that no release is missed
            woken.acquire(timeout=_LONGEST_SLEEP_S)
    finally:
        del turn
        with contextlib.suppress(ValueError):  # released, as a rule
            _waiting_threads.remove(woken)


def _with_the_end_of(thread: int, turn: _Turn) -> _Turn:
    """Return a turn whose lender `thread` has left its blocks; `turn` itself if it has none."""
    if turn.thread == thread:
        return _Turn(thread, turn.lender, turn.place, has_ended=True)
    lender = None if turn.lender is None else _with_the_end_of(thread, turn.lender)
    return turn if lender is turn.lender else _Turn(turn.thread, lender, turn.place, turn.has_ended)


def _borrow(thread: int, turn: _Turn) -> bool:
    """Borrow the turn for a backward, if its thread waits for it. Return False if it does not."""
    try:
        place = None
        if _calls_backward(sys._getframe()):
            place = _place_of_waiting(turn)  # for this thread's backward, as after `start()`
            if place is None:
                return bool(turn.next)  # the turn has passed on: try again
        else:
            # The engine runs the nodes of a GPU in threads of its own, while the thread that called
            # `backward()` waits in the engine for the nodes of all threads.
            frame = _frame_of(turn.thread)
            if frame is None or not _calls_backward(frame):
                return False
            if frame.f_globals.get("__name__") not in _ENGINE:
                time.sleep(0.001)
                return True  # the thread with the turn runs a node, too: the caller tries again
        turn.is_followed_by(_Turn(thread, turn, place))
        return True
    finally:
        del turn


def _place_of_waiting(turn: _Turn) -> tuple[FrameType, int] | None:
    """Return where the thread that has the turn waits for another thread; None if it does not.

    A thread that has just started this one needs a moment until it waits.
    """
    try:
        for _ in range(200):
            if turn.next:
                return None
            place = _place(turn.thread)
            time.sleep(0.005)
            if place is not None and _place(turn.thread) == place and _is_waiting(place[0]):
                return place
        return None
    finally:
        del turn


def _is_waiting(frame: FrameType | None) -> bool:
    names = []
    while frame is not None and frame.f_globals.get("__name__") in _WAITING:
        names.append(frame.f_code.co_name)
        frame = _caller(frame)
    # `Thread.start` waits only until the new thread runs.
    return bool(names) and "start" not in names


def _frame_of(thread: Any) -> FrameType | None:
    """Return the frame that `thread` runs, or None if it has ended."""
    return uncollected(sys._current_frames).get(thread)


def _place(thread: Any) -> tuple[FrameType, int] | None:
    """Return the frame that `thread` runs and the instruction in it, or None if it has ended."""
    frame = _frame_of(thread)
    return None if frame is None else (frame, frame.f_lasti)


def _calls_backward(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.autograd":
            return True
        frame = _caller(frame)
    return False


def _caller(frame: FrameType) -> FrameType | None:
    found: FrameType | None = uncollected(partial(getattr, frame, "f_back"))
    return found


def after_fork_in_child(thread: int | None) -> None:
    """Give the turn to `thread`, or to nobody."""
    global _known
    _known = _Turn(thread)
