"""Indices of any form: each has a sample of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from seedscope import SeededDataset


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
