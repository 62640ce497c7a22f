"""Sources that users register, and sources that fail."""

from __future__ import annotations

import copy
import math
import random
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from helpers import Lottery
from seedscope import RestoreError, Source, Stream, register_source, seeded, snapshot
from seedscope.sources.base import same_state


def test_a_source_is_governed_until_it_is_unregistered():
    source = Lottery()
    unregister = register_source(source)
    with seeded(1029):
        first = source.draw()
        unregister()
    assert source.state == 7, "a source unregistered inside the block is still restored"
    with seeded(1029):
        source.draw()
    assert source.state != 7
    assert first != source.draw()


@pytest.mark.parametrize(
    ("attributes", "error", "says"),
    [
        ({}, TypeError, "lacks a name"),
        ({"name": "x"}, TypeError, "lacks capture, seed, restore"),
        ({"name": 3, "capture": id, "seed": id, "restore": id}, TypeError, "name"),
        (
            {"name": "torch", "capture": id, "seed": id, "restore": id},
            ValueError,
            "'torch' is already registered",
        ),
    ],
)
def test_a_source_that_cannot_work_is_refused(attributes, error, says):
    with pytest.raises(error, match=says):
        register_source(types.SimpleNamespace(**attributes))


@pytest.mark.parametrize("is_hashed", [False, True])
def test_a_source_that_compares_by_value_keeps_its_state(is_hashed):
    @dataclass(unsafe_hash=is_hashed)
    class ByValue(Lottery, Source):
        name: str
        state: int = 1

    source = ByValue("by value")
    unregister = register_source(source)
    try:
        stream = Stream(1029)
        with stream as scope:
            source.state += 1
            assert scope.used() == ("by value",)
        assert source.state == 1
        with stream:
            assert source.state == 1030
    finally:
        unregister()


def test_a_source_is_compared_by_its_own_same():
    class OfArrays:
        name = "arrays"
        state = (np.zeros(2), math.nan)

        def capture(self):
            return [self.state]

        def seed(self, seed):
            self.state = (np.full(2, seed), math.nan)

        def restore(self, state):
            [self.state] = state

        def same(self, a, b):
            return bool((a[0][0] == b[0][0]).all())

    source = OfArrays()
    unregister = register_source(source)
    try:
        with seeded(1029) as scope:
            assert scope.used() == ()
            source.state = (np.ones(2), math.nan)
            assert scope.used() == ("arrays",)
    finally:
        unregister()


@pytest.mark.parametrize(
    "state", [math.nan, [np.array([math.nan])], {"x": torch.tensor([1, math.nan])}]
)
def test_a_state_with_a_nan_equals_itself(state):
    assert same_state(state, copy.deepcopy(state))
    assert not same_state(state, 0.0)


def test_the_optional_methods_of_a_users_own_object_are_called():
    class Own(Lottery):
        resumed = ()

        def resume(self, seed, state):
            self.resumed, self.state = (seed, state), state

        def changed(self, a, b):
            return ["lottery of my own"] if a != b else []

    source = Own()
    unregister = register_source(source)
    try:
        stream, before = Stream(1029, sources=["lottery"]), snapshot()
        with stream:
            left = source.draw()
            assert "lottery of my own" in before.changed(snapshot())
        assert not source.resumed
        with stream:
            assert source.resumed == (1029, left)
        assert before.changed(snapshot()) == ()
    finally:
        unregister()


def test_a_source_whose_restore_fails_does_not_stop_the_others():
    class Broken(Source):
        name = "broken"

        def capture(self):
            return 1

        def seed(self, seed):
            pass

        def restore(self, state):
            raise OSError("gone")

    def draw_and_set():
        random.random()
        torch.rand(1)
        np.random.rand()
        torch.use_deterministic_algorithms(False)

    unregister = register_source(Broken())
    before = snapshot()
    try:
        with pytest.raises(RestoreError, match="could not restore broken") as raised, seeded(1029):
            draw_and_set()
        assert [type(error) for error in raised.value.exceptions] == [OSError]
        assert before.changed(snapshot()) == ()
    finally:
        unregister()
    with seeded(1029):
        pass


def test_a_source_whose_seed_fails_leaves_nothing_changed():
    class Broken(Lottery):
        def seed(self, seed):
            self.state = 0
            raise OSError("no entropy")

    source = Broken()
    unregister = register_source(source)
    before = snapshot()
    with pytest.raises(OSError, match="no entropy"), seeded(1029):
        pass
    assert snapshot() == before
    assert source.state == 7
    unregister()
    with seeded(1029):
        pass
