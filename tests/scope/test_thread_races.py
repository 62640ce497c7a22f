"""What another thread, a signal handler or Ctrl-C does in the middle of an entry or an exit."""

from __future__ import annotations

import random
import signal
import threading
import time
import traceback

import pytest
import torch

from helpers import Lottery, enter, run_in_thread
from interrupts import FaultAt
from recomputations import doubled
from seedscope import (
    ScopeConflictError,
    current_scope,
    register_source,
    seeded,
    snapshot,
)
from seedscope.scope import block, open_scopes, turns
from seedscope.scope.options import Options
from seedscope.scope.scope import Scope
from seedscope.snapshots import capture_all
from seedscope.sources.seen import Seen
from seedscope.sources.watch import WATCH


def test_a_thread_whose_wake_up_an_interrupt_has_lost_goes_on(monkeypatch):
    class Interrupted(list):
        def pop(self, *given):
            super().pop(*given)
            raise KeyboardInterrupt

    waiting, drawn = Interrupted(), []

    def wait():
        with seeded(5, threads="wait"):
            drawn.append(random.random())

    @seeded(1029)
    def hold():
        thread.start()
        while not waiting:
            time.sleep(0.001)

    thread = threading.Thread(target=wait, daemon=True)
    monkeypatch.setattr(turns, "_waiting_threads", waiting)
    with pytest.raises(KeyboardInterrupt):
        hold()
    thread.join(20)
    assert drawn == [random.Random(5).random()]


def test_a_thread_that_forks_can_ask_for_the_sources_of_a_block_that_another_one_leaves():
    class Left(FaultAt):
        def _raise(self, error, frame):
            inner._outer.popitem()

    place = 1
    while True:
        inner = Scope(Options(), 1029)
        inner._outer = capture_all(Options().governed())
        left = Left(place, event="opcode")
        if not left.run(lambda inner=inner: inner.sources()):
            break
        place += 1
    assert place > 10


def test_a_turn_has_one_successor():
    turn, first = turns._Turn(1), turns._Turn(2)
    assert turn.is_followed_by(first)
    assert not turn.is_followed_by(turns._Turn(3))
    assert turn.next == {None: first}


def test_a_backward_tries_again_if_the_turn_has_passed_on(monkeypatch):
    monkeypatch.setattr(turns, "_calls_backward", lambda _: True)
    turn = turns._Turn(1)
    turn.is_followed_by(turns._Turn())
    assert turns._borrow(2, turn)


def test_a_node_waits_for_another_node_that_has_borrowed_the_turn(monkeypatch):
    """The nodes of several GPUs run at once, in threads of the engine."""
    monkeypatch.setattr(turns, "_known", turns._Turn(1, lender=turns._Turn(2)))
    monkeypatch.setattr(turns, "current_backward", lambda: 1)
    monkeypatch.setattr(turns, "_borrow", lambda *_: False)
    refused: list = []
    thread = threading.Thread(target=lambda: refused.append(turns.take(3, waits=False)))
    thread.start()
    thread.join(0.2)
    assert not refused
    turns.give_back(1)
    thread.join(20)
    assert refused == [2]  # the lender has the turn again


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_handler_that_enters_a_block_takes_the_turn_of_no_entry(is_refused, monkeypatch):
    """Right where the entry has the turn, and has not listed its block."""
    before, signals = snapshot(), []

    def handler(*_):
        signals.append(1)
        with seeded(9):
            random.random()
        if is_refused:
            with pytest.raises(ZeroDivisionError), seeded(9):
                _ = 1 / 0

    def interrupted():
        if not signals:
            signal.raise_signal(signal.SIGALRM)
        return -1

    monkeypatch.setattr(block, "current_backward", interrupted)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        with seeded(3):
            assert signals
            assert turns.has(threading.get_ident())
            with pytest.raises(ScopeConflictError):
                run_in_thread(enter)
            assert random.random() == random.Random(3).random()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert before.changed(snapshot()) == ()
    assert run_in_thread(enter) == enter()


def test_a_look_at_the_open_blocks_misses_none_while_one_is_left():
    with seeded(1) as outer:
        with seeded(2):
            looking = open_scopes.innermost_first()
        assert [*looking][-1] is outer


def test_a_scope_is_the_current_one_once_it_has_its_seed():
    found = []

    class Looking(Lottery):
        def capture(self):
            found.append(current_scope())
            return super().capture()

    unregister = register_source(Looking())
    try:
        with seeded(1) as outer:
            found.clear()
            with seeded() as inner:
                assert current_scope() is inner
            assert found[0] is outer
    finally:
        unregister()


def test_the_end_of_a_block_tells_the_scope_around_and_no_other_threads(monkeypatch):
    end, strangers = Scope.end, []

    def with_a_strangers_block(self, error):
        now = WATCH.capture()
        strangers.append(Seen())
        WATCH.restore(strangers[-1])
        try:
            end(self, error)
        finally:
            WATCH.restore(now)

    monkeypatch.setattr(Scope, "end", with_a_strangers_block)
    with seeded(1) as outer:
        with seeded():
            random.seed(4)
        assert outer.reseeded == ("python",)
    assert [stranger.reseeded() for stranger in strangers] == [{}, {}]


def test_a_context_leaves_the_block_of_its_own_thread_first():
    opener = object()
    own, other = Scope(3, Options(), opener), Scope(3, Options(), opener)
    own.thread, other.thread = threading.get_ident(), -1
    open_scopes._open_scopes.extend([own, other])
    assert open_scopes.of_opener(opener) == [own, other]
    open_scopes._open_scopes.clear()


def test_a_dropped_exit_leaves_no_block_of_another_thread():
    scope = seeded(1029)
    leave = scope.__exit__
    with scope as outer:
        outer.thread = -1
        del leave
        assert outer.is_open
        outer.thread = threading.get_ident()


def test_a_dropped_exit_leaves_no_shared_block_that_was_open_before():
    """As in a forked child, whose inherited blocks are no thread's."""
    scope = seeded(1029)
    with scope as outer:
        outer.thread = None
        with scope:
            leave = scope.__exit__
        del leave
        assert outer.is_open


def test_a_backward_that_waits_looks_again_whether_the_holder_waits():
    def backward(gradient):
        with seeded(5, threads="wait"):
            return gradient * torch.rand(1)

    x = torch.ones(1, requires_grad=True)
    with seeded(1029):
        thread = threading.Thread(target=doubled(x, backward).sum().backward, daemon=True)
        thread.start()
        end = time.monotonic() + 2.5  # longer than one look
        while time.monotonic() < end:
            pass
        thread.join(20)
        assert not thread.is_alive()
    with seeded(5):
        assert torch.equal(x.grad, torch.rand(1))


def test_a_turn_that_is_borrowed_as_its_thread_leaves_does_not_come_back(monkeypatch):
    real = turns._after

    def borrowed(turn):
        monkeypatch.setattr(turns, "_after", real)
        assert turn.is_followed_by(turns._Turn(2, lender=turn))
        return real(turn)

    monkeypatch.setattr(turns, "_known", turns._Turn(1))
    monkeypatch.setattr(turns, "_after", borrowed)
    turns.give_back(1)
    assert turns.has(2)
    turns.give_back(2)
    assert turns._present().thread is None


def test_an_exception_of_a_thread_that_waits_keeps_no_later_turn(monkeypatch):
    class Interrupted(list):
        def append(self, woken):
            raise KeyboardInterrupt

    monkeypatch.setattr(turns, "_known", turns._Turn(1))
    monkeypatch.setattr(turns, "_waiting_threads", Interrupted())
    with pytest.raises(KeyboardInterrupt) as kept:
        turns.take(2, waits=True)
    places = [frame.f_locals for frame, _ in traceback.walk_tb(kept.tb)]
    assert not [x for names in places for x in names.values() if isinstance(x, turns._Turn)]


def test_a_turn_that_was_lent_keeps_no_frame_of_its_lender(monkeypatch):
    turn = turns._Turn(1)
    lent = turns._Turn(2, turn, place=turns._place(threading.get_ident()))
    assert turn.is_followed_by(lent)
    monkeypatch.setattr(turns, "_known", turn)
    monkeypatch.setattr(turns, "_place", lambda _: lent.place)
    with pytest.raises(RuntimeError, match="went on"):
        turns.give_back(2)
    assert lent.place is None
    assert lent.lender is None
    assert turns.has(1)
