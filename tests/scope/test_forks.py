"""Processes forked while a scope is open."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from helpers import Lottery, enter, run_in_fork, run_in_thread
from interrupts import FaultAt
from seedscope import (
    ScopeConflictError,
    Source,
    Stream,
    current_scope,
    evaluating,
    isolated,
    register_source,
    seeded,
    snapshot,
)
from seedscope.scope import open_scopes
from seedscope.scope.open_scopes import _open_scopes
from seedscope.sources.watch import WATCH

pytestmark = pytest.mark.filterwarnings("ignore:worker processes")


def test_a_process_forked_inside_a_block_can_open_its_own():
    expected = enter()
    with seeded(1029):
        assert run_in_fork(enter) == expected
        assert run_in_fork(lambda: run_in_thread(enter)) == expected


def test_a_process_forked_in_a_tasks_block_can_open_its_own():
    expected = enter()

    async def main():
        with seeded(1029):
            return run_in_fork(enter)

    assert asyncio.run(main()) == expected


def test_a_process_forked_from_another_thread_can_open_its_own():
    """A block of this thread is open meanwhile."""
    expected = enter()
    with seeded(1029):
        assert run_in_thread(lambda: run_in_fork(enter)) == expected
        assert run_in_fork(lambda: run_in_thread(enter)) == expected


def test_a_fork_while_threads_wait_does_not_inherit_their_lock():
    # Without torch: a child inherits the lock of its generator as it is, held or free.
    def work(seed):
        with seeded(seed, threads="wait", sources=["python"]):
            return [random.random() for _ in range(50)]

    expected = work(1029)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(work, seed) for seed in range(400)]
        results = [run_in_fork(partial(work, 1029)) for _ in range(5)]
        [future.result() for future in waiting]
    assert results == [expected] * 5


def test_a_child_that_leaves_its_parents_block_has_outer_state():
    outer = random.getstate()
    read, write = os.pipe()
    with seeded(1029):
        child = os.fork()
        random.random()
    if child == 0:
        try:
            with seeded(5):
                pass
            os.write(write, b"1" if random.getstate() == outer else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
    assert random.getstate() == outer


def child_of_a_fork_while_a_thread_holds(context, look):
    """Return what `look` returns in a child that is forked while another thread is in `context`."""
    entered, done = threading.Event(), threading.Event()

    def hold():
        with context:
            random.random(), np.random.rand(), torch.rand(1)
            entered.set()
            done.wait(30)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert entered.wait(30)
        try:
            return run_in_fork(look)
        finally:
            done.set()
            held.result()


@contextlib.contextmanager
def several_blocks():
    with seeded(3), isolated(), Stream(4), seeded(5, deterministic=False):
        yield


MODEL = torch.nn.Sequential(torch.nn.Dropout())


@pytest.mark.parametrize(
    "make", [lambda: seeded(1029), several_blocks, lambda: evaluating(MODEL), lambda: Stream(7)]
)
def test_a_process_forked_while_another_thread_holds_a_block_has_the_outer_state(make):
    expected, before = enter(), snapshot()

    def look():
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        changed = before.changed(snapshot()), WATCH.capture(), getenv(b"PYTHONHASHSEED")
        return changed, MODEL[0].training, torch.is_grad_enabled(), enter() == expected

    hash_seed = os.environb.get(b"PYTHONHASHSEED")
    # Python seeds `random` anew in each child.
    found = child_of_a_fork_while_a_thread_holds(make(), look)
    assert found == ((("python",), False, hash_seed), True, True, True)
    drawn = [child_of_a_fork_while_a_thread_holds(make(), random.random) for _ in range(2)]
    with isolated():
        assert len({*drawn, random.random()}) == 3


class FaultInChild(FaultAt):
    parent = os.getpid()

    def __call__(self, frame, event, argument):
        if os.getpid() == self.parent:
            return None
        return super().__call__(frame, event, argument)


def test_an_interrupt_in_a_forked_child_leaves_the_blocks_of_other_threads_anyway(capfd):
    expected, before, count = enter(), snapshot(), 0

    def look():
        sys.settrace(None)
        return fault.where, before.changed(snapshot()), len(_open_scopes), enter()

    for place in range(1, 100_000, 13):
        fault = FaultInChild(place, event="opcode")
        sys.settrace(fault)
        try:
            where, *found = child_of_a_fork_while_a_thread_holds(seeded(3), look)
        finally:
            sys.settrace(None)
        assert found == [("python",), 0, expected], where
        count += 1
        if not where:
            break
    assert count > 10


def test_a_process_forked_while_another_thread_evaluates_keeps_its_own_gradient_mode():
    with torch.no_grad():
        assert not child_of_a_fork_while_a_thread_holds(evaluating(MODEL), torch.is_grad_enabled)


def test_a_forked_child_keeps_the_block_that_it_shares_and_leaves_that_of_a_thread():
    with seeded(1029) as scope:
        scope.share()
        inside = snapshot()

        def look():
            # Each thread has its own setting of inductor, so that one cannot restore another's.
            # Python seeds `random` anew in each child.
            changed = {*inside.changed(snapshot())} - {"inductor.deterministic", "python"}
            return changed, current_scope().seed

        context = seeded(5)
        assert child_of_a_fork_while_a_thread_holds(context, look) == (set(), 1029)


def test_a_child_that_a_handler_forks_in_the_middle_of_an_entry_has_the_turn(monkeypatch):
    def fork():
        monkeypatch.undo()
        children.append(os.fork())

    children, is_refused, is_free = [], False, False
    monkeypatch.setattr(open_scopes, "current_task", fork)
    try:
        with seeded(1029):
            with pytest.raises(ScopeConflictError):
                run_in_thread(enter)
            is_refused = True
        is_free = run_in_thread(enter) == enter()
    finally:
        if children == [0]:
            os._exit(0 if is_refused and is_free else 1)
    assert is_refused
    assert is_free
    assert os.waitpid(children[0], 0)[1] == 0


def test_a_fork_waits_until_no_other_thread_draws_from_a_generator():
    """A capture takes the lock of a generator, which a child would inherit as it is."""
    captured_in = []

    class Watched(Lottery, Source):
        name = "watched"

        def capture(self):
            captured_in.append(threading.get_ident())
            return super().capture()

    unregister = register_source(Watched())
    try:
        child_of_a_fork_while_a_thread_holds(seeded(1029), int)
    finally:
        unregister()
    assert threading.get_ident() in captured_in


def test_a_source_that_fails_in_a_child_keeps_no_other_block_open(monkeypatch):
    parent, told = os.getpid(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(str(what.exc_value)))

    class Failing(Lottery, Source):
        name = "failing"

        def restore(self, state):
            if os.getpid() != parent:
                raise OSError("not in this process")
            super().restore(state)

    before, unregister = snapshot(["numpy", "torch"]), register_source(Failing())

    def look():
        return before.changed(snapshot(["numpy", "torch"])), current_scope(), told

    try:
        changed, scope, told = child_of_a_fork_while_a_thread_holds(several_blocks(), look)
    finally:
        unregister()
    assert (changed, scope) == ((), None)
    assert "the blocks of other threads were left in a forked child" in told[0]
