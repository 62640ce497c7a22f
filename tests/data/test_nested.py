"""Draws inside of draws, and generators that are made late."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
    default_collate,
)

from seedscope import SeededDataset, SeededSampler, seeded_loader

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Noisy(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.rand(1).item() + index


class Around(Noisy):
    """A dataset that draws after it has drawn a sample of a seeded one."""

    def __init__(self, inner):
        self.inner = inner

    def __getitem__(self, index):
        first = torch.rand(1).item()
        return self.inner[index] + self.inner[(index + 1) % 8] + first + torch.rand(1).item()


class Through(Around):
    """A wrapper that knows of no epoch, and draws nothing itself."""

    def __getitem__(self, index):
        return self.inner[index]


class Mixing:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, samples):
        return default_collate(samples) + self.inner[5] + torch.rand(1)


class Streamed(IterableDataset):
    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        for index in range(8):
            yield self.inner[index] + torch.rand(1).item()


def rows(loader, epochs=(0, 1)):
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        found.append(torch.cat([*loader]))
    return torch.stack(found)


def loader_of(kind, workers):
    inner = SeededDataset(Noisy(), 7)
    options = {"batch_size": 2, "num_workers": workers}
    if kind == "sample":
        return seeded_loader(Around(inner), 1029, **options)
    if kind == "wrapper":
        return seeded_loader(Through(inner), 1029, sampler=[0, 5, 5, 0, 5, 2], **options)
    if kind == "collate_fn":
        return seeded_loader(Noisy(), 1029, collate_fn=Mixing(inner), **options)
    if kind == "subset":
        both = ConcatDataset([Subset(inner, range(4)), Subset(inner, range(4, 8))])
        return seeded_loader(both, 1029, sampler=[0, 5, 5, 0, 5, 2], **options)
    return seeded_loader(Streamed(inner), 1029, **options)


@pytest.mark.parametrize("kind", ["sample", "wrapper", "collate_fn", "subset", "stream"])
def test_a_seeded_dataset_inside_changes_no_draws_around_it(kind):
    alone = rows(loader_of(kind, 0))
    workers = 1 if kind == "stream" else 2
    assert torch.equal(rows(loader_of(kind, workers)), alone)
    assert len(alone.unique()) == alone.numel(), "epochs and repeated draws have their own numbers"


class Numbers(IterableDataset):
    def __iter__(self):
        for _ in range(8):
            yield torch.rand(1).item()


class Both(IterableDataset):
    """A stream of two streams, whose iterators are made at once."""

    def __init__(self):
        self.parts = [SeededDataset(Numbers(), seed) for seed in (7, 8)]

    def __iter__(self):
        return (sum(pair) + torch.rand(1).item() for pair in zip(*self.parts, strict=True))


class Begun(Both):
    def __iter__(self):
        return zip(*self.parts, strict=True)


class FirstOf(Noisy):
    """A dataset that begins a stream for each sample."""

    def __init__(self):
        self.numbers = SeededDataset(Numbers(), 7)

    def __getitem__(self, index):
        return next(iter(self.numbers))


@pytest.mark.parametrize(
    ("kind", "workers"), [(Both, 1), (Begun, 1), (FirstOf, 2), (lambda: chained(), 1)]
)
def test_a_seeded_stream_inside_follows_the_epoch_and_what_is_around(kind, workers):
    def drawn(workers):
        loader = seeded_loader(kind(), 1029, batch_size=None, num_workers=workers)
        found = []
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            found.append([*loader])
        return found

    alone = drawn(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(workers) == alone
    assert alone[0] != alone[1]
    assert len({*map(str, alone[0])}) == len(alone[0])


def chained():
    return ChainDataset([SeededDataset(Numbers(), 7), SeededDataset(Numbers(), 8)])


def test_a_dataset_of_the_same_seed_inside_has_numbers_of_its_own():
    class Twice(Noisy):
        def __getitem__(self, index):
            return torch.rand(1).item(), inner[index], inner[index]

    inner = SeededDataset(Noisy(), 7)
    mine, theirs, again = SeededDataset(Twice(), 7)[0]
    assert mine != theirs
    assert theirs == again
    assert SeededDataset(Twice(), 8)[0][1] == inner[0], "with another seed around it is the sample"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_sample_that_raises_is_no_sample_around_the_next(error):
    class Raising(Noisy):
        def __getitem__(self, index):
            if index == 3:
                raise error
            return super().__getitem__(index)

    dataset = SeededDataset(Raising(), 1)
    dataset.set_epoch(5)
    with pytest.raises(error):
        dataset[3]
    other = SeededDataset(Noisy(), 1)
    assert dataset[2] != other[2], "another epoch"
    assert other[2] == SeededDataset(Noisy(), 1)[2]
    dataset.set_epoch(0)
    assert dataset[2] == other[2]


class Late:
    """A generator that is made at the first call."""

    rng = None

    def draw(self):
        if self.rng is None:
            self.rng = np.random.default_rng()
        return self.rng.random()


class LateCollate(Late):
    def __call__(self, samples):
        return default_collate(samples) + self.draw()


class LateSampler(Late, Sampler):
    def __len__(self):
        return 8

    def __iter__(self):
        order = [*range(8)]
        random.Random(int(self.draw() * 2**32)).shuffle(order)
        yield from order


class FailsFirst(Late, Noisy):
    failed = False

    def __getitem__(self, index):
        if index == 0 and not self.failed:
            self.failed = True
            raise ValueError("a bad sample")
        return torch.tensor(self.draw() + index)


def test_a_collate_fn_that_makes_its_generator_late_repeats():
    def loader(workers):
        return seeded_loader(
            Noisy(), 1029, batch_size=2, num_workers=workers, collate_fn=LateCollate()
        )

    assert torch.equal(rows(loader(2)), rows(loader(0)))


def test_a_sampler_that_makes_its_generator_late_resumes():
    whole = [*SeededSampler(LateSampler(), 3)]
    sampler = SeededSampler(LateSampler(), 3)
    begun = iter(sampler)
    drawn = [next(begun) for _ in range(3)]
    resumed = SeededSampler(LateSampler(), 3)
    resumed.load_state_dict(sampler.state_dict())
    assert [*drawn, *resumed] == whole


def test_a_first_sample_that_raises_leaves_the_next_one_to_be_looked_at():
    dataset = SeededDataset(FailsFirst(), 1029)
    with pytest.raises(ValueError, match="a bad sample"):
        dataset[0]
    assert [dataset[index] for index in (1, 2)] == [dataset[index] for index in (1, 2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_raises_counts_for_the_place(workers):
    class Bad(Noisy):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("a bad sample")
            return super().__getitem__(index)

    loader = seeded_loader(Bad(), 1029, batch_size=2, num_workers=workers)
    begun = iter(loader)
    next(begun)
    with pytest.raises(ValueError, match="a bad sample"):
        next(begun)
    next(begun)
    state = loader.state_dict()
    assert state["batches"] == 3
    resumed = seeded_loader(Bad(), 1029, batch_size=2)
    resumed.load_state_dict(state)
    assert torch.equal(torch.cat([*resumed]), torch.cat([*begun]))
