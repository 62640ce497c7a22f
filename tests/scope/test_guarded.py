"""The guard of an exit, and the end of a body: what is left, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import types

import pytest

from helpers import run_in_thread
from seedscope import RunLog, current_scope, isolated, seeded, snapshot
from seedscope.scope import open_scopes, turns
from seedscope.scope.options import Options
from seedscope.scope.scope import Scope
from seedscope.scope.stepping import Body, drive
from seedscope.scope.wrapping import wrap


def test_an_exit_by_hand_can_be_called_again_and_again(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    before, block = snapshot(), seeded(1029, log=log)
    leave = block.__exit__
    error = ValueError("of the block")
    for raised in (None, None, None), (ValueError, error, None), (ValueError, error, error):
        block.__enter__()
        random.random()
        assert leave(*raised) is None, "an exit suppresses no error"
        assert before.changed(snapshot()) == ()
    with pytest.raises(RuntimeError, match="without having been entered"):
        leave(None, None, None)
    assert [run.outcome for run in log] == ["ok", *["ValueError: of the block"] * 2]


def test_a_dropped_exit_leaves_what_its_own_with_has_entered_and_nothing_else():
    before, block = snapshot(), seeded(1029)
    with block:
        inside = snapshot()
        del_me = block.__exit__
        del del_me  # of the open block, not entered by it
        assert inside.changed(snapshot()) == ()
        leave = block.__exit__
        block.__enter__()
        random.random()
        del leave
        assert before.changed(snapshot()) != ()
        assert inside.changed(snapshot()) == ()
    assert before.changed(snapshot()) == ()


def test_the_exit_of_a_class_serves_an_exit_stack():
    before = snapshot()
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(seeded(1029)) is current_scope()
        stack.enter_context(isolated())
        random.random()
    assert before.changed(snapshot()) == ()


@pytest.fixture
def interrupted_exit(monkeypatch):
    """Ctrl-C comes wherever a block begins to be left."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Scope, "leave", interrupted)


def test_an_interrupt_at_an_exit_is_the_outcome_of_its_run(tmp_path, interrupted_exit):
    log = RunLog(tmp_path / "runs.jsonl")
    with pytest.raises(KeyboardInterrupt), seeded(3, log=log):
        pass
    assert [run.outcome for run in log] == ["KeyboardInterrupt"]


def left_to_the_collector(action):
    action()  # what a first call keeps
    gc.collect()
    gc.disable()
    try:
        action()
        return gc.collect()
    finally:
        gc.enable()


def test_an_exit_that_is_interrupted_or_only_looked_up_leaves_no_cycle(interrupted_exit):
    def block():
        with contextlib.suppress(KeyboardInterrupt), seeded(3):
            pass

    # Other threads may leave garbage, too: that of a cycle would be there each time.
    assert min(left_to_the_collector(block) for _ in range(5)) == 0
    look_up = lambda: hasattr(seeded(3), "__exit__")  # noqa: E731
    assert min(left_to_the_collector(look_up) for _ in range(5)) == 0


def test_a_dropped_exit_gives_back_a_turn_that_an_interrupted_entry_has_kept():
    leave = seeded(3).__exit__
    assert turns.take(threading.get_ident(), waits=False) is None
    del leave
    assert turns._present().thread is None


def test_a_turn_that_an_interrupt_has_given_back_half_wakes_those_who_wait():
    woken = threading.Lock()
    woken.acquire()
    turns._waiting_threads.append(woken)
    turns.give_back(threading.get_ident())  # again: nobody has the turn
    assert woken.acquire(timeout=0)


def test_a_thread_that_has_ended_is_at_no_place():
    assert turns._place(run_in_thread(threading.get_ident)) is None
    assert turns._place(threading.get_ident()) is not None


class InterruptedScope:
    """A scope whose entries are interrupted, at the calls `at`."""

    def __init__(self, at):
        self.at, self.entries, self.is_open = at, 0, False

    def __enter__(self):
        self.entries += 1
        if self.entries in self.at:
            raise KeyboardInterrupt
        self.is_open = True

    def __exit__(self, *_):
        self.is_open = False

    def finish(self, error):
        pass


def test_a_body_is_closed_in_its_scope_after_a_second_interrupt():
    scope, ended = InterruptedScope(at=(2, 3)), []

    def body():
        try:
            yield
        finally:
            ended.append(scope.is_open)

    steps = drive(Body(body()), scope)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    assert ended == [True]


@pytest.mark.parametrize("how", ["closed", "interrupted"])
def test_an_async_body_that_is_ended_at_an_await_ends_in_its_scope(how):
    scope, ended = InterruptedScope(at=(2,) if how == "interrupted" else ()), []

    @types.coroutine
    def wait():
        yield

    async def steps():
        try:
            await wait()
            yield
        finally:
            ended.append(scope.is_open)

    async def consume():
        async for _ in wrap(steps, lambda *_, **__: scope)():
            pass

    consumer = consume()
    consumer.send(None)
    if how == "closed":
        consumer.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            consumer.send(None)
    assert ended == [True]


def test_a_block_that_is_listed_alone_or_captured_alone_is_entered():
    """An interrupt can come between the two, at the entry and at the exit."""
    block = Scope(3, Options())
    assert block.entered() == []
    open_scopes.add(block)
    assert block.entered() == [block]
    open_scopes.remove(block)
    assert block.entered() == []
    block._outer = {}
    assert block.entered() == [block]
    block.close()
    assert block.entered() == []


def test_another_error_than_that_on_its_way_is_told_where_the_scope_does_not_open():
    """A signal handler may have raised it; the one on its way is told once."""

    class Closed:
        def __enter__(self):
            raise errors.pop(0)

        def __exit__(self, *raised):
            raise AssertionError("it was not entered")

    def body():
        yield

    for late in ("first", "second"):
        steps, errors = body(), [RuntimeError(text) for text in ("first", late, late)]
        next(steps)
        with pytest.raises(RuntimeError, match=late) as told:
            next(drive(Body(steps), Closed()))
        chain = [told.value]
        while (context := chain[-1].__context__) is not None:
            chain.append(context)
        texts = [str(error) for error in chain]
        assert "first" in texts
        assert texts.count(late) == 1
        assert steps.gi_frame is None, "the body is closed anyway"


def test_an_error_of_a_handler_while_the_task_is_looked_up_reaches_the_caller(monkeypatch):
    def interrupted():
        raise RuntimeError("of a handler")

    async def main():
        monkeypatch.setattr(asyncio, "current_task", interrupted)
        with seeded(3):
            pass

    with pytest.raises(RuntimeError, match="of a handler"):
        asyncio.run(main())
