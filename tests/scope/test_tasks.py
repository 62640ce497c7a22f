"""Tasks of an event loop: blocks that overlap are refused."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

from helpers import run_in_thread
from seedscope import ScopeConflictError, seeded, snapshot


def test_tasks_with_overlapping_blocks_are_refused_unchanged():
    outcome = {}

    async def hold(started, done):
        with seeded(1029):
            started.set()
            await done.wait()
            outcome["drawn"] = random.random()

    async def main():
        started, done = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold(started, done), name="holder")
        await started.wait()
        before = snapshot()
        for threads in ("raise", "wait"):  # waiting would stop the loop, and so the holder
            with (
                pytest.raises(ScopeConflictError, match=r"holder.*Decorate the coroutine"),
                seeded(5, threads=threads),
            ):
                pass
        assert snapshot() == before
        done.set()
        await holder
        with seeded(1029):
            assert random.random() == outcome["drawn"]

    before = snapshot()
    asyncio.run(main())
    assert snapshot() == before


def test_a_loop_that_runs_inside_a_block_can_open_scopes():
    async def block():
        with seeded(5):
            return random.random()

    @seeded(5)
    async def decorated():
        await asyncio.sleep(0)
        return random.random()

    async def main():
        with seeded(7):
            together = await asyncio.gather(decorated(), decorated())
            return [await block(), *together]

    with seeded(1029):
        first = random.random()
        assert asyncio.run(block()) == random.Random(5).random()
        assert asyncio.run(main()) == [random.Random(5).random()] * 3
        second = random.random()
    reference = random.Random(1029)
    assert (first, second) == (reference.random(), reference.random())


def test_a_refused_coroutine_leaves_no_warning_behind(recwarn):
    @seeded(5)
    async def decorated():
        return random.random()

    with seeded(1029), pytest.raises(ScopeConflictError):
        run_in_thread(lambda: asyncio.run(decorated()))
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]
