"""The functions of libraries that are replaced while a scope is open."""

from __future__ import annotations

import random
import secrets
from multiprocessing.process import BaseProcess
from unittest import mock

import numpy as np
import pytest
import torch

from helpers import draw, run_python
from seedscope import isolated, seeded, snapshot


def functions():
    return [
        *(random.seed, random.getstate, random.setstate, random.Random.seed),
        *(np.random.seed, np.random.get_state, np.random.set_state),
        *(torch.get_rng_state, torch.set_rng_state, torch.random.set_rng_state),
        *(BaseProcess.start, np.random.bit_generator.randbits),
    ]


@pytest.fixture
def mine(monkeypatch):
    """A user's own function, in place of `random.seed`."""

    def seed(*args):
        return None

    return seed


def test_all_are_put_back_whatever_is_governed():
    before = functions()
    for sources in (None, ["python"], []):
        with seeded(1029, sources=sources):
            assert functions() != before
            with isolated(), seeded(5, sources=["torch"]):
                pass
            assert functions() != before
        assert functions() == before


def test_one_function_under_two_names_stays_one():
    with seeded(1029):
        assert torch.set_rng_state is torch.random.set_rng_state


def test_a_function_that_a_user_puts_there_in_a_block_stays(mine, monkeypatch):
    monkeypatch.setattr(random, "seed", random.seed)  # restored after the test
    with seeded(1029):
        random.seed = mine
    assert random.seed is mine


def test_a_patch_around_a_block_ends_as_it_began(mine):
    original = random.seed
    with mock.patch("random.seed", mine):
        with seeded(1029):
            assert random.seed is not mine
        assert random.seed is mine
    assert random.seed is original


def test_a_patch_that_ends_in_a_block_leaves_nothing_behind(mine):
    original = random.seed
    patch = mock.patch("random.seed", mine)
    patch.start()
    with seeded(1029):
        patch.stop()
    assert random.seed is original


def test_a_patch_that_outlives_its_block_is_healed_by_the_next(mine):
    original = random.seed
    patch = mock.patch("random.seed", mine)
    with seeded(1029):
        patch.start()
    patch.stop()  # puts back what it has found in the block
    with seeded(3) as scope:
        draw()
    assert scope.reseeded == ()
    assert random.seed is original


def test_an_isolated_generator_keeps_the_block_that_goes_on():
    @isolated
    def steps():
        while True:
            yield np.random.default_rng().random()

    def run():
        with seeded(1029):
            next(begun)
            return np.random.default_rng().random()

    begun = steps()
    next(begun)
    assert run() == run()


def test_a_snapshot_of_outside_keeps_the_block_that_goes_on():
    outside = snapshot()

    def run():
        with seeded(1029):
            with seeded(2):
                outside.restore()
            with isolated():
                outside.restore()
            return np.random.default_rng().random(), draw()[6:]

    assert run() == run()
    assert np.random.bit_generator.randbits == secrets.randbits


def test_an_interrupt_in_the_first_block_loses_no_function():
    """Wherever it comes while the replacements are made."""
    code = """
import random, sys
import numpy as np, torch
from seedscope import seeded
from seedscope.sources import watch
from multiprocessing.process import BaseProcess

def functions():
    return [random.seed, np.random.seed, torch.set_rng_state, BaseProcess.start]

before, count, file = functions(), 0, watch.__file__
def trace(frame, event, arg):
    global count
    if frame.f_code.co_filename != file:
        return None
    if event == "line":
        count += 1
        if count == at:
            sys.settrace(None)
            raise KeyboardInterrupt
    return trace

for at in range(1, 400):
    watch.WATCH._owners, watch.WATCH._names = [], []
    watch.WATCH._originals, watch.WATCH._replacements = [], []
    count = 0
    sys.settrace(trace)
    try:
        with seeded(1):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    assert functions() == before, at
    if count < at:
        break
print(at)
"""
    assert int(run_python(code)) > 60


def test_a_first_scope_works_where_the_load_of_numpys_generators_was_interrupted():
    """Their package then lacks its modules as attributes."""
    code = """
import numpy as np
del np.random.bit_generator
from seedscope import seeded
def draw():
    with seeded(3):
        return np.random.rand(), np.random.default_rng().random()
print(draw() == draw())
"""
    assert run_python(code) == "True"


def test_a_function_that_was_taken_from_a_block_works_after_it():
    before = snapshot()
    with seeded(3):
        kept = random.seed
    kept(5)
    assert random.getstate() == random.Random(5).getstate()
    before.restore()
