"""Generators that a dataset holds: seeded for each sample, in any process."""

from __future__ import annotations

import functools
import random
import sys

import albumentations
import numpy as np
import pytest
import torch
from monai import transforms as monai
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from seedscope import SeededDataset, loader_options, seeded, snapshot

SIZE = 8
OF_THE_MODULE = np.random.default_rng(3)


def of_the_module():
    return OF_THE_MODULE.random()


class Holding(Dataset):
    """A dataset whose samples are the numbers of `draw`, which holds a generator somewhere."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.tensor([float(index), *np.ravel(self.draw())], dtype=torch.float64)


class Attribute:
    def __init__(self):
        self.rng = np.random.default_rng()

    def __call__(self):
        return self.rng.random()


class Slotted:
    __slots__ = ("rng",)

    def __init__(self):
        self.rng = random.Random()

    def __call__(self):
        return self.rng.random()


class OfTheClass:
    R = np.random.RandomState()

    def __call__(self):
        return self.R.rand()


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.rng = torch.Generator()

    def forward(self):
        return torch.rand(1, generator=self.rng).item()


class Nested:
    """Transforms in a list in a dict, as pipelines are."""

    def __init__(self):
        self.steps = {"augment": [Slotted(), OfTheClass()], "net": nn.Sequential(Layer())}

    def __call__(self):
        return [*(step() for step in self.steps["augment"]), self.steps["net"][0]()]


class Lazy:
    """A transform that makes its generator when it is first called."""

    rng = None

    def __call__(self):
        if self.rng is None:
            self.rng = np.random.default_rng()
        return self.rng.random()


def with_argument(rng):
    return rng.random()


def with_default(rng=random.Random()):  # noqa: B008
    return rng.random()


def closure():
    rng = np.random.default_rng()
    return lambda: rng.random()


def suspended():
    """A Python generator, whose variables hold one of NumPy."""

    def numbers():
        rng = np.random.default_rng()
        while True:
            yield rng.random()

    return numbers().__next__


MAKERS = {
    "an attribute": Attribute,
    "a bound method of C": lambda: np.random.default_rng().random,
    "slots": Slotted,
    "a class": OfTheClass,
    "a module of torch": Layer,
    "nested transforms": Nested,
    "a partial": lambda: functools.partial(with_argument, rng=random.Random()),
    "a default": lambda: with_default,
    "a closure": closure,
    "a suspended generator": suspended,
    "a global": lambda: of_the_module,
    "a generator made late": Lazy,
}
# torch 2.13 itself cannot send a torch.Generator to a spawned worker.
NOT_SENT = {"a closure", "a suspended generator", "a module of torch", "nested transforms"}


def epochs(dataset, workers, context=None, persistent=False):
    """Two epochs of samples, in the order of their indices."""
    loader = DataLoader(
        dataset,
        3,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=persistent,
        generator=torch.Generator(),
    )
    found = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        found.append(torch.cat([*loader]))
    return torch.stack(found)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_sample_has_numbers_of_its_own_with_any_number_of_workers(make):
    alone = epochs(SeededDataset(Holding(make()), 1029), 0)
    assert torch.equal(epochs(SeededDataset(Holding(make()), 1029), 2, "fork"), alone)
    assert torch.equal(epochs(SeededDataset(Holding(make()), 1029), 3, "fork", True), alone)
    numbers = alone[..., 1:]
    assert len(numbers.unique()) == numbers.numel(), "no two samples, epochs or sources are alike"


@pytest.mark.parametrize("name", sorted({*MAKERS} - NOT_SENT))
def test_spawned_workers_find_the_same_generators(name):
    alone = epochs(SeededDataset(Holding(MAKERS[name]()), 1029), 0)
    spawned = epochs(SeededDataset(Holding(MAKERS[name]()), 1029), 2, "spawn", True)
    assert torch.equal(spawned, alone)


def test_the_main_process_keeps_what_the_generators_had():
    rng, other = np.random.default_rng(5), random.Random(5)
    dataset = SeededDataset(Holding(lambda: [rng.normal(), other.gauss(0, 1)]), 1029)
    before, outer = (rng.bit_generator.state, other.getstate()), snapshot()
    with seeded(3):
        first = dataset[2]
        assert torch.equal(dataset[2], first)
        assert not torch.equal(dataset[3][1:], first[1:])
    assert (rng.bit_generator.state, other.getstate()) == before
    assert outer.changed(snapshot()) == ()


def test_generators_are_found_through_datasets_of_datasets():
    def wrapped(dataset):
        return ConcatDataset([Subset(dataset, range(4)), Subset(dataset, range(4, SIZE))])

    dataset = SeededDataset(wrapped(Holding(Slotted())), 1029)
    assert dataset.generators == ("dataset.datasets[0].dataset.draw.rng",)
    assert torch.equal(epochs(dataset, 2), epochs(dataset, 0))


def test_generators_are_searched_again_at_each_epoch():
    holding = Holding(Slotted())
    dataset = SeededDataset(holding, 1029)
    dataset[0]
    holding.draw = Attribute()
    dataset.set_epoch(1)
    assert torch.equal(dataset[0], dataset[0])
    assert not torch.equal(dataset[0][1:], dataset[1][1:])
    assert dataset.generators == ("dataset.draw.rng",)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_of_a_later_epoch_may_make_its_generator_late(workers):
    holding = Holding(Slotted())
    dataset = SeededDataset(holding, 1029)
    dataset[0]
    holding.draw = Lazy()
    dataset.set_epoch(1)
    loader = DataLoader(dataset, 2, num_workers=workers, generator=torch.Generator())
    fresh = SeededDataset(Holding(Lazy()), 1029)
    fresh.set_epoch(1)
    assert torch.equal(torch.cat([*loader]), torch.stack([fresh[i] for i in range(SIZE)]))


def test_a_seeded_dataset_inside_adds_no_generators_of_its_own():
    inner = SeededDataset(Holding(OfTheClass()), 1)
    assert inner[0] is not None
    assert SeededDataset(Subset(inner, [0]), 1029).generators == ("dataset.dataset.dataset.draw.R",)


def test_the_paths_of_the_generators_lead_to_them():
    dataset = SeededDataset(Holding(Nested()), 1029)
    assert len(dataset.generators) == 3
    places = {"dataset": dataset.dataset, __name__: sys.modules[__name__]}
    found = [eval(path, places) for path in dataset.generators]
    assert any(one is OfTheClass.R for one in found)
    assert {type(one) for one in found} == {random.Random, np.random.RandomState, torch.Generator}


def test_generators_of_one_path_have_numbers_of_their_own():
    held = {(0, 1): random.Random(1), (1, 0): random.Random(1)}
    dataset = SeededDataset(Holding(lambda: [one.random() for one in held.values()]), 1029)
    assert dataset.generators == (
        "dataset.draw.<held>['a tuple']",
        "dataset.draw.<held>['a tuple']#2",
    )
    _, first, second = dataset[0].tolist()
    assert first != second


def test_the_generators_of_the_process_are_no_held_ones():
    held = [np.random.mtrand._rand, random.random.__self__, torch.default_generator]
    dataset = SeededDataset(Holding(functools.partial(with_argument, held)), 1029)
    assert dataset.generators == ()


def test_albumentations_needs_no_line_of_its_own():
    class Images(Dataset):
        def __init__(self):
            self.pipeline = albumentations.Compose(
                [albumentations.RandomCrop(16, 16), albumentations.GaussNoise(p=1)]
            )

        def __len__(self):
            return 6

        def __getitem__(self, index):
            image = self.pipeline(image=np.full((24, 24, 3), index, np.uint8))["image"]
            return torch.from_numpy(image).double()

    alone = epochs(SeededDataset(Images(), 1029), 0)
    assert torch.equal(epochs(SeededDataset(Images(), 1029), 2), alone)
    assert not torch.equal(alone[0], alone[1])


def test_monai_needs_no_line_of_its_own():
    pipeline = monai.Compose(
        [monai.RandGaussianNoise(prob=1.0), monai.RandScaleIntensity(0.5, prob=1.0)]
    )

    def dataset():
        return SeededDataset(Holding(lambda: pipeline(torch.ones(1, 4)).numpy()), 1029)

    alone = epochs(dataset(), 0)
    assert torch.equal(epochs(dataset(), 2), alone)
    assert len(alone[..., 1:].unique()) == alone[..., 1:].numel()


def test_pytorchs_own_recipe_seeds_them_for_each_worker():
    def batches():
        loader = DataLoader(Holding(Slotted()), 2, num_workers=2, **loader_options(1029))
        return torch.stack([torch.cat([*loader]) for _ in range(2)])

    first = batches()
    assert torch.equal(first, batches())
    assert len(first[..., 1].unique()) == first[..., 1].numel()
