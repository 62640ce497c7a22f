"""Generators that are made or replaced when samples are drawn already."""

from __future__ import annotations

import os
import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from seedscope import SeededDataset, seeded_loader
from seedscope.data.collate import _copied
from seedscope.data.drawing import Drawing

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Held(Dataset):
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.rng.random()


class Renewed(Held):
    """A dataset that replaces its generator in each process, under the same name."""

    process = None

    def __getitem__(self, index):
        if self.process != os.getpid():
            self.process, self.rng = os.getpid(), np.random.default_rng(5)
        return self.rng.random()


class Late(Held):
    def __init__(self):
        self.rng = None

    def __getitem__(self, index):
        if self.rng is None:
            self.rng = np.random.default_rng(3)
        return self.rng.random()


class Zeros(Held):
    def __getitem__(self, index):
        return torch.tensor([float(index), 0.0])


class InPlace:
    """A `collate_fn` that makes its generator late, and changes the samples themselves."""

    def __init__(self, fails=False):
        self.rng, self.fails = None, fails

    def __call__(self, samples):
        if self.fails and samples[0][0] == 0:
            raise ValueError("damaged")
        if self.rng is None:
            self.rng = np.random.default_rng(3)
        for sample in samples:
            sample[1] += self.rng.random()
        return torch.stack(samples)


def drawn(dataset, workers):
    options = {"num_workers": workers, "generator": torch.Generator()}
    return torch.cat([*DataLoader(SeededDataset(dataset, 1), 2, **options)])


def survived(loader):
    batches, found = iter(loader), []
    while True:
        try:
            found.append(next(batches))
        except ValueError:
            continue
        except StopIteration:
            return torch.cat(found)


@pytest.mark.parametrize("kind", [Renewed, Late])
def test_a_generator_that_the_first_sample_makes_or_replaces_is_seeded(kind):
    assert torch.equal(drawn(kind(), 0), drawn(kind(), 2))


def test_a_generator_that_replaces_another_is_seeded():
    dataset = SeededDataset(Held(), 1)
    first = dataset[0]
    dataset.rng = np.random.default_rng(5)
    assert dataset[0] == first
    assert dataset.rng.random() == np.random.default_rng(5).random(), "it is put back"


def test_each_pass_of_a_loader_finds_the_generators_that_the_dataset_has_then():
    held, loaders = Held(), []
    for workers in (0, 2):
        held.rng = np.random.default_rng(0)
        loader = seeded_loader(held, 1, batch_size=4, num_workers=workers)
        loader.set_epoch(0)
        first = torch.cat([*loader])
        held.rng = random.Random(3)
        loaders.append((first, torch.cat([*loader])))
    (first, second), (ours, theirs) = loaders
    assert torch.equal(first, ours)
    assert torch.equal(second, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_pass_finds_the_generators_that_the_collate_fn_has_then(workers):
    collate_fn = InPlace()
    collate_fn.rng = np.random.default_rng(0)
    options = {"batch_size": 4, "num_workers": workers, "collate_fn": collate_fn}
    loader = seeded_loader(Zeros(), 1, **options)
    loader.set_epoch(0)
    first = torch.cat([*loader])
    collate_fn.rng = np.random.default_rng(7)
    assert torch.equal(torch.cat([*loader]), first)
    assert torch.equal(torch.cat([*loader]), first)


def test_the_first_batch_is_copied_as_far_as_tensors_and_containers():
    pair = namedtuple("Pair", "array number")
    kept = object()
    batch = [{"a": torch.zeros(2)}, pair(np.zeros(2), kept), (torch.ones(1),)]
    copied = _copied(batch)
    batch[0]["a"] += 1
    batch[1].array[:] = 1
    batch[2][0].zero_()
    assert copied[0]["a"].tolist() == copied[1].array.tolist() == [0, 0]
    assert copied[1].number is kept
    assert copied[2][0] == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_collate_fn_that_makes_a_generator_late_gets_samples_as_they_were(fails):
    def batches(workers):
        options = {"batch_size": 2, "num_workers": workers, "collate_fn": InPlace(fails)}
        return survived(seeded_loader(Zeros(), 1, **options))

    alone = batches(0)
    assert torch.equal(alone, batches(2))
    assert alone[:, 1].max() < 1, "each number is added once"
    assert len(alone) == (10 if fails else 12)


def test_an_interrupt_of_the_look_at_late_generators_changes_nothing(monkeypatch):
    expected = [SeededDataset(Late(), 1)[index] for index in range(3)]
    use, calls = Drawing._use_generators, []

    def interrupted(drawing):
        calls.append(drawing)
        if len(calls) == 2:
            raise KeyboardInterrupt
        use(drawing)

    monkeypatch.setattr(Drawing, "_use_generators", interrupted)
    dataset = SeededDataset(Late(), 1)
    with pytest.raises(KeyboardInterrupt):
        dataset[0]
    assert [dataset[index] for index in range(3)] == expected


def test_a_late_generator_that_cannot_be_seeded_is_told():
    class Hidden(Held):
        def __getitem__(self, index):
            self.hidden = random.SystemRandom()
            return index

    with pytest.warns(RuntimeWarning, match=r"dataset\.hidden draws from the operating system"):
        SeededDataset(Hidden(), 1)[0]


def test_what_the_dataset_leaves_alone_its_own_collate_fn_leaves_alone_too():
    class Collating(Held):
        def collate(self, samples):
            return self.rng.random()

    def passes(**options):
        dataset = Collating()
        loader = seeded_loader(dataset, 1, batch_size=12, collate_fn=dataset.collate, **options)
        loader.set_epoch(0)
        return [batch for _ in range(2) for batch in loader]

    first, again = passes()
    assert first == again
    first, then = passes(exclude=["dataset.rng"])
    assert first != then
