"""Every kind of callable runs in a scope, and stays what it was."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import multiprocessing
import operator
import pickle
import random
import sys
import types

import cloudpickle
import numpy as np
import pytest
import torch
from conftest import run_python

from seedscope import Source, register_source, seeded, snapshot


def undecorated(n=1):
    return [draw() for _ in range(n)]


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


with seeded(1029):
    FIRST, SECOND, THIRD, FOURTH = draw(), draw(), draw(), draw()


@seeded(1029)
def function(a, b: int = 2, *, c=None):
    """A docstring."""
    return draw()


@seeded
def fresh():
    return draw()


@seeded(1029)
def generator(n=2):
    """A generator's docstring."""
    for _ in range(n):
        yield draw()
    return "done"


@seeded(1029)
async def coroutine(n=1):
    """A coroutine's docstring."""
    drawn = []
    for _ in range(n):
        drawn.append(draw())
        await asyncio.sleep(0)
    return drawn


@seeded(1029)
async def async_generator(n=2):
    """An async generator's docstring."""
    for _ in range(n):
        yield draw()
        await asyncio.sleep(0)


class Model(torch.nn.Module):
    @seeded(1029)
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    @seeded(1029)
    def forward(self, x):
        return torch.nn.functional.dropout(self.linear(x), 0.5)


class Holder:
    scale = 3

    @seeded(1029)
    def method(self):
        return self.scale, draw()

    @seeded(1029)
    @classmethod
    def of_class(cls):
        return cls.scale, draw()

    @classmethod
    @seeded(1029)
    def of_class_inside(cls):
        return cls.scale, draw()

    @seeded(1029)
    @staticmethod
    def static():
        return draw()

    @staticmethod
    @seeded(1029)
    def static_inside():
        return draw()

    @seeded(1029)
    @property
    def value(self):
        """A property's docstring."""
        return self.scale, draw()

    @value.setter
    def value(self, scale):
        self.scale = scale

    @seeded(1029)
    @functools.cached_property
    def cached(self):
        return self.scale, draw()

    @seeded(1029)
    @functools.lru_cache  # noqa: B019
    def looked_up(self, key):
        return key, draw()

    @seeded(1029)
    def steps(self):
        yield self.scale, draw()

    @seeded(1029)
    def __call__(self):
        return self.scale, draw()


class Callable:
    state = "kept"

    def __call__(self, n=1):
        return [draw() for _ in range(n)]


class AsyncCallable:
    async def __call__(self):
        await asyncio.sleep(0)
        return draw()


@pytest.fixture(autouse=True)
def the_outer_state_is_intact():
    before = snapshot()
    yield
    assert before.changed(snapshot()) == ()


# Calls


def test_a_function_starts_the_same_stream_on_each_call():
    assert function(1) == function(2, b=3, c=4) == FIRST


def test_bare_and_empty_decorators_draw_a_fresh_seed_on_each_call():
    @seeded()
    def empty():
        return draw()

    assert len({fresh(), fresh(), empty(), empty()}) == 4


def test_called_with_a_function_it_takes_options():
    decorated = seeded(lambda: torch.get_deterministic_debug_mode(), deterministic="warn")
    assert decorated() == 1


def test_methods_of_every_kind():
    holder = Holder()
    assert holder.method() == Holder.method(holder) == holder() == (3, FIRST)
    assert Holder.of_class() == holder.of_class() == Holder.of_class_inside() == (3, FIRST)
    assert Holder.static() == holder.static() == holder.static_inside() == FIRST
    assert holder.value == (3, FIRST)
    holder.value = 5
    assert holder.value == (5, FIRST)
    assert holder.cached == holder.cached == (5, FIRST)
    assert holder.looked_up("a") == holder.looked_up("a") == ("a", FIRST)
    assert [*holder.steps()] == [(5, FIRST)]
    assert Holder.value.__doc__ == "A property's docstring."


def test_modules_initialise_and_run_the_same():
    a, b = Model(), Model()
    assert torch.equal(a.linear.weight, b.linear.weight)
    x = torch.ones(4, 2)
    assert torch.equal(a(x), b(x))
    assert torch.equal(copy.deepcopy(a)(x), a(x))


def test_lambdas_partials_builtins_and_callable_objects():
    assert seeded(1029)(lambda: draw())() == FIRST
    partial = seeded(1029)(functools.partial(function.__wrapped__, 1, c=3))
    assert partial() == FIRST
    assert partial.func is function.__wrapped__
    assert seeded(1029)(random.random)() == FIRST[0]
    assert seeded(1029)(operator.add)(1, 2) == 3
    instance = seeded(1029)(Callable())
    assert instance(n=2) == [FIRST, SECOND]
    assert instance.state == "kept" and isinstance(instance, Callable)
    model = Model()
    assert isinstance(seeded(1029)(model), torch.nn.Module)
    assert [*seeded(1029)(model).parameters()] == [*model.parameters()]
    bound = seeded(1029)(Callable().__call__)
    assert bound() == [FIRST]


@pytest.mark.parametrize("decorator", [seeded, seeded(), seeded(1029)])
def test_classes_are_refused(decorator):
    with pytest.raises(TypeError, match="decorate the methods"):
        decorator(Holder)


@pytest.mark.parametrize("thing", [None, 3, "draw", [draw]])
def test_what_cannot_be_called_is_refused(thing):
    with pytest.raises(TypeError, match="expected a callable"):
        seeded(1029)(thing)


def test_an_error_of_the_body_passes_through():
    @seeded(1029)
    def fails():
        draw()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails()


def test_recursion_nests():
    @seeded(1029)
    def recursive(depth):
        first = draw()
        inner = recursive(depth - 1) if depth else []
        return [first, *inner, draw()]

    assert recursive(2) == [FIRST] * 3 + [SECOND] * 3


# What a decorated function keeps

DECORATED = [function, generator, coroutine, async_generator, Holder.method, Model.forward]


@pytest.mark.parametrize("decorated", DECORATED, ids=lambda f: f.__qualname__)
def test_name_docstring_signature_source_and_kind_are_kept(decorated):
    original = decorated.__wrapped__
    assert decorated.__name__ == original.__name__
    assert decorated.__qualname__ == original.__qualname__
    assert decorated.__doc__ == original.__doc__
    assert decorated.__module__ == original.__module__
    assert inspect.signature(decorated) == inspect.signature(original)
    assert inspect.getsource(decorated) == inspect.getsource(original)
    for kind in (
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        asyncio.iscoroutinefunction if sys.version_info < (3, 14) else inspect.isfunction,
    ):
        assert kind(decorated) == kind(original)


def test_the_objects_that_they_return_are_of_the_same_kind():
    assert inspect.isgenerator(generator())
    running = coroutine()
    assert inspect.iscoroutine(running)
    running.close()
    assert inspect.isasyncgen(async_generator())


@pytest.mark.parametrize("decorated", [function, Holder.method, Model.forward])
@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_functions_pickle_and_copy(decorated, module):
    assert module.loads(module.dumps(decorated)) is decorated
    assert copy.copy(decorated) is copy.deepcopy(decorated) is decorated


def test_other_callables_pickle_and_copy():
    for target in (functools.partial(undecorated, 2), Callable(), Holder().method):
        decorated = seeded(1029)(target)
        for again in (
            pickle.loads(pickle.dumps(decorated)),
            cloudpickle.loads(cloudpickle.dumps(decorated)),
            copy.copy(decorated),
            copy.deepcopy(decorated),
        ):
            assert again is not decorated
            assert again() == decorated()


def test_the_proxys_library_is_loaded_where_a_proxy_is_made():
    run_python(
        """
import functools, sys
from seedscope import evaluating, seeded, Stream
@seeded(1029)
def function(): pass
function()
assert "wrapt" not in sys.modules
seeded(1029)(functools.partial(function))()
assert "wrapt" in sys.modules
"""
    )


def test_local_functions_travel_by_cloudpickle_with_their_scope():
    offset = 5

    @seeded(1029)
    def local():
        return offset, draw()

    again = pickle.loads(cloudpickle.dumps(local))
    assert again is not local
    assert again() == (5, FIRST)


def test_a_decorated_function_runs_in_a_spawned_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(function, (1,)) == FIRST
        assert pool.apply(Holder().method) == (3, FIRST)
        assert pool.apply(seeded(1029)(functools.partial(undecorated, 2))) == [FIRST, SECOND]


# Generators


def test_the_scope_is_open_only_while_the_body_runs():
    before = snapshot()
    running = generator(3)
    assert before.changed(snapshot()) == ()
    assert next(running) == FIRST
    assert before.changed(snapshot()) == ()
    draw()  # the caller draws from its own stream in between
    before.restore()
    assert next(running) == SECOND
    assert before.changed(snapshot()) == ()


def test_settings_that_a_body_changes_are_its_own_between_steps():
    @seeded(1029)
    def body():
        torch.backends.cudnn.benchmark = True
        yield
        yield torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()

    running = body()
    next(running)
    assert not torch.backends.cudnn.benchmark
    assert next(running) == (True, 2)


def test_interleaved_generators_each_see_their_own_sequence():
    pairs = [*zip(generator(4), generator(4), strict=True)]
    assert pairs == [(x, x) for x in (FIRST, SECOND, THIRD, FOURTH)]


def test_send_throw_close_and_the_return_value():
    log = []

    @seeded(1029)
    def body():
        try:
            got = yield draw()
            log.append(("sent", got, draw()))
            try:
                yield
            except KeyError as error:
                log.append(("thrown", str(error), draw()))
            yield
        finally:
            log.append(("closed", draw()))

    running = body()
    assert next(running) == FIRST
    running.send("x")
    running.throw(KeyError("y"))
    running.close()
    assert log == [("sent", "x", SECOND), ("thrown", "'y'", THIRD), ("closed", FOURTH)]

    with pytest.raises(StopIteration) as stop:
        running = generator(0)
        next(running)
    assert stop.value.value == "done"


def test_yield_from_both_ways():
    @seeded(1029)
    def outer():
        return (yield from inner())

    def inner():
        got = yield draw()
        return got, draw()

    def plain():
        return (yield from outer())

    running = plain()
    assert next(running) == FIRST
    with pytest.raises(StopIteration) as stop:
        running.send("x")
    assert stop.value.value == ("x", SECOND)


def test_a_body_that_ignores_close_is_told_so():
    @seeded(1029)
    def stubborn():
        while True:
            with contextlib.suppress(GeneratorExit):
                yield

    running = stubborn()
    next(running)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        running.close()


def test_a_dropped_generator_runs_its_finally_in_its_scope():
    log = []

    @seeded(1029)
    def body():
        try:
            yield
        finally:
            log.append(draw())

    running = body()
    next(running)
    del running
    gc.collect()
    assert log == [FIRST]


def test_a_generator_in_a_garbage_cycle_opens_no_scope_where_the_collector_runs():
    opened = []

    class Watch(Source):
        name = "watch"

        def capture(self):
            opened.append(1)
            return 0

        def seed(self, seed):
            pass

        restore = seed

    @seeded(1029)
    def body(cycle):
        yield cycle

    unregister = register_source(Watch())
    cycle = []
    cycle.append(body(cycle))
    next(cycle[0])
    steps = len(opened)
    del cycle
    gc.collect()
    unregister()
    assert len(opened) == steps
    assert function(1) == FIRST


def test_throwing_into_a_generator_raises_the_bodys_error():
    running = generator()
    next(running)
    with pytest.raises(ZeroDivisionError):
        running.throw(ZeroDivisionError())
    with pytest.raises(StopIteration):
        next(running)
    running = generator()
    next(running)
    with pytest.raises(GeneratorExit):
        running.throw(GeneratorExit())


# Coroutines


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
    with pytest.warns(RuntimeWarning, match=r"coroutine 'coroutine' was never awaited") as warned:
        coroutine()
        gc.collect()
    assert len(warned) == 1


def test_async_callable_objects_and_hidden_bodies():
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


# Async generators


def test_async_generators_see_their_own_sequence():
    async def collect(n):
        return [item async for item in async_generator(n)]

    async def main():
        return await asyncio.gather(*(collect(4) for _ in range(3)))

    assert asyncio.run(main()) == [[FIRST, SECOND, THIRD, FOURTH]] * 3


def test_asend_athrow_aclose_and_early_drop():
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


def test_an_async_generator_left_to_the_loop_is_closed_in_its_scope():
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

    asyncio.run(main())  # closes what is unfinished at its end
    assert log == [FIRST]


def test_fresh_seeds_are_drawn_once_for_each_generator():
    @seeded
    def body():
        yield draw()
        yield draw()

    a, b = [*body()], [*body()]
    assert a != b and a[0] != a[1]
