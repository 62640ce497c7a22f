"""Indices of any form: each has a sample of its own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from seedscope import SeededDataset, SeededSampler
from seedscope.data.orders import FixedOrder


class Rows(Dataset):
    """A dataset that takes any index, and answers with it and with a draw."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return repr(index), torch.rand(1).item()


def test_lists_slices_and_arrays_of_indices_have_samples_of_their_own():
    dataset = SeededDataset(Rows(), 1029)
    indices = [
        *(3, [3], [3, 4], [4, 3], [[3], 4], [3, [4]], [[3, 4]]),
        *(slice(3), slice(3, None), slice(None, 3), slice(0, 3, 2), "3", ["3"]),
    ]
    drawn = {repr(index): dataset[index] for index in indices}
    assert all(dataset[index] == drawn[repr(index)] for index in indices)
    assert [text for text, _ in drawn.values()] == [*drawn], "the dataset gets the index as it was"
    # slice(3) is slice(None, 3): two spellings of one index
    assert len({number for _, number in drawn.values()}) == len(drawn)
    assert dataset[np.array([3, 4])][1] == dataset[torch.tensor([3, 4])][1] == dataset[[3, 4]][1]


class Named(Dataset):
    """A dataset by name, which takes arrays of indices too, and keeps what it was given."""

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return type(key), torch.rand(1).item()


def test_a_dataset_gets_its_keys_as_the_sampler_has_drawn_them():
    keys = ["a", "b", "a", np.array([1, 2]), torch.tensor([1, 2]), (1, "a"), slice(1, 2), None]
    sampler = [*SeededSampler(FixedOrder(keys), 1029)]
    sent = pickle.loads(pickle.dumps(sampler))  # as to a worker
    dataset = SeededDataset(Named(), 1029)
    drawn = [dataset[key] for key in sent]
    assert [kind for kind, _ in drawn] == [type(key) for key in keys]
    assert len({number for _, number in drawn}) == len(keys), "repeats are told apart"
    assert drawn[0] == dataset["a"]


def test_other_keys_have_samples_of_their_own():
    class Keyed(Rows):
        def __getitem__(self, key):
            return torch.rand(1).item()

    dataset = SeededDataset(Keyed(), 1029)
    keys = [1.5, 2.5, None, b"a", "a", True, 1]
    drawn = [dataset[key] for key in keys]
    assert [dataset[key] for key in keys] == drawn
    assert len(set(drawn)) == len(drawn)
    with pytest.raises(TypeError, match="a key must be an integer or a string"):
        dataset[object()]
