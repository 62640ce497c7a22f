"""The contract that every source keeps, on each device of the machine."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fake_accelerator import FAKE
from helpers import Lottery
from seedscope import Snapshot, register_source, seeded, snapshot

pytestmark = pytest.mark.usefixtures("ways")


@pytest.fixture
def lottery():
    source = Lottery()
    unregister = register_source(source)
    yield source
    unregister()


def fake_draw():
    return FAKE.rand()


DRAWS = {
    "python": lambda: (random.random(), random.gauss(0, 1), random.sample(range(99), 5)),
    "numpy": lambda: (
        np.random.rand(),
        np.random.standard_normal(),
        np.random.permutation(9).tolist(),
    ),
    "torch": lambda: (torch.rand(1).item(), torch.randn(3).tolist(), torch.randperm(9).tolist()),
    "fake": fake_draw,
    "unseeded": lambda: (
        np.random.default_rng().random(),
        np.random.SeedSequence().entropy,
        np.random.RandomState().rand(),
        np.random.Generator(np.random.PCG64()).random(),
        random.Random().random(),
    ),
}


@pytest.fixture(params=[*DRAWS, "lottery", pytest.param("cuda", marks=pytest.mark.cuda)])
def source(request, lottery):
    """The name of each source, and a function that draws from it."""
    if request.param == "fake":
        FAKE.init()
    draws = {
        **DRAWS,
        "lottery": lottery.draw,
        "cuda": lambda: [
            torch.rand(1, device=f"cuda:{i}").item() for i in range(torch.cuda.device_count())
        ],
    }
    return request.param, draws[request.param]


def test_inside_it_repeats_and_outside_nothing_happened(source):
    _, draw = source
    before = snapshot()
    with seeded(1029):
        first = [draw(), draw()]
    assert snapshot() == before
    with seeded(1029):
        second = [draw(), draw()]
    with seeded(1030):
        other = [draw(), draw()]
    assert first == second
    assert first != other
    assert first[0] != first[1]
    assert snapshot() == before


def test_the_outer_sequence_is_what_it_would_have_been(source):
    name, draw = source
    if name == "unseeded":
        pytest.skip("outside a scope it is the operating system's entropy")

    def draw_and_fail():
        draw()
        raise ZeroDivisionError

    before = snapshot()
    expected = [draw() for _ in range(4)]
    before.restore()
    got = [draw()]
    with seeded(1029):
        draw()
        got_inside = draw()
    got += [draw(), draw()]
    with pytest.raises(ZeroDivisionError), seeded(3):
        draw_and_fail()
    got += [draw()]
    assert got == expected
    assert got_inside not in expected
    before.restore()


def test_used_names_what_the_block_has_drawn_from(source):
    name, draw = source
    with seeded(1029) as scope:
        assert scope.used() == ()
        expected = draw()
        assert scope.used() == (name,)
        continued = draw()
    assert scope.used() == (name,)
    with seeded(1029) as scope:
        assert (draw(), draw()) == (expected, continued), "used() must not move a source"
    with seeded(1029) as unused:
        pass
    assert unused.used() == ()


def test_a_source_that_is_not_governed_is_left_alone(source):
    name, draw = source
    others = [other for other in ("python", "torch") if other != name]
    before = snapshot()
    with seeded(1029, sources=others):
        first = draw()
    with seeded(1029, sources=others):
        assert draw() != first
    assert name == "unseeded" or name in before.changed(snapshot())
    before.restore()


def test_a_state_survives_saving(source, tmp_path):
    _, draw = source
    with seeded(1029):
        draw()
        torch.save(snapshot().state_dict(), tmp_path / "state.pt")
        expected = draw()
    with seeded(5):
        draw()
        Snapshot.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True)).restore()
        assert draw() == expected
