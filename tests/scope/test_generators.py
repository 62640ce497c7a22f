"""Decorated generators: their scope is open only while their body runs."""

from __future__ import annotations

import contextlib
import gc
import sys

import pytest
import torch

from decorated import FIRST, FOURTH, SECOND, THIRD, draw, function, generator
from seedscope import Source, current_scope, register_source, seeded, snapshot

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


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


def test_send_throw_close_and_the_return_value_pass_through():
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

    running = generator(0)
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == "done"


def test_close_returns_what_that_of_the_plain_generator_returns():
    def body():
        try:
            yield
        except GeneratorExit:
            return "closed"  # to the caller of `close`, since Python 3.13

    plain, decorated = body(), seeded(1029)(body)()
    next(plain), next(decorated)
    assert decorated.close() == plain.close()
    assert decorated.close() is None


def test_yield_from_works_in_and_around_a_decorated_generator():
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


def test_closing_a_body_that_ignores_close_raises():
    @seeded(1029)
    def stubborn():
        for _ in range(2):  # gives in the second time, when the generator is dropped
            with contextlib.suppress(GeneratorExit):
                yield

    running = stubborn()
    next(running)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        running.close()


@pytest.mark.parametrize("hidden", [False, True])
def test_a_body_that_ignores_close_never_leaves_its_scope(hidden, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # what Python says of such a body
    modes = []

    def stubborn():
        while True:
            try:
                yield
            except GeneratorExit:
                draw()
                modes.append(torch.get_deterministic_debug_mode())

    decorated = seeded(1029)((lambda: stubborn()) if hidden else stubborn)
    closed, dropped = decorated(), decorated()
    next(closed)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        closed.close()
    next(dropped)
    del dropped, closed
    gc.collect()
    assert modes == [2] * 4


def test_a_body_is_closed_even_if_its_scope_cannot_open():
    log = []

    @seeded(1029)
    def body():
        try:
            yield
        finally:
            log.append("closed")

    class Broken(Source):
        name = "broken"

        def capture(self):
            raise OSError("broken")

        seed = restore = capture

    running = body()
    next(running)
    unregister = register_source(Broken())
    with pytest.raises(OSError, match="broken"):
        running.close()
    unregister()
    assert log == ["closed"]


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


def test_a_generator_that_the_collector_closes_opens_no_scope():
    """The generator is in a garbage cycle."""
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


def test_fresh_seeds_are_drawn_once_for_each_generator():
    @seeded
    def body():
        yield draw()
        yield draw()

    a, b = [*body()], [*body()]
    assert a != b
    assert a[0] != a[1]


def test_a_fresh_generator_keeps_its_seed_between_steps():
    @seeded
    def steps():
        while True:
            yield current_scope().seed

    running = steps()
    assert next(running) == next(running) == next(running)
