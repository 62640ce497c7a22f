"""Iterable datasets, and PyTorch's own recipe: they repeat for the same number of workers."""

from __future__ import annotations

import random

import pytest
import torch
from test_samples import Coins, Noisy, collect, noise
from torch.utils.data import DataLoader, IterableDataset

from seedscope import SeededDataset, loader_options, seeded, snapshot


class Streamed(IterableDataset):
    def __iter__(self):
        for index in range(4):
            yield torch.tensor([index, *noise()], dtype=torch.float64)


@pytest.mark.parametrize(
    ("workers", "context", "persistent"),
    [(0, None, False), (1, "fork", False), (2, "fork", True), (2, "spawn", False)],
)
def test_iterable_datasets_repeat_for_each_seed_epoch_and_worker(workers, context, persistent):
    def epochs():
        dataset = SeededDataset(Streamed(), 1029)
        assert isinstance(dataset, IterableDataset)
        loader = DataLoader(
            dataset,
            None,
            num_workers=workers,
            multiprocessing_context=context,
            persistent_workers=persistent,
        )
        result = []
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            result.append(torch.stack([*loader]))
        return result

    before = snapshot()
    with seeded(5):
        first = epochs()
    with seeded(6):
        second = epochs()
    assert before.changed(snapshot()) == ()
    assert all(map(torch.equal, first, second))
    values = torch.cat(first)[:, 1:]
    assert len(values.unique()) == values.numel(), "no two workers or epochs draw the same"


def test_an_only_worker_draws_as_the_main_process_does():
    dataset = SeededDataset(Streamed(), 1029)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        own, one_worker = (
            DataLoader(dataset, None, num_workers=n, generator=torch.Generator()) for n in (0, 1)
        )
        assert collect(own) == collect(one_worker)


def test_the_caller_keeps_its_stream_between_samples():
    stream = iter(SeededDataset(Streamed(), 1029))
    with seeded(5):
        next(stream)
        first = random.random()
        next(stream)
        second = random.random()
    reference = random.Random(5)
    assert (first, second) == (reference.random(), reference.random())


# PyTorch's own recipe


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_options_repeat_on_every_fresh_loader(context):
    def batches(seed):
        loader = DataLoader(
            Noisy(),
            3,
            shuffle=True,
            num_workers=2,
            multiprocessing_context=context,
            **loader_options(seed),
        )
        return torch.cat([*loader])

    first = batches(1029)
    assert torch.equal(first, batches(1029))
    assert not torch.equal(first, batches(1030))
    assert len(first[:, 1:].unique()) == first[:, 1:].numel()


def test_loader_options_refuse_a_bad_seed():
    with pytest.raises(ValueError, match="got -1"):
        loader_options(-1)


def test_loader_options_give_each_source_a_seed_of_its_own():
    loader = DataLoader(Coins(), None, num_workers=2, **loader_options(1029))
    assert 16 < sum(int(ours == theirs) for ours, theirs in loader) < 48
