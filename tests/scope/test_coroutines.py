"""Decorated coroutines and async generators: their scope is open only while their body runs."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import types

import pytest
import torch

from decorated import (
    FIRST,
    FOURTH,
    SECOND,
    THIRD,
    AsyncCallable,
    async_generator,
    coroutine,
    draw,
    generator,
)
from seedscope import seeded, snapshot

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


def test_gathered_coroutines_each_see_their_own_sequence():
    async def main():
        return await asyncio.gather(*(coroutine(4) for _ in range(5)))

    before = snapshot()
    assert asyncio.run(main()) == [[FIRST, SECOND, THIRD, FOURTH]] * 5
    assert before.changed(snapshot()) == ()


def test_cancellation_and_timeouts_reach_the_body_in_its_scope():
    log = []

    @seeded(1029)
    async def body():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append(draw())
            await asyncio.sleep(0)
            log.append(draw())
            raise

    async def main():
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(body(), 0.01)

    asyncio.run(main())
    assert log == [FIRST, SECOND] * 2


def test_a_coroutine_that_is_not_awaited_warns_once_by_its_name():
    def forget():
        coroutine()
        gc.collect()

    with pytest.warns(RuntimeWarning, match=r"coroutine 'coroutine' was never awaited") as warned:
        forget()
    assert len(warned) == 1


def test_async_objects_and_hidden_bodies_run_in_their_scope():
    decorated = seeded(1029)(AsyncCallable())
    assert asyncio.run(decorated()) == FIRST

    @seeded(1029)
    @functools.wraps(coroutine)
    def hides_a_coroutine():
        return coroutine.__wrapped__(2)

    assert asyncio.run(hides_a_coroutine()) == [FIRST, SECOND]
    assert [*seeded(1029)(lambda: (draw() for _ in range(2)))()] == [FIRST, SECOND]

    async def asynchronously():
        hidden = seeded(1029)(lambda: async_generator.__wrapped__(2))
        return [item async for item in hidden()]

    assert asyncio.run(asynchronously()) == [FIRST, SECOND]


def test_generator_based_coroutines_stay_awaitable():
    @seeded(1029)
    @types.coroutine
    def based():
        yield from asyncio.sleep(0).__await__()
        return draw()

    async def main():
        return await based()

    assert asyncio.run(main()) == FIRST
    assert not inspect.isawaitable(generator(1))


def test_async_generators_see_their_own_sequence():
    async def collect(n):
        return [item async for item in async_generator(n)]

    async def main():
        return await asyncio.gather(*(collect(4) for _ in range(3)))

    assert asyncio.run(main()) == [[FIRST, SECOND, THIRD, FOURTH]] * 3


def test_asend_athrow_aclose_and_a_drop_reach_the_body():
    log = []

    @seeded(1029)
    async def body():
        try:
            got = yield draw()
            log.append(("sent", got, draw()))
            try:
                yield
            except KeyError as error:
                log.append(("thrown", str(error), draw()))
            yield
        finally:
            await asyncio.sleep(0)
            log.append(("closed", draw()))

    async def main():
        running = body()
        assert await running.asend(None) == FIRST
        await running.asend("x")
        await running.athrow(KeyError("y"))
        await running.aclose()
        assert log == [("sent", "x", SECOND), ("thrown", "'y'", THIRD), ("closed", FOURTH)]
        log.clear()
        async for _ in body():
            break
        gc.collect()
        await asyncio.sleep(0.01)
        assert log == [("closed", SECOND)]
        running = body()
        await running.asend(None)
        with pytest.raises(ZeroDivisionError):
            await running.athrow(ZeroDivisionError())

    asyncio.run(main())


def test_the_loop_closes_an_async_generator_in_its_scope():
    log, kept = [], []

    @seeded(1029)
    async def body():
        try:
            yield
        finally:
            log.append(draw())

    async def main():
        running = body()
        kept.append(running)
        await running.asend(None)

    asyncio.run(main())  # closes unfinished generators at its end
    assert log == [FIRST]


@pytest.mark.parametrize("kind", ["coroutine", "async generator"])
def test_an_async_body_that_ignores_close_stays_in_its_scope(kind, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # what Python says of such a body
    modes = []

    def note_the_mode():
        draw()
        modes.append(torch.get_deterministic_debug_mode())

    @seeded(1029)
    async def stubborn_coroutine():
        while True:
            try:
                await asyncio.sleep(0)
            except GeneratorExit:
                note_the_mode()

    @seeded(1029)
    async def stubborn_generator():
        while True:
            try:
                yield
            except GeneratorExit:
                note_the_mode()

    def close_the_coroutine():
        running = stubborn_coroutine()
        running.send(None)
        running.close()

    async def close_the_generator():
        running = stubborn_generator()
        await running.asend(None)
        await running.aclose()

    with pytest.raises(RuntimeError, match=f"^{kind} ignored GeneratorExit"):
        close_the_coroutine() if kind == "coroutine" else asyncio.run(close_the_generator())
    gc.collect()
    assert modes == [2, 2]
