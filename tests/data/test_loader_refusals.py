"""What a seeded loader refuses, before a worker starts."""

from __future__ import annotations

import random

import pytest
import torch
from test_seeded_loader import Mixup, Noisy, Shards, equal, made
from torch.utils.data import Dataset, SequentialSampler
from torch.utils.data.datapipes.iter import IterableWrapper

from seedscope import SeededDataset, seeded_loader

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Unsized(Dataset):
    def __getitem__(self, index):
        return index


class Broken(Unsized):
    files = None

    def __len__(self):
        return len(self.files)


@pytest.mark.parametrize(
    ("dataset", "options", "says"),
    [
        (Unsized(), {"shuffle": True}, "Unsized has no length"),
        (Noisy(), {"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler and batch_size"),
        (Noisy(), {"batch_sampler": [[1]], "drop_last": True}, "batch_sampler and drop_last"),
        (Noisy(), {"batch_sampler": [[1]], "shuffle": True}, "shuffle and batch_sampler"),
        (Noisy(), {"sampler": SequentialSampler(range(3)), "shuffle": True}, "contradict"),
        (Noisy(), {"generator": torch.Generator()}, "takes no generator"),
        (Noisy(), {"exclude": ["dataset.x"]}, "where no generator is"),
        (Shards(), {"shuffle": True}, "__iter__: leave out shuffle"),
        (Shards(), {"num_replicas": 2}, "leave out num_replicas"),
        (Shards(), {"rank": 1}, "leave out rank"),
        (SeededDataset(Noisy(), 3), {}, "has seed 3"),
        (
            SeededDataset(Noisy(), 1029),
            {"exclude": ["dataset.rng"]},
            "belongs to the SeededDataset",
        ),
        (Broken(), {}, "object of type 'NoneType' has no len"),
        (IterableWrapper(range(3)), {}, "a DataLoader hides IterableWrapper"),
        (Noisy(), {"sampler": iter([1, 2])}, "or pass a list"),
        (None, {}, "expected a dataset"),
        (Noisy(), {"in_order": False}, "keeps the order of the batches"),
    ],
)
def test_bad_input_is_refused_before_a_worker_starts(dataset, options, says):
    with pytest.raises((TypeError, ValueError), match=says):
        seeded_loader(dataset, 1029, num_workers=2, **options)


def test_a_generator_of_the_collate_fn_can_be_left_alone():
    mixup = Mixup()
    mixup.rng = random.SystemRandom()
    with pytest.warns(
        RuntimeWarning, match=r"collate_fn.rng draws .* exclude=\['collate_fn.rng'\]"
    ):
        seeded_loader(Noisy(), 1029, collate_fn=mixup)
    seeded_loader(Noisy(), 1029, collate_fn=mixup, exclude=["collate_fn.rng"])


def test_a_seeded_dataset_of_the_same_seed_is_taken_as_it_is():
    dataset = SeededDataset(Noisy(), 1029)
    loader = seeded_loader(dataset, 1029, batch_size=4, drop_last=True)
    assert loader.dataset is dataset
    assert equal([*loader], [*made("in order")])
