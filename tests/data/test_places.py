"""Where a generator is found: in modules, keys, members of an Enum, and other generators."""

from __future__ import annotations

import enum
import random
import sys
import warnings
from types import ModuleType

import made_up_noise.drawing
import numpy as np
import pytest
import torch
from made_up_noise.relative import Relative
from torch.utils.data import DataLoader, Dataset

from seedscope import SeededDataset

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Noise:
    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __call__(self):
        return self.rng.random()


class Kind(enum.Enum):
    NOISE = Noise()


class Holding(random.Random):
    """A generator that holds another one."""

    def __init__(self):
        super().__init__(0)
        self.inner = np.random.default_rng(3)


class Sized(Dataset):
    def __len__(self):
        return 6


class Dotted(Sized):
    def __getitem__(self, index):
        return made_up_noise.drawing.noise()


class Imported(Sized):
    def __getitem__(self, index):
        from made_up_noise.drawing import noise

        return noise()


class Attribute(Sized):
    def __init__(self):
        self.library = made_up_noise.drawing

    def __getitem__(self, index):
        return self.library.noise()


class Keys(Sized):
    def __init__(self):
        self.shares = {Noise(): 0.3, Noise(): 0.7}

    def __getitem__(self, index):
        return sum(noise() * share for noise, share in self.shares.items())


class Member(Sized):
    def __getitem__(self, index):
        return Kind.NOISE.value()


class Subclass(Sized):
    def __init__(self):
        self.rng = Holding()

    def __getitem__(self, index):
        return self.rng.inner.random()


PLACES = {
    Dotted: "made_up_noise.drawing.rng",
    Imported: "made_up_noise.drawing.rng",
    Relative: "made_up_noise.drawing.rng",
    Attribute: "made_up_noise.drawing.rng",
    Keys: "dataset.shares.<key 1>.rng",
    Member: "test_places.Kind.",
    Subclass: "dataset.rng.inner",
}


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("kind", PLACES)
def test_a_generator_is_seeded_wherever_it_is(kind, context):
    if (kind, context) == (Attribute, "spawn"):
        return  # a module cannot be pickled
    dataset = SeededDataset(kind(), 1)
    assert any(name.startswith(PLACES[kind]) for name in dataset.generators)
    alone = torch.tensor([dataset[index] for index in range(6)], dtype=torch.float64)
    assert len(alone.unique()) == 6
    options = {"multiprocessing_context": context, "generator": torch.Generator()}
    loader = DataLoader(dataset, 2, num_workers=2, **options)
    assert torch.equal(torch.cat([*loader]), alone)


class Seeded(np.random.PCG64):
    def __init__(self):
        super().__init__(3)


class Twister(np.random.MT19937):
    def __init__(self):
        super().__init__(3)


@pytest.mark.parametrize("kind", [Seeded, Twister])
def test_a_bit_generator_that_takes_no_seed_is_seeded(kind):
    rng = np.random.Generator(kind())
    dataset = SeededDataset([rng], 1)
    (source,) = dataset._drawing.held.sources
    before, numbers = source.capture(), []
    for seed in (1, 2, 1):
        source.seed(seed)
        numbers.append(rng.random())
    source.restore(before)
    assert numbers[0] == numbers[2] != numbers[1]
    assert rng.random() == kind_of(rng).random()


def kind_of(rng):
    """A new generator of the same kind."""
    return np.random.Generator(type(rng.bit_generator)())


def test_a_table_with_tuples_for_keys_is_searched_to_its_end():
    table = {i: {(i, j): j for j in range(400)} for i in range(300)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SeededDataset([table, random.Random(3)], 1).generators == ("dataset[1]",)


def test_no_code_of_a_module_runs():
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(name)

        __dict__ = property(lambda self: pytest.fail("was asked for its __dict__"))

    lazy = Lazy("lazy")
    assert SeededDataset([lazy, random.Random(3)], 1).generators == ("dataset[1]",)


class Attributes(Sized):
    """A method that names an attribute as a module is named which it does not import."""

    def __getitem__(self, index):
        return self.made_up_noise.drawing.rng


def test_an_attribute_is_not_taken_for_a_module_of_its_name():
    del globals()["made_up_noise"]  # as a global of this module it would be named
    try:
        assert SeededDataset(Attributes(), 1).generators == ()
    finally:
        globals()["made_up_noise"] = sys.modules["made_up_noise"]
