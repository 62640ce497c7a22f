"""Every kind of callable runs in a scope, and stays what it was."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import multiprocessing
import operator
import pickle
import random
import sys

import cloudpickle
import pytest
import torch
import wrapt

from decorated import (
    FIRST,
    SECOND,
    Callable,
    Holder,
    Model,
    async_generator,
    coroutine,
    draw,
    fresh,
    function,
    generator,
    undecorated,
)
from helpers import run_python
from seedscope import seeded, snapshot

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


def test_a_function_starts_the_same_stream_on_each_call():
    assert function(1) == function(2, b=3, c=4) == FIRST


def test_bare_and_empty_decorators_draw_a_fresh_seed_per_call():
    @seeded()
    def empty():
        return draw()

    assert len({fresh(), fresh(), empty(), empty()}) == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda it: it.static,
        lambda it: it.of_class,
        lambda it: lambda: it.value,
        lambda it: lambda: Bare().cached,
        lambda it: it.partial,
        lambda it: functools.partial(it.dispatched, 1),
        lambda it: seeded(functools.partial(draw)),
        lambda it: seeded(random.random),
        lambda it: seeded(it.method),
        lambda it: seeded(Callable()),
    ],
)
def test_a_bare_decorator_takes_every_kind_of_callable(make):
    call, outside = make(Bare()), snapshot()
    assert call() != call()
    assert snapshot() == outside
    with seeded(5):
        first = random.random()
        call()
        second = random.random()
    with seeded(5):
        assert (random.random(), random.random()) == (first, second)


def test_seeded_called_with_a_function_takes_options():
    decorated = seeded(lambda: torch.get_deterministic_debug_mode(), deterministic="warn")
    assert decorated() == 1


def test_methods_of_every_kind_run_in_a_scope():
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


@wrapt.decorator
def tell_instance(wrapped, instance, args, kwargs):
    return instance, wrapped(*args, **kwargs)


class Registered:
    """Is told its name, and binds as a function."""

    name = None

    def __init__(self, function):
        self.function = function

    def __set_name__(self, owner, name):
        self.name = owner.__name__, name

    def __get__(self, instance, owner=None):
        return functools.partial(self.function, instance)

    def __call__(self, *args):
        return self.function(*args)


class Bare:
    """A bare decorator takes every descriptor for what it decorates, and none for a seed."""

    def method(self, *more):
        return self, *more, draw()

    static = seeded(staticmethod(draw))
    of_class = seeded(classmethod(method))
    value = seeded(property(method))
    cached = seeded(functools.cached_property(method))
    partial = seeded(functools.partialmethod(method, 1))
    dispatched = seeded(functools.singledispatchmethod(method))


class Descriptors:
    @seeded(1029)
    @tell_instance
    def wrapped(self):
        return draw()

    @seeded(1029)
    @tell_instance
    @classmethod
    def wrapped_of_class(cls):
        return draw()

    @seeded(1029)
    @tell_instance
    @staticmethod
    def wrapped_static():
        return draw()

    def with_arguments(self, a, b):
        return self, a, b, draw()

    partial = seeded(1029)(functools.partialmethod(with_arguments, 1))
    bare = seeded(functools.partialmethod(with_arguments, 1))

    @seeded(1029)
    @functools.singledispatchmethod
    def dispatched(self, value):
        return self, value, draw()

    @dispatched.register
    def _(self, value: int):
        return self, "int", draw()

    @seeded(1029)
    @functools.singledispatchmethod
    @classmethod
    def dispatched_of_class(cls, value):
        return cls, value, draw()

    @seeded(1029)
    @functools.cache  # noqa: B019
    def cached(self, key):
        return self, key, draw()

    @seeded(1029)
    @Registered
    def registered(self):
        return self, draw()

    unbound = seeded(1029)(Callable())


def test_a_wrapped_method_gets_its_instance():
    it = Descriptors()
    assert it.wrapped() == Descriptors.wrapped(it) == (it, FIRST)
    assert it.wrapped_of_class() == Descriptors.wrapped_of_class() == (Descriptors, FIRST)
    assert it.wrapped_static() == Descriptors.wrapped_static() == (None, FIRST)


def test_partial_methods_bind_and_run_in_a_scope():
    it = Descriptors()
    assert it.partial(2) == it.partial(b=2) == Descriptors.partial(it, 2) == (it, 1, 2, FIRST)
    assert it.bare(2)[3] != it.bare(2)[3]


def test_dispatched_methods_bind_and_can_register():
    it = Descriptors()
    assert it.dispatched("a") == Descriptors.dispatched(it, "a") == (it, "a", FIRST)
    assert it.dispatched(3) == (it, "int", FIRST)
    Descriptors.dispatched.register(float, lambda self, value: ("float", draw()))
    assert it.dispatched(3.0) == ("float", FIRST)
    assert it.dispatched_of_class("a") == (Descriptors, "a", FIRST)
    assert Descriptors.dispatched_of_class("a") == (Descriptors, "a", FIRST)


def test_cached_methods_bind_and_show_their_cache():
    it = Descriptors()
    assert it.cached(1) == it.cached(1) == Descriptors.cached(it, 1) == (it, 1, FIRST)
    assert it.cached.cache_info() == Descriptors.cached.cache_info() == (2, 1, None, 1)
    it.cached.cache_clear()


def test_a_callable_that_does_not_bind_gets_no_instance():
    assert Descriptors().unbound() == Descriptors.unbound() == [FIRST]
    assert Descriptors().unbound(2) == [FIRST, SECOND]


def test_a_descriptor_is_told_its_name():
    it = Descriptors()
    assert Descriptors.__dict__["registered"].name == ("Descriptors", "registered")
    assert it.registered() == (it, FIRST)


@pytest.mark.parametrize("kind", [classmethod, staticmethod, property, functools.cached_property])
def test_a_proxy_of_a_descriptor_that_does_not_bind_is_refused(kind):
    with pytest.raises(TypeError, match="expected a callable"):
        seeded(1029)(wrapt.ObjectProxy(kind(draw)))


def test_modules_initialise_and_run_the_same():
    a, b = Model(), Model()
    assert torch.equal(a.linear.weight, b.linear.weight)
    x = torch.ones(4, 2)
    assert torch.equal(a(x), b(x))
    assert torch.equal(copy.deepcopy(a)(x), a(x))


def test_lambdas_partials_builtins_and_objects_run_in_a_scope():
    assert seeded(1029)(lambda: draw())() == FIRST
    partial = seeded(1029)(functools.partial(function.__wrapped__, 1, c=3))
    assert partial() == FIRST
    assert partial.func is function.__wrapped__
    assert seeded(1029)(random.random)() == FIRST[0]
    assert seeded(1029)(operator.add)(1, 2) == 3
    instance = seeded(1029)(Callable())
    assert instance(n=2) == [FIRST, SECOND]
    assert instance.state == "kept"
    assert isinstance(instance, Callable)
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
def test_an_object_that_is_not_callable_is_refused(thing):
    with pytest.raises(TypeError, match="expected a callable"):
        seeded(1029)(thing)


def test_an_error_of_the_body_passes_through():
    @seeded(1029)
    def fails():
        draw()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails()


def test_recursive_calls_nest_their_scopes():
    @seeded(1029)
    def recursive(depth):
        first = draw()
        inner = recursive(depth - 1) if depth else []
        return [first, *inner, draw()]

    assert recursive(2) == [FIRST] * 3 + [SECOND] * 3


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


def test_returned_generators_and_coroutines_keep_their_kind():
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


def test_wrapt_is_loaded_only_when_a_proxy_is_made():
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


def test_cloudpickle_carries_a_local_function_with_its_scope():
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
