"""Warnings of samples that repeat, each once, and never of those that may."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
)

from seedscope import SeededDataset, SeededSampler, seeded, seeded_loader

EPOCH = "set_epoch was never called"
INDEX = "was drawn twice in one pass"


class Noisy(Dataset):
    def __init__(self, size=16):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.rand(1)


class Plain(Noisy):
    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Streamed(IterableDataset):
    def __iter__(self):
        yield torch.rand(1)
        yield torch.rand(1)


def told(dataset, passes=4, **options):
    """The warnings of some passes of a plain loader, in which those of a worker are errors."""
    loader = DataLoader(dataset, 2, generator=torch.Generator(), **options)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("error" if options.get("num_workers") else "always")
        try:
            for _ in range(passes):
                for _ in loader:
                    pass
        except UserWarning as error:
            return [str(error)]
    return [str(one.message) for one in found]


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}]
)
@pytest.mark.parametrize("kind", [Noisy, Streamed])
def test_a_forgotten_set_epoch_is_told_once(kind, options):
    (text,) = told(SeededDataset(kind(), 1), **options)
    assert EPOCH in text


@pytest.mark.parametrize("workers", [0, 2])
def test_one_pass_or_an_epoch_that_was_set_is_not_told(workers):
    assert told(SeededDataset(Noisy(), 1), passes=1, num_workers=workers) == []
    dataset = SeededDataset(Noisy(), 1)
    dataset.set_epoch(0)
    assert told(dataset, num_workers=workers) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_that_draw_nothing_may_repeat(workers):
    assert told(SeededDataset(Plain(), 1), num_workers=workers) == []
    sampler = WeightedRandomSampler([1.0] * 16, 64, generator=torch.Generator())
    assert told(SeededDataset(Plain(), 1), passes=1, sampler=sampler, num_workers=workers) == []


def test_samples_drawn_by_hand_may_repeat():
    dataset = SeededDataset(Noisy(), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            for index in range(16):
                dataset[index]
        for _ in range(2):
            next(iter(DataLoader(dataset, 4, generator=torch.Generator())))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_index_that_is_drawn_twice_is_told_once(workers):
    weights = [1.0] * 4 + [0.0] * 28
    sampler = WeightedRandomSampler(weights, 28, generator=torch.Generator())
    (text,) = told(SeededDataset(Noisy(32), 1), passes=1, sampler=sampler, num_workers=workers)
    assert INDEX in text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seeded_sampler_tells_repeated_draws_apart(workers):
    sampler = SeededSampler(WeightedRandomSampler([1.0] * 2, 16), 1)
    loader = DataLoader(
        SeededDataset(Noisy(2), 1),
        4,
        sampler=sampler,
        num_workers=workers,
        generator=torch.Generator(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(torch.cat([*loader]).unique()) == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seeded_loader_tells_at_the_second_pass(workers):
    loader = seeded_loader(Noisy(), 1, batch_size=2, num_workers=workers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(loader))  # a look at a batch is no pass
        first = torch.cat([*loader])
    with pytest.warns(UserWarning, match=EPOCH):
        assert torch.equal(torch.cat([*loader]), first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader.set_epoch(1)
        assert not torch.equal(torch.cat([*loader]), first)


def drain(loader):
    for _ in loader:
        pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffled_order_and_a_collate_fn_that_draws_are_told_too(workers):
    mixed = seeded_loader(Plain(), 1, batch_size=2, shuffle=True, num_workers=workers)
    drawing = seeded_loader(Plain(), 1, batch_size=2, num_workers=workers, collate_fn=drawn)
    sampler = RandomSampler(Plain())
    sampled = seeded_loader(Plain(), 1, batch_size=2, num_workers=workers, sampler=sampler)
    for loader in (mixed, drawing, sampled):
        drain(loader)
        with pytest.warns(UserWarning, match=EPOCH):
            drain(loader)
    still = seeded_loader(Plain(), 1, batch_size=2, num_workers=workers)
    fixed = seeded_loader(Plain(), 1, batch_size=2, num_workers=workers, sampler=[3, 1, 3])
    validation = seeded_loader(Noisy(), 1, batch_size=2, num_workers=workers)
    validation.set_epoch(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loader in (still, fixed, validation):
            drain(loader)
            drain(loader)


def drawn(samples):
    return torch.stack(samples) + torch.rand(1)


def test_an_epoch_of_the_dataset_that_a_sampler_overrules_is_told():
    dataset = SeededDataset(Noisy(), 1)
    sampler = SeededSampler(Noisy(), 1)
    loader = DataLoader(dataset, 4, sampler=sampler, generator=torch.Generator())
    dataset.set_epoch(3)
    with pytest.warns(UserWarning, match="epoch 3, and its SeededSampler epoch 0, which counts"):
        drain(loader)
    sampler.set_epoch(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drain(loader)


def test_an_epoch_that_is_drawn_again_on_purpose_is_not_told():
    sampler = SeededSampler(Noisy(), 1)
    dataset = SeededDataset(Noisy(), 1)
    loader = DataLoader(dataset, 4, sampler=sampler, generator=torch.Generator())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in (0, 1, 0, 0):
            sampler.set_epoch(epoch)
            drain(loader)


def test_a_loader_follows_its_dataset_if_that_alone_was_told():
    loader, other = (seeded_loader(Noisy(), 1, batch_size=4, shuffle=True) for _ in range(2))
    loader.dataset.set_epoch(3)
    other.set_epoch(3)
    assert all(map(torch.equal, loader, other))
    assert loader.epoch == 3


def test_the_look_at_draws_changes_nothing_for_the_caller():
    dataset = SeededDataset(Noisy(), 1)
    with seeded(5):
        expected = torch.rand(1)
    with seeded(5) as scope:
        dataset[0]
        assert torch.equal(torch.rand(1), expected)
    assert scope.used() == ("torch",)
