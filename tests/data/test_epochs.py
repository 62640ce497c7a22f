"""Who is told an epoch, and which telling counts."""

from __future__ import annotations

import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    StackDataset,
    Subset,
)

from seedscope import SeededDataset, seeded_loader
from seedscope.data import epochs

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Noisy(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.rand(1) + index


class Told(Noisy):
    """A dataset whose samples follow its own epoch, and draw nothing."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        return np.random.default_rng([1029, self.epoch, index]).random()


class ToldStream(IterableDataset):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        yield self.epoch


def batches(loader):
    return torch.cat([*loader])


def at(epoch, **options):
    loader = seeded_loader(Noisy(), 1, batch_size=4, **options)
    loader.set_epoch(epoch)
    return batches(loader)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_epoch_that_was_told_last_counts(workers, shuffle):
    options = {"num_workers": workers, "shuffle": shuffle}
    loader = seeded_loader(Noisy(), 1, batch_size=4, **options)
    for epoch in (1, 2, 3):
        loader.dataset.set_epoch(epoch)
        assert loader.epoch == loader.state_dict()["epoch"] == epoch
        assert torch.equal(batches(loader), at(epoch, **options))
    loader.set_epoch(1)
    assert torch.equal(batches(loader), at(1, **options))
    loader.load_state_dict({**loader.state_dict(), "epoch": 5, "batches": 1})
    loader.dataset.set_epoch(5)
    assert torch.equal(batches(loader), at(5, **options)[4:]), "the place of the epoch stays"
    loader.dataset.set_epoch(2)
    assert torch.equal(batches(loader), at(2, **options))


def test_two_loaders_of_a_dataset_have_epochs_of_their_own():
    dataset = SeededDataset(Noisy(), 1)
    one, other, silent = (seeded_loader(dataset, 1, batch_size=4, shuffle=True) for _ in range(3))
    other.set_epoch(0)
    for epoch in (1, 2):
        one.set_epoch(epoch)
        assert torch.equal(batches(one), at(epoch, shuffle=True))
        for loader in (other, silent):
            assert torch.equal(batches(loader), at(0, shuffle=True))


def test_a_dataset_that_was_pickled_elsewhere_obeys_here(monkeypatch):
    dataset = SeededDataset(Noisy(), 1)
    for _ in range(50):
        dataset.set_epoch(2)
    pickled = pickle.dumps(dataset)
    monkeypatch.setattr(epochs, "_tellings", itertools.count(1))  # as in another process
    loader = seeded_loader(pickle.loads(pickled), 1, batch_size=4)
    assert loader.epoch == 2
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        assert torch.equal(batches(loader), at(epoch))
    pickled = pickle.dumps(loader)
    monkeypatch.setattr(epochs, "_tellings", itertools.count(1))
    loader = pickle.loads(pickled)
    assert loader.epoch == 1
    loader.dataset.set_epoch(3)
    assert torch.equal(batches(loader), at(3))


def test_an_epoch_that_is_refused_changes_nothing():
    loader = seeded_loader(Noisy(), 1, batch_size=4)
    loader.dataset.set_epoch(5)
    with pytest.raises(ValueError, match="got -1"):
        loader.set_epoch(-1)
    assert loader.epoch == 5


@pytest.mark.parametrize(
    "inside",
    [
        lambda told: Subset(told, range(2)),
        lambda told: ConcatDataset([Noisy(), told]),
        lambda told: StackDataset(told, told),
        lambda told: StackDataset(one=told),
    ],
)
def test_a_dataset_inside_is_told_the_epoch(inside):
    told = Told()
    dataset = SeededDataset(inside(told), 1)
    dataset.set_epoch(3)
    assert told.epoch == 3


def test_a_dataset_of_a_chain_is_told_the_epoch():
    dataset = SeededDataset(ChainDataset([ToldStream(), ToldStream()]), 1)
    dataset.set_epoch(3)
    assert [*dataset] == [3, 3]


@pytest.mark.parametrize(
    "loader",
    [
        lambda: seeded_loader(Told(), 1, batch_size=4),
        lambda: seeded_loader(
            range(12), 1, batch_size=4, sampler=DistributedSampler(range(12), 1, 0)
        ),
        lambda: seeded_loader(Subset(SeededDataset(Noisy(), 1), range(12)), 1, batch_size=4),
        lambda: seeded_loader(Late(), 1, batch_size=4),
    ],
)
def test_a_forgotten_set_epoch_is_told_whatever_follows_the_epoch(loader):
    made = loader()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = batches(made)
    with pytest.warns(UserWarning, match="set_epoch was never called"):
        assert torch.equal(batches(made), first)
    made.set_epoch(1)
    assert not torch.equal(batches(made), first)


class Late(Noisy):
    """A dataset whose first samples draw nothing."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        return torch.rand(1) if index >= 24 else torch.zeros(1)


def test_an_order_that_stays_may_repeat():
    sampler = DistributedSampler(range(12), 1, 0, shuffle=False)
    loader = seeded_loader(range(12), 1, batch_size=4, sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(batches(loader), batches(loader))
