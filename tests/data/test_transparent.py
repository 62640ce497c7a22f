"""The wrapped dataset is reached through the wrapper."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from seedscope import SeededDataset


class Labelled(Dataset):
    targets = (0, 1, 0, 1)

    def __init__(self):
        self.classes = ["cat", "dog"]
        self.scale = 1.0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.scale * torch.rand(1)

    def count(self, label):
        return self.targets.count(label)

    def set_epoch(self, epoch):
        self.told = epoch


class Streamed(IterableDataset):
    name = "stream"

    def __iter__(self):
        yield torch.rand(1)


def persistent(dataset):
    generator = torch.Generator()
    return DataLoader(dataset, None, num_workers=1, persistent_workers=True, generator=generator)


def test_attributes_and_methods_are_read_through_the_wrapper():
    dataset = SeededDataset(Labelled(), 1)
    assert dataset.targets == (0, 1, 0, 1)
    assert dataset.count(1) == 2
    assert {"targets", "count", "set_epoch", "seed"} <= {*dir(dataset)}
    assert SeededDataset(Streamed(), 1).name == "stream"
    with pytest.raises(AttributeError, match=r"Labelled.* has no attribute 'missing'"):
        _ = dataset.missing


def test_an_attribute_that_is_set_or_deleted_reaches_the_dataset():
    inner = Labelled()
    dataset = SeededDataset(inner, 1)
    one = dataset[0]
    dataset.scale = 2.0
    assert inner.scale == 2.0
    assert torch.equal(dataset[0], 2 * one)
    del dataset.classes
    assert not hasattr(inner, "classes")


def test_the_wrapper_keeps_its_own_attributes():
    inner = Labelled()
    inner.seed = "the inner one"
    dataset = SeededDataset(inner, 7)
    assert dataset.seed == 7
    assert dataset.dataset is inner
    assert dataset.dataset.seed == "the inner one"


def test_a_set_epoch_reaches_the_dataset_in_this_process_and_in_workers():
    class Told(Labelled):
        told = None

        def __getitem__(self, index):
            return torch.tensor(-1 if self.told is None else self.told)

    dataset = SeededDataset(Told(), 1)
    assert dataset[0] == -1, "no one has set an epoch"
    dataset.set_epoch(3)
    assert dataset.dataset.told == 3
    loader = persistent(dataset)
    for epoch in (3, 4):
        dataset.set_epoch(epoch)
        assert {int(told) for told in loader} == {epoch}


def test_a_set_epoch_reaches_datasets_in_subsets_and_sums():
    inner, other = SeededDataset(Labelled(), 1), SeededDataset(Labelled(), 2)
    dataset = SeededDataset(ConcatDataset([Subset(inner, [0]), other]), 3)
    dataset.set_epoch(5)
    assert (inner.epoch, other.epoch, inner.dataset.told) == (5, 5, 5)


def test_isinstance_is_true_for_both_classes():
    dataset = SeededDataset(TensorDataset(torch.arange(3)), 1)
    assert isinstance(dataset, SeededDataset)
    assert isinstance(dataset, TensorDataset)
    assert not isinstance(dataset, IterableDataset)
    assert type(dataset) is SeededDataset
    assert dataset.tensors[0].tolist() == [0, 1, 2]
    assert isinstance(SeededDataset(Streamed(), 1), Streamed)


def test_two_datasets_that_are_added_keep_their_seeds():
    both = SeededDataset(Labelled(), 1) + SeededDataset(Labelled(), 2)
    assert type(both) is ConcatDataset
    assert torch.equal(both[5], SeededDataset(Labelled(), 2)[1])


@pytest.mark.parametrize("kind", [Labelled, Streamed])
@pytest.mark.parametrize(
    "made", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_copy_draws_the_same_and_has_an_epoch_of_its_own(kind, made):
    def samples(dataset):
        return [*dataset] if kind is Streamed else [dataset[i] for i in range(4)]

    dataset = SeededDataset(kind(), 1)
    dataset.set_epoch(2)
    other = made(dataset)
    assert type(other) is type(dataset)
    assert (other.seed, other.epoch) == (1, 2)
    assert all(map(torch.equal, samples(other), samples(dataset)))
    other.set_epoch(3)
    assert dataset.epoch == 2
    assert not torch.equal(samples(other)[0], samples(dataset)[0])


@pytest.mark.parametrize("made", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_tells_persistent_workers_its_epoch(made):
    dataset = made(SeededDataset(Labelled(), 1))
    loader = persistent(dataset)
    epochs = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        epochs.append(torch.cat([*loader]))
    assert not torch.equal(*epochs)


def test_a_wrapper_that_is_being_made_has_no_attributes():
    with pytest.raises(AttributeError, match="'SeededDataset' object has no attribute 'targets'"):
        _ = SeededDataset.__new__(SeededDataset).targets
