"""Generator objects that code holds, each as a source."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch

from seedscope import seeded
from seedscope.sources import generators
from seedscope.sources.generators import KINDS, is_governed


class Dice(random.Random):
    """A subclass, which may have more state."""


class Own(np.random.PCG64):
    """A bit generator of someone else."""


def draws(generator):
    """Some numbers, among them one of each pair of Gaussians and a half of a word."""
    if isinstance(generator, random.Random):
        return [generator.random(), generator.gauss(0, 1), generator.getrandbits(7)]
    if isinstance(generator, np.random.Generator):
        small = generator.integers(0, 9, dtype=np.uint32, size=3).tolist()
        return [generator.random(), generator.standard_normal(), small]
    if isinstance(generator, np.random.RandomState):
        return [generator.rand(), generator.standard_normal(), generator.randint(9)]
    if isinstance(generator, np.random.BitGenerator):
        return [generator.random_raw()]
    return [torch.rand(1, generator=generator).item(), torch.randn(1, generator=generator).item()]


BITS = ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"]
MAKERS = {
    "Random": random.Random,
    "a subclass of Random": Dice,
    "torch": torch.Generator,
    "a bit generator of someone else": lambda: np.random.Generator(Own()),
    **{f"{name} alone": getattr(np.random, name) for name in BITS},
    **{f"Generator of {n}": lambda n=n: np.random.Generator(getattr(np.random, n)()) for n in BITS},
    **{
        f"RandomState of {n}": lambda n=n: np.random.RandomState(getattr(np.random, n)())
        for n in BITS
    },
}


def source_of(generator):
    kind = next(kind for kind in KINDS if isinstance(generator, kind))
    return KINDS[kind]("path", generator)


@pytest.fixture(params=["in memory", "by public calls"])
def way(request, monkeypatch):
    if request.param == "by public calls":
        monkeypatch.setattr(generators, "_python_is_known", lambda: False)
        monkeypatch.setattr(generators, "_place_of_gauss", lambda: None)
        monkeypatch.setattr(generators, "_pcg64_is_known", lambda: False)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_seed_decides_the_numbers_and_a_restore_puts_them_back(make, way):
    generator = make()
    source = source_of(generator)
    draws(generator)  # so that a second Gaussian and a half of a word wait
    before = source.capture()
    expected = draws(generator), draws(generator)
    source.restore(before)
    assert source.same(before, source.capture())
    source.seed(5)
    fresh = source.fingerprint()
    first = draws(generator)
    assert not source.same(before, source.capture())
    assert not source.same(fresh, source.fingerprint())
    source.seed(6)
    other = draws(generator)
    source.seed(5)
    assert source.same(fresh, source.fingerprint())
    assert draws(generator) == first
    assert first != other
    source.restore(before)
    assert (draws(generator), draws(generator)) == expected


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_both_ways_give_the_same_numbers(make, monkeypatch):
    results = []
    for place in (generators._place_of_gauss(), None):
        monkeypatch.setattr(generators, "_place_of_gauss", lambda place=place: place)
        monkeypatch.setattr(generators, "_pcg64_is_known", lambda place=place: bool(place))
        generator = make()
        draws(generator)
        source_of(generator).seed(7)
        results.append([draws(generator), draws(generator)])
    assert results[0] == results[1]


def test_the_layout_of_a_pcg64_is_known_here_and_another_one_is_noticed(monkeypatch):
    assert generators._find_pcg64() is (sys.byteorder == "little")
    write = generators._PCG64Memory.write

    def other(self, words, half):
        write(self, words[16:] + words[:16], half)

    monkeypatch.setattr(generators._PCG64Memory, "write", other)
    assert not generators._find_pcg64()


def test_python_and_torch_get_what_their_own_seeds_give():
    ours, theirs = random.Random(), torch.Generator()
    source_of(ours).seed(1029)
    source_of(theirs).seed(1029)
    assert ours.random() == random.Random(1029).random()
    expected = torch.rand(1, generator=torch.Generator().manual_seed(1029))
    assert torch.equal(torch.rand(1, generator=theirs), expected)


@pytest.mark.parametrize("name", BITS[1:])
def test_states_that_are_written_are_spread_evenly(name):
    generator = np.random.Generator(getattr(np.random, name)())
    source = source_of(generator)
    values = []
    for seed in range(4000):
        source.seed(seed)
        values.append(generator.random())
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert counts.min() > 320, counts
    assert counts.max() < 480, counts
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


def test_a_seed_inside_a_scope_is_not_taken_for_a_generator_without_one():
    generator = random.Random(3)
    source = source_of(generator)
    with seeded(1029) as scope:
        source.seed(5)
        assert scope.used() == ()
    assert generator.random() == random.Random(5).random()


def test_the_generators_of_the_process_belong_to_the_scope():
    governed = [
        random.random.__self__,
        np.random.mtrand._rand,
        np.random.get_bit_generator(),
        np.random.Generator(np.random.get_bit_generator()),
        torch.default_generator,
    ]
    assert all(map(is_governed, governed))
    assert not any(is_governed(make()) for make in MAKERS.values())
