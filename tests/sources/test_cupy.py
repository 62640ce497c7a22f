"""CuPy, replaced by a stand-in."""

from __future__ import annotations

import os
import random
import secrets
import sys
import types

import pytest

from seedscope import seeded, snapshot


@pytest.fixture
def cupy(monkeypatch):
    """The part of cupy.random that keeps its global generators."""
    module = types.ModuleType("cupy.random._generator")
    module._random_states = {}

    class RandomState:
        def __init__(self, seed):
            self.generator = random.Random(int(seed))

    def get_random_state(device=0):
        if device not in module._random_states:
            seed = os.getenv("CUPY_SEED") or secrets.randbits(32)
            module._random_states[device] = RandomState(seed)
        return module._random_states[device]

    module.rand = lambda device=0: get_random_state(device).generator.random()
    monkeypatch.setitem(sys.modules, "cupy.random._generator", module)
    return module


def test_cupy_repeats_inside_and_its_generators_come_back(cupy):
    cupy.rand()
    mine = dict(cupy._random_states)
    with seeded(1029) as scope:
        first = cupy.rand(), cupy.rand(1)
        assert "cupy" in scope.used()
    with seeded(1029):
        assert (cupy.rand(), cupy.rand(1)) == first
    assert cupy._random_states == mine
    assert "CUPY_SEED" not in os.environ
    assert "cupy" not in snapshot().state_dict()["sources"]
