"""Threads: one holds a scope, and the others wait or are refused."""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers import draw, enter, run_in_thread
from recomputations import doubled
from seedscope import ScopeConflictError, Stream, seeded, snapshot
from seedscope.scope import turns


def test_a_second_thread_is_refused_with_nothing_changed():
    with seeded(1029):
        first = random.random()
        before = snapshot()
        with pytest.raises(
            ScopeConflictError, match=r"seed 1029, open> is open in thread MainThread"
        ):
            run_in_thread(enter)
        assert snapshot() == before
        with pytest.raises(ScopeConflictError, match='threads="wait"'):
            run_in_thread(enter)
        second = random.random()
    with seeded(1029):
        assert (random.random(), random.random()) == (first, second)
    assert run_in_thread(enter) == enter()


def test_leaving_an_inner_block_does_not_let_other_threads_in():
    with seeded(1029):
        with seeded(5):
            pass
        with pytest.raises(ScopeConflictError):
            run_in_thread(enter)


def test_threads_that_wait_get_the_single_threaded_results():
    def work(seed):
        with seeded(seed, threads="wait"):
            return [draw() for _ in range(20)]

    expected = [work(seed) for seed in range(32)]
    before = snapshot()
    with ThreadPoolExecutor(32) as pool:
        barrier = threading.Barrier(32)

        def together(seed):
            barrier.wait()
            return work(seed)

        assert list(pool.map(together, range(32))) == expected
    assert snapshot() == before


def test_a_release_just_before_a_thread_is_listed_wakes_it(monkeypatch):
    class ListedTooLate(list):
        def append(self, woken):
            holder.is_followed_by(turns._Turn())  # the holder left, and found nobody to wake
            super().append(woken)

    holder = turns._Turn(-1)
    monkeypatch.setattr(turns, "_known", holder)
    monkeypatch.setattr(turns, "_waiting_threads", ListedTooLate())
    monkeypatch.setattr(turns, "_LONGEST_SLEEP_S", 60)

    drawn = []

    def wait():
        with seeded(5, threads="wait"):
            drawn.append(random.random())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(20)
    assert drawn == [random.Random(5).random()]


def test_one_waiting_object_can_be_shared_by_threads():
    scope = seeded(1029, threads="wait")

    def work(_):
        with scope as mine:
            return mine.seed, [draw() for _ in range(5)]

    expected = work(0)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [expected] * 40


def test_a_stream_shared_by_threads_never_closes_anothers_block():
    """The stream waits or refuses."""
    with seeded(1029):
        expected = [random.random() for _ in range(120)]
    stream = Stream(1029, threads="wait")
    drawn = []

    def work(_):
        with stream:
            drawn.append(random.random())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(120)))
    assert drawn == expected

    refusing = Stream(1029)
    with refusing:
        first = random.random()
        for _ in range(20):
            with pytest.raises(ScopeConflictError):
                run_in_thread(refusing.__enter__)
        second = random.random()
    assert [first, second] == expected[:2]
    assert run_in_thread(enter) == enter()


def test_a_stream_hammered_by_refused_threads_keeps_its_block():
    stream, switch = Stream(1029), sys.getswitchinterval()
    before, refused = snapshot(), []
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                with stream as scope:
                    assert scope_is_mine(scope)
            except ScopeConflictError:
                refused.append(1)

    def scope_is_mine(scope):
        mine = random.getstate()
        return scope.is_open and random.getstate() == mine

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(hammer) for _ in range(4)]
            time.sleep(0.5)
            while not refused and not any(future.done() for future in futures):
                time.sleep(0.01)
            stop.set()
            [future.result(20) for future in futures]
    finally:
        sys.setswitchinterval(switch)
    assert refused
    assert before.changed(snapshot()) == ()


def test_a_thread_that_leaves_without_the_turn_takes_it_from_no_other(monkeypatch):
    turn = turns._Turn(77)
    monkeypatch.setattr(turns, "_known", turn)
    turns.give_back(5)
    assert turns._present() is turn


def test_a_waiting_scope_continues_when_the_holder_leaves():
    entered, results = threading.Event(), []

    def wait():
        with seeded(5, threads="wait"):
            results.append(random.random())

    with seeded(1029):
        thread = threading.Thread(target=wait)
        thread.start()
        entered.wait(0.1)
        assert not results
    thread.join(10)
    assert results == [random.Random(5).random()]


def noisy(x):
    """Return a result whose backward enters a scope."""

    def backward(gradient):
        with seeded(5):
            return gradient + torch.rand_like(gradient)

    return doubled(x, backward)


NOISE = torch.rand(3, generator=torch.Generator().manual_seed(5))


def test_a_backward_borrows_the_turn_of_the_thread_that_waits():
    x = torch.ones(3, requires_grad=True)
    with seeded(1029):
        first = torch.rand(1)
        run_in_thread(noisy(x).sum().backward)
        assert torch.equal(x.grad, 1 + NOISE)
        second = torch.rand(1)
        noisy(x).sum().backward()  # on the CPU in the calling thread: the scopes nest
    assert torch.equal(x.grad, 2 * (1 + NOISE))
    with seeded(1029):
        assert torch.equal(torch.cat([first, second]), torch.cat([torch.rand(1), torch.rand(1)]))
    assert run_in_thread(enter) == enter()


def test_a_backward_beside_a_busy_thread_says_what_to_do():
    x = torch.ones(3, requires_grad=True)
    with seeded(1029):
        loss, is_busy = noisy(x).sum(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(lambda: is_busy.wait(20) and loss.backward())
            is_busy.set()
            while done._state != "FINISHED":  # this thread may draw at any time
                pass
        with pytest.raises(ScopeConflictError, match=r"draw in forward\(\) instead"):
            done.result()


def test_a_lender_that_goes_on_is_told_of():
    """The holder of the block waits, but not for the end of the backward."""
    inside, go_on = threading.Event(), threading.Event()

    def slow(gradient):
        with seeded(5):
            inside.set()
            assert go_on.wait(20)
            return gradient

    x = torch.ones(3, requires_grad=True)
    before = snapshot()
    with ThreadPoolExecutor(1) as pool, seeded(1029):
        started = threading.Event()
        loss = doubled(x, slow).sum()
        done = pool.submit(lambda: started.wait(20) and loss.backward())
        started.set()
        assert inside.wait(20)
        go_on.set()
        with pytest.raises(RuntimeError, match="went on with its block"):
            done.result(20)
    assert snapshot() == before
    assert run_in_thread(enter) == enter()


def test_a_backward_in_an_engines_thread_borrows_the_turn(monkeypatch):
    """As on a GPU: the thread that calls backward waits in the engine, in no Python frame."""
    answers = queue.SimpleQueue()

    def node():
        found = []
        monkeypatch.setattr(turns, "current_backward", lambda: 1)
        try:
            found.append(enter())
        except BaseException as error:
            found.append(error)
        monkeypatch.undo()
        results.extend(found)
        answers.put(None)

    results: list = []
    x = torch.ones(1, requires_grad=True)
    # Called from C++, so that this thread stands in the engine as it does for a GPU.
    y = x * 2
    y.register_hook(answers.get)
    with seeded(1029):
        thread = threading.Thread(target=node)
        starter = threading.Timer(0.1, thread.start)
        starter.start()
        y.backward()
        thread_draws = random.random()
    thread.join(20)
    assert results == [enter()]
    assert thread_draws == random.Random(1029).random()
