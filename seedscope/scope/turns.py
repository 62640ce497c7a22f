"""The turn: which thread may open scopes, and a backward that borrows it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import FrameType
from typing import Any, NamedTuple

from ..support.torch_internals import current_backward

# `_holder` has the thread that may open scopes, under its only key "thread";
# `_waiting_threads` has a lock for each thread that waits. Each step below is a single
# operation on a dict, a list or a lock, so that neither another thread nor Ctrl-C can
# interrupt the step: Ctrl-C can leave a `with lock:` without releasing the lock.
_holder: dict[str, int] = {}
_waiting_threads: list[Any] = []


class _Loan(NamedTuple):
    """The turn of a thread that waits for a backward in the thread `borrower`.

    `place` is where the lender waits, to see at the end that it still does; None if the lender
    cannot go on before the borrower has ended. `has_ended` tells that the lender has left its
    blocks meanwhile, so that the turn is nobody's at the end.
    """

    borrower: int
    place: tuple[FrameType, int] | None
    has_ended: bool = False


_loans: dict[int, _Loan] = {}  # by the lender

# The modules of the function that a thread runs while it waits.
_ENGINE = ("torch.autograd", "torch.autograd.graph")
_WAITING = ("threading", "concurrent.futures._base", "concurrent.futures.thread")


def take(thread: int, waits: bool) -> int | None:
    """Reserve the turn for `thread`, once no other thread has it.

    Return None, or the holder of the turn if another thread has it and `waits` is False.
    A backward borrows the turn of a thread that waits for the backward.
    """
    while (holder := _holder.setdefault("thread", thread)) != thread:
        if current_backward() >= 0:
            if _borrow(thread, holder):
                continue
            # On several GPUs the parts of a backward run at once, and must not meet here.
            is_refused = all(loan.borrower != holder for loan in _loans.values())
        else:
            is_refused = True
        if is_refused and not waits:
            return holder
        woken = threading.Lock()
        woken.acquire()
        _waiting_threads.append(woken)
        # Checked after listing the lock, so that no release is missed.
        if _holder.get("thread") == holder:
            woken.acquire()
    return None


def has(thread: int) -> bool:
    return _holder.get("thread") == thread


def give_back(thread: int | None) -> None:
    """Let another thread take the turn; a borrowed turn goes back to its lender.

    Raises:
        RuntimeError: the lender has gone on, so that both may have drawn from the sources.
    """
    if thread is not None and thread in _loans:  # a lender that has left its blocks
        _loans[thread] = _loans[thread]._replace(has_ended=True)
    holder = _holder.get("thread")
    if thread is None or holder not in (None, thread):
        return
    lender, loan = next((x for x in _loans.items() if x[1].borrower == thread), (0, None))
    if holder is not None:  # else the turn was nobody's, and by now may be any other thread's
        if loan is None or loan.has_ended:
            _holder.pop("thread", None)
        else:
            _holder["thread"] = lender
    _loans.pop(lender, None)
    # Also if nobody has the turn: Ctrl-C may have come here at the first try.
    while _waiting_threads:
        with contextlib.suppress(IndexError):  # another thread was faster
            _waiting_threads.pop().release()
    if loan is not None and loan.place not in (None, _place(lender)):
        raise RuntimeError(
            f"thread {lender} went on with its block while a backward in thread {thread} drew "
            "from the same sources, so the results of both may be wrong: let the thread that "
            "holds the block wait for the backward"
        )


def _borrow(thread: int, lender: int) -> bool:
    """Borrow the turn for a backward, if its holder waits for it. Return False if it does not."""
    if _calls_backward(sys._getframe()):
        place = _place_of_waiting(lender)  # for this thread's backward, as after `start()`
        if place is None:
            return _holder.get("thread") != lender  # the turn has passed on: try again
    else:
        # The engine runs the nodes of a GPU in threads of its own, while the thread that called
        # `backward()` waits in the engine for the nodes of all threads.
        frame = sys._current_frames().get(lender)
        if frame is None or not _calls_backward(frame):
            return False
        if frame.f_globals.get("__name__") not in _ENGINE:
            time.sleep(0.001)
            return True  # the holder runs a node, too: the caller tries again
        place = None
    loan = _Loan(thread, place)
    if _loans.setdefault(lender, loan) is loan:
        if _holder.get("thread") == lender:
            _holder["thread"] = thread
        else:
            _loans.pop(lender, None)
    return True


def _place_of_waiting(thread: int) -> tuple[FrameType, int] | None:
    """Return where `thread`, which has the turn, waits for another thread; None if it does not.

    A thread that has just started this one needs a moment until it waits.
    """
    for _ in range(200):
        if _holder.get("thread") != thread:
            return None
        place = _place(thread)
        time.sleep(0.005)
        if place is not None and _place(thread) == place and _is_waiting(place[0]):
            return place
    return None


def _is_waiting(frame: FrameType | None) -> bool:
    names = []
    while frame is not None and frame.f_globals.get("__name__") in _WAITING:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    # `Thread.start` waits only until the new thread runs.
    return bool(names) and "start" not in names


def _place(thread: Any) -> tuple[FrameType, int] | None:
    """Return the frame that `thread` runs and the instruction in it, or None if it has ended."""
    frame = sys._current_frames().get(thread)
    return None if frame is None else (frame, frame.f_lasti)


def _calls_backward(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.autograd":
            return True
        frame = frame.f_back
    return False


def after_fork_in_child() -> None:
    _holder.clear()
    _loans.clear()
