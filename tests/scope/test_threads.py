"""Threads: one holds a scope, and the others wait or are refused."""

from __future__ import annotations

import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers import draw, enter, run_in_thread
from seedscope import ScopeConflictError, Stream, seeded, snapshot
from seedscope.scope import open_scopes


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
            open_scopes._holder.pop("thread")  # the holder left, and found nobody to wake
            super().append(woken)

    monkeypatch.setattr(open_scopes, "_holder", {"thread": -1})
    monkeypatch.setattr(open_scopes, "_waiting_threads", ListedTooLate())

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
                with stream:
                    assert scope_is_mine()
            except ScopeConflictError:
                refused.append(1)

    def scope_is_mine():
        mine = random.getstate()
        return stream._scope.is_open and random.getstate() == mine

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


def test_backward_in_another_thread_says_what_to_do():
    class Noise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            with seeded(5):
                return gradient + torch.rand_like(gradient)

    x = torch.ones(3, requires_grad=True)
    with seeded(1029):
        loss = Noise.apply(x).sum()
        with pytest.raises(ScopeConflictError, match=r"draw in forward\(\) instead"):
            run_in_thread(loss.backward)
        loss = Noise.apply(x).sum()
        loss.backward()  # the CPU's backward runs in the calling thread: the scopes nest
    assert torch.equal(x.grad, 1 + torch.rand(3, generator=torch.Generator().manual_seed(5)))
