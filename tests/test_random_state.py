"""`RandomState` saves the states when it is asked, and restores them when it is loaded."""

from __future__ import annotations

import contextlib
import functools
import io
import random
import warnings

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.stateful import Stateful

from helpers import Lottery, draw
from seedscope import RandomState, Source, Stream, isolated, register_source, seeded, snapshot


def saved_and_loaded(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_state_is_that_of_the_call_and_loading_restores_at_once():
    with seeded(1029):
        state = RandomState()
        draw()
        saved = saved_and_loaded(state.state_dict())
        expected = draw()
        assert draw() != expected
        state.load_state_dict(saved)
        assert draw() == expected


def test_another_process_object_continues_from_the_saved_state():
    with seeded(1029):
        draw()
        saved, expected = RandomState().state_dict(), draw()
    before = snapshot()
    with seeded(5):
        RandomState().load_state_dict(saved)
        assert draw() == expected
    assert snapshot() == before


def test_settings_stay_as_the_program_has_set_them():
    outer = snapshot()
    saved = RandomState().state_dict()
    torch.backends.cudnn.benchmark = True
    RandomState().load_state_dict(saved)
    assert torch.backends.cudnn.benchmark
    outer.restore()


def test_it_governs_only_its_sources():
    with seeded(1029):
        state = RandomState(sources=["python"])
        saved = state.state_dict()
        expected = random.random(), np.random.rand()
        assert list(saved["sources"]) == ["python"]
        everything = RandomState().state_dict()
        state.load_state_dict(everything)  # the state of NumPy is not its own
        random.seed(5)
        state.load_state_dict(saved)
        assert random.random() == expected[0]
        assert np.random.rand() != expected[1]


def test_a_damaged_state_is_refused_and_nothing_is_changed():
    with seeded(1029):
        before = snapshot()
        for wrong in ({}, {"format": 2, "sources": {}}, {"format": 1, "sources": {"dice": 1}}):
            with pytest.raises(ValueError, match=r"RandomState|not registered"):
                RandomState().load_state_dict(wrong)
        with pytest.raises(ValueError, match=r"not a RandomState.*it has .*settings"):
            RandomState().load_state_dict(before.state_dict())
        saved = RandomState().state_dict()
        saved["sources"]["numpy"]["state"]["pos"] = 10**6
        with pytest.raises(ValueError, match="'numpy' is damaged"):
            RandomState().load_state_dict(saved)
        assert snapshot() == before


def test_unknown_sources_are_refused():
    with pytest.raises(ValueError, match="dice"):
        RandomState(sources=["dice"])


def test_it_is_stateful_and_has_registered_sources():
    assert isinstance(RandomState(), Stateful)
    lottery = Lottery()
    unregister = register_source(lottery)
    try:
        saved = RandomState().state_dict()
        assert "lottery" in repr(RandomState())
        lottery.draw()
        RandomState().load_state_dict(saved)
        assert lottery.state == 7
    finally:
        unregister()


@pytest.mark.parametrize("make", [RandomState, functools.partial(Stream, 3)])
def test_a_source_that_a_state_lacks_is_named(make):
    saved = make().state_dict()
    del saved["sources"]["numpy"]
    before = snapshot()
    with pytest.raises(RuntimeWarning, match="has no numpy: "):  # of the tests' filter
        make().load_state_dict(saved)
    assert before == snapshot()
    with isolated(), pytest.warns(RuntimeWarning, match="has no numpy: ") as told:
        make().load_state_dict(saved)
    assert [warning.filename for warning in told] == [__file__]
    with isolated(), warnings.catch_warnings(action="error"):
        make(sources=["python", "torch"]).load_state_dict(saved)


@pytest.mark.parametrize("make", [RandomState, functools.partial(Stream, 3)])
@pytest.mark.parametrize("error", [TypeError, TimeoutError])
def test_a_source_that_cannot_be_saved_stops_no_load_and_an_alarm_does(make, error):
    class Unsavable(Lottery, Source):
        def encode(self, state):
            raise error("of the source, or of the alarm's handler")

    state = make()
    saved = state.state_dict()
    unregister = register_source(Unsavable())
    expected = pytest.raises(TimeoutError) if error is TimeoutError else contextlib.nullcontext()
    try:
        with isolated(sources=["python", "numpy", "torch"]), expected:
            state.load_state_dict(saved)
    finally:
        unregister()


def test_a_state_of_outside_lacks_nothing_inside_a_scope():
    """Generators that are made without a seed have a state in a scope alone."""
    saved = RandomState().state_dict()
    with seeded(3), warnings.catch_warnings(action="error"):
        RandomState().load_state_dict(saved)
