"""Recomputations beside other threads, with no block around."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers import enter, run_in_thread
from recomputations import doubled, masks_of, replays
from seedscope import ScopeConflictError, Stream, isolated, seeded


def test_a_thread_that_waits_gets_the_streams_own_numbers():
    """It enters the stream after the recomputation for whose end it waits."""
    stream, inside = Stream(1029, threads="wait"), threading.Event()

    def f():
        with stream:
            value = random.random()
        if inside.is_set():  # in the recomputation
            waiting.append(pool.submit(once))
            time.sleep(0.1)
        return value

    def once():
        with stream:
            return random.random()

    waiting: list = []
    with seeded(1029):
        expected = [random.random() for _ in range(3)]
    steps = masks_of(f, stream.recompute)
    next(steps)
    inside.set()
    with ThreadPoolExecutor(1) as pool:
        forward, again = next(steps)
        assert forward == again == expected[0]
        assert waiting[0].result(20) == expected[1]
    assert once() == expected[2]


def test_a_recomputation_waits_as_its_stream_does():
    """Two backwards at once, of streams that wait."""

    def run(seed):
        stream = Stream(seed, threads="wait")

        calls = []

        def f():
            with stream:
                value = random.random()
            calls.append(value)
            time.sleep(1.3 * (len(calls) == 2))  # longer than one that does not wait would try
            return value

        return replays(f, stream.recompute)

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(run, range(2))] == [True, True]


def test_a_refused_recomputation_names_the_stream():
    stream = Stream(1029)
    steps = masks_of(lambda: stream(random.random)(), stream.recompute)
    next(steps)
    with seeded(3), ThreadPoolExecutor(1) as pool:
        refused = pool.submit(next, steps)
        while refused._state != "FINISHED":
            pass
        assert "<recomputation with <Stream of seed 1029>>" in str(refused.exception())


def test_two_backwards_that_wait_leave_the_turn_free():
    def run(seed):
        def backward(gradient):
            with seeded(seed, threads="wait"):
                first = torch.rand(1)
                time.sleep(0.02)
                return gradient * torch.cat([first, torch.rand(1)])

        x = torch.ones(2, requires_grad=True)
        doubled(x, backward).sum().backward()
        return x.grad.tolist()

    with isolated():
        expected = []
        for seed in range(4):
            torch.manual_seed(seed)
            expected.append([torch.rand(1).item(), torch.rand(1).item()])
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            assert [*pool.map(run, range(4))] == expected
        enter()
        with seeded(1029), ThreadPoolExecutor(4) as pool:
            assert [*pool.map(run, range(4))] == expected
        assert run_in_thread(enter) == enter()


def test_a_lender_that_leaves_its_block_loses_no_turn():
    inside, end = threading.Event(), threading.Event()

    def slow(gradient):
        with seeded(7, deterministic=False):
            inside.set()
            assert end.wait(20)
            return gradient

    told = []

    def backward(loss):
        try:
            loss.backward()
        except RuntimeError as error:
            told.append(str(error))

    # Without settings: inductor keeps one for each thread, and this thread leaves first.
    block = seeded(1, deterministic=False)
    block.__enter__()
    thread = threading.Thread(
        target=backward, args=(doubled(torch.ones(1, requires_grad=True), slow),)
    )
    thread.start()
    thread.join(1)
    assert inside.is_set()
    with pytest.raises(ScopeConflictError, match="wait for the end of the backward"):
        block.__exit__(None, None, None)
    end.set()
    thread.join(20)
    assert "went on with its block" in told[0]
    assert run_in_thread(enter) == enter()
