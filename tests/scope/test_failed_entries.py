"""An entry that fails or is refused: it gives the turn back, and its guard undoes nothing."""

from __future__ import annotations

import random
import signal
import threading
from functools import partial

import pytest
import torch

from helpers import Lottery, enter, run_in_thread
from seedscope import (
    RunLog,
    ScopeConflictError,
    Stream,
    evaluating,
    isolated,
    register_source,
    seeded,
)
from seedscope.scope import block, turns
from seedscope.scope.guarded import _Entry
from seedscope.scope.scope import Scope


def test_an_entry_that_fails_gives_the_turn_back():
    class Failing(Lottery):
        def capture(self):
            raise ZeroDivisionError

    unregister = register_source(Failing())
    try:
        with pytest.raises(ZeroDivisionError):
            seeded(3).__enter__()
        assert turns._present().thread is None
        with pytest.raises(ZeroDivisionError):
            enter()
        assert turns._present().thread is None
    finally:
        unregister()


def test_no_interrupt_of_an_entry_that_is_refused_is_swallowed():
    came = reached = 0
    held, end = threading.Event(), threading.Event()

    def hold():
        with seeded(3):
            held.set()
            assert end.wait(60)

    def interrupt(*_):
        nonlocal came
        came += 1
        raise KeyboardInterrupt

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        while reached < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 5e-4))
                while True:
                    try:
                        with seeded(5):
                            raise AssertionError
                    except ScopeConflictError:
                        pass
            except KeyboardInterrupt:
                reached += 1
    finally:
        signal.signal(signal.SIGALRM, previous)
        end.set()
        thread.join(20)
    assert came == reached


def hold(scope):
    with scope:
        pass


def test_the_guard_of_an_entry_that_has_failed_undoes_nothing(monkeypatch):
    undone = []
    monkeypatch.setattr(_Entry, "undo", lambda *_: undone.append(1))
    with seeded(3):
        for scope in (seeded(5), Stream(5), isolated(), evaluating(torch.nn.Linear(1, 1), seed=5)):
            for entry in (partial(hold, scope), scope(random.random)):
                with pytest.raises(ScopeConflictError):
                    run_in_thread(entry)
    assert not undone


def test_an_entry_by_hand_that_has_failed_spoils_no_exit(tmp_path):
    class Failing(Lottery):
        fails = False

        def capture(self):
            if self.fails:
                raise ZeroDivisionError
            return super().capture()

    log, source = RunLog(tmp_path / "runs.jsonl"), Failing()
    scope, unregister = seeded(3, log=log), register_source(source)
    try:
        with scope:  # has an exit, which an entry by hand inside must not spoil
            source.fails = True
            with pytest.raises(ZeroDivisionError):
                scope.__enter__()
            source.fails = False
        leave = scope.__exit__
        source.fails = True
        with pytest.raises(ZeroDivisionError):
            scope.__enter__()
        source.fails = False
        scope.__enter__()
        leave(None, None, None)
    finally:
        unregister()
    assert [run.outcome for run in log] == ["ok", "ok"]
    assert run_in_thread(enter) == enter()


def test_a_handlers_block_while_an_entry_fails_leaves_the_turn_free(monkeypatch):
    """It comes when the failing entry has given the turn back, and is still on its way out."""

    class Failing(Lottery):
        def capture(self):
            raise ZeroDivisionError

    fail, unregister = block.fail, register_source(Failing())
    monkeypatch.setattr(block, "fail", lambda *given: (fail(*given), unregister(), enter()))
    with pytest.raises(ZeroDivisionError):
        enter()
    assert turns._present().thread is None


def test_an_entry_that_fails_during_the_exit_of_the_same_object_spoils_no_end(monkeypatch):
    scope, ended = seeded(3), []
    leave, end = Scope.leave, Scope.end

    def leave_and_fail(self, error):
        leave(self, error)
        monkeypatch.undo()
        monkeypatch.setattr(Scope, "end", noted_end)
        monkeypatch.setattr(Scope, "_prepare", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scope.__enter__()

    def noted_end(self, error):
        ended.append(self)
        end(self, error)

    monkeypatch.setattr(Scope, "leave", leave_and_fail)
    with scope as left:
        pass
    assert left in ended
