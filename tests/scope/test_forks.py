"""Processes forked while a scope is open."""

from __future__ import annotations

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from helpers import enter, run_in_fork, run_in_thread
from seedscope import seeded

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
