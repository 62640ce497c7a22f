"""Generators of a dataset that are left alone, because they are excluded or cannot be seeded."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from test_held_generators import Holding, Slotted
from torch.utils.data import DataLoader, Dataset, Subset

from seedscope import SeededDataset, loader_options


def test_an_excluded_generator_goes_on_from_sample_to_sample():
    split, noise = random.Random(5), random.Random(6)
    holding = Holding(lambda: [split.random(), noise.random()])
    dataset = SeededDataset(holding, 1029, exclude=["dataset.draw.<split>"])
    assert dataset.generators == ("dataset.draw.<noise>",)
    reference = random.Random(5)
    assert [dataset[0][1].item(), dataset[0][1].item()] == [reference.random(), reference.random()]
    assert dataset[0][2] == dataset[0][2]
    assert SeededDataset(holding, 1029, exclude=["dataset.draw"]).generators == ()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_around_leaves_alone_what_the_one_inside_does(workers):
    inner = SeededDataset(Holding(Slotted()), 1029, exclude=["dataset.draw.rng"])
    outer = SeededDataset(Subset(inner, range(8)), 5)
    assert outer.generators == ()
    inner.dataset.draw.rng.seed(7)
    before = inner.dataset.draw.rng.getstate()
    rows = torch.stack([*DataLoader(outer, None, num_workers=workers, **loader_options(3))])
    assert rows[0, 1] == random.Random(7).random()
    assert (inner.dataset.draw.rng.getstate() == before) is (workers > 0)


SYSTEM = random.SystemRandom()


class FromSystem(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return SYSTEM.random()


def test_what_is_left_alone_does_not_travel_to_a_worker():
    place = f"{__name__}.SYSTEM"
    dataset = SeededDataset(FromSystem(), 1, exclude=[place])
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    assert len([*DataLoader(dataset, None, **options, **loader_options(3))]) == 2


@pytest.mark.parametrize(
    ("exclude", "says"),
    [
        (
            ["dataset.rng"],
            "where no generator is; the dataset has generators at .*dataset.draw.rng",
        ),
        (["dataset.draw.r"], "where no generator is"),
        ("dataset.draw.rng", "collection of paths"),
        ([3], "collection of paths"),
    ],
)
def test_a_wrong_exclude_is_refused(exclude, says):
    with pytest.raises((TypeError, ValueError), match=says):
        SeededDataset(Holding(Slotted()), 1029, exclude=exclude)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (random.SystemRandom(), "dataset.draw draws from the operating system"),
        ({random.Random(1)}, "dataset.draw{} is in a set"),
        (np.random.SeedSequence(3), "dataset.draw has no state that can be set"),
    ],
)
def test_what_cannot_be_seeded_is_named_once(held, says):
    with pytest.warns(RuntimeWarning, match=says):
        dataset = SeededDataset(Holding(held), 1029)
    dataset.dataset.draw = lambda: held and 1.0
    dataset[0]
    assert dataset.generators == ()


def test_a_warning_of_what_cannot_be_seeded_can_be_declined():
    dataset = SeededDataset(Holding(random.SystemRandom()), 1029, exclude=["dataset.draw"])
    assert dataset.generators == ()
