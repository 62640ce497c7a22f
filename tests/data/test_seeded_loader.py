"""A loader whose every batch is a function of the seed, the epoch and the position."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

from seedscope import SeededDataset, seeded, seeded_loader, snapshot

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")

SIZE = 11


class Noisy(Dataset):
    """Samples that draw from every source, also from a generator that is held."""

    def __init__(self):
        self.rng = np.random.default_rng()

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        if isinstance(index, (list, slice)):
            rows = [*range(SIZE)][index] if isinstance(index, slice) else index
            return torch.stack([self.one(row) for row in rows])
        return self.one(index)

    def one(self, index):
        drawn = [random.random(), np.random.rand(), torch.rand(1).item(), self.rng.random()]
        return torch.tensor([float(index), *drawn], dtype=torch.float64)


class Batched(Noisy):
    """A dataset that reads a whole batch at once, with one draw for all."""

    def __getitems__(self, indices):
        share = self.rng.random()
        return [self.one(index) + share for index in indices]


class Shards(IterableDataset):
    """Samples of an iterable dataset, of which each worker has its share."""

    def __init__(self):
        self.rng = random.Random()

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(first, SIZE, step):
            drawn = [torch.rand(1).item(), self.rng.random()]
            yield torch.tensor([float(index), *drawn], dtype=torch.float64)


class Lists(Sampler):
    """Indices that are whole batches: lists and slices."""

    def __len__(self):
        return 4

    def __iter__(self):
        first = random.randrange(4)
        yield from ([first, 2, 7], slice(first, first + 3), [2, 2], slice(None, None, 4))


class Arrays(Sampler):
    """Batches that are arrays or tensors of indices, which repeat."""

    def __len__(self):
        return 2

    def __iter__(self):
        yield np.array([1, 4, 1])
        yield torch.tensor([4, random.randrange(4)])


class Mixup:
    """A `collate_fn` that draws, also from a generator that it holds."""

    def __init__(self):
        self.rng = np.random.RandomState()

    def __call__(self, samples):
        is_batch = isinstance(samples, torch.Tensor)
        batch, share = samples if is_batch else default_collate(samples), np.random.beta(1, 1)
        return share * batch + (1 - share) * batch.flip(0) + self.rng.rand()


class InitWorker:
    """A `worker_init_fn` that draws, and keeps the number for the samples."""

    def __call__(self, worker_id):
        get_worker_info().dataset.dataset.rng = np.random.default_rng(np.random.randint(2**31))


CASES = {
    "shuffled": (Noisy, {"batch_size": 3, "shuffle": True}),
    "in order": (Noisy, {"batch_size": 4, "drop_last": True}),
    "samples": (Noisy, {"batch_size": None, "shuffle": True}),
    "mixup": (Noisy, {"batch_size": 4, "shuffle": True, "collate_fn": Mixup()}),
    "read at once": (Batched, {"batch_size": 3, "shuffle": True}),
    "oversampled": (
        Noisy,
        {"batch_size": 4, "sampler": WeightedRandomSampler([1.0] * 2 + [0.0] * 9, 13)},
    ),
    "a list of indices": (Noisy, {"batch_size": 2, "sampler": [1, 5, 1, 9, 5]}),
    "batches": (
        Noisy,
        {"batch_sampler": BatchSampler(RandomSampler(range(SIZE)), 4, drop_last=False)},
    ),
    "arrays of indices": (Noisy, {"batch_sampler": Arrays()}),
    "lists and slices": (Noisy, {"batch_size": None, "sampler": Lists(), "collate_fn": Mixup()}),
}
WAYS = {
    "2 forked": {"num_workers": 2},
    "4 persistent": {"num_workers": 4, "persistent_workers": True, "prefetch_factor": 3},
    "2 spawned": {"num_workers": 2, "multiprocessing_context": "spawn"},
}


def made(case, **more):
    kind, options = CASES[case]
    return seeded_loader(kind(), 1029, **options, **more)


def batches(loader, epochs=(0, 1)):
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        found.append([*loader])
    return found


def equal(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("case", CASES)
def test_the_batches_are_the_same_with_any_workers_and_after_a_stop(case):
    before = snapshot()
    alone = batches(made(case))
    assert not equal(*alone)
    assert before.changed(snapshot()) == ()
    for name in ("2 forked", "4 persistent"):
        with seeded(5):
            assert all(map(equal, batches(made(case, **WAYS[name])), alone)), name
    for way, other in (({}, "2 forked"), (WAYS["2 forked"], "4 persistent")):
        stopped = made(case, **way)
        stopped.set_epoch(1)
        begun = iter(stopped)
        drawn = [next(begun), next(begun)]
        state = stopped.state_dict()
        del begun
        for resumed in (made(case), made(case, **WAYS[other])):
            resumed.load_state_dict(state)
            assert equal([*drawn, *resumed], alone[1]), other
            assert resumed.state_dict()["batches"] == len(alone[1])
            resumed.set_epoch(0)
            assert equal([*resumed], alone[0]), "the pass after the resumed one is whole"


@pytest.mark.parametrize("case", ["mixup", "lists and slices", "oversampled"])
def test_spawned_workers_make_the_same_batches(case):
    assert all(map(equal, batches(made(case, **WAYS["2 spawned"])), batches(made(case))))


def test_a_loader_is_a_dataloader_with_the_plain_batches_of_its_dataset():
    loader = made("in order")
    assert isinstance(loader, DataLoader)
    assert isinstance(loader.dataset, SeededDataset)
    assert isinstance(loader.dataset, Noisy)
    assert len(loader) == 2
    alone = SeededDataset(Noisy(), 1029)
    assert torch.equal(next(iter(loader)), torch.stack([alone[i] for i in range(4)]))


def test_each_draw_of_an_oversampled_index_is_another_sample():
    rows = torch.cat([*made("oversampled")])
    assert set(rows[:, 0].tolist()) <= {0.0, 1.0}
    assert len(rows[:, 1].unique()) == 13


def test_what_a_worker_draws_before_its_first_sample_is_seeded_too():
    def run():
        options = {"num_workers": 2, "worker_init_fn": InitWorker(), "exclude": ["dataset.rng"]}
        return batches(seeded_loader(Noisy(), 1029, batch_size=3, **options))

    assert all(map(equal, run(), run()))
    options = {"num_workers": 2, "worker_init_fn": InitWorker(), "exclude": ["dataset.rng"]}
    later = seeded_loader(Noisy(), 1029, batch_size=3, **options)
    assert equal(batches(later, epochs=(1,))[0], run()[1]), "of the epoch, not of the passes before"


class OfItsOwn:
    """A `worker_init_fn` that makes a generator without a seed."""

    def __call__(self, worker_id):
        get_worker_info().dataset.offset = np.random.default_rng().random()


class Offset(Noisy):
    def __getitem__(self, index):
        return torch.tensor([self.offset])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_generator_that_a_worker_makes_at_its_start_follows_the_seed(context):
    def offsets(seed):
        options = {"num_workers": 2, "multiprocessing_context": context}
        return torch.cat([*seeded_loader(Offset(), seed, worker_init_fn=OfItsOwn(), **options)])

    first = offsets(1)
    assert torch.equal(offsets(1), first)
    assert len(first.unique()) == 2
    assert not torch.equal(offsets(2), first)


def test_a_batch_that_is_read_late_is_seeded_too():
    class Lazy(Batched):
        def __getitems__(self, indices):
            return (self.one(index) for index in indices)

    def drawn(workers):
        return [*seeded_loader(Lazy(), 1029, batch_size=3, num_workers=workers)]

    assert equal(drawn(0), drawn(2))


def test_pinned_memory_changes_nothing():
    if torch.cuda.is_available():
        assert equal([*made("mixup", pin_memory=True)], [*made("mixup")])
        return
    with pytest.warns(UserWarning, match="pin_memory"):
        assert equal([*made("mixup", pin_memory=True)], [*made("mixup")])


# Iterable datasets


@pytest.mark.parametrize("collate_fn", [None, Mixup()])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_iterable_dataset_repeats_for_the_same_workers_and_resumes(workers, collate_fn):
    def loader():
        return seeded_loader(
            Shards(), 1029, batch_size=2, num_workers=workers, collate_fn=collate_fn
        )

    first = batches(loader())
    assert all(map(equal, batches(loader()), first))
    assert not equal(*first)
    if workers == 1:
        alone = seeded_loader(Shards(), 1029, batch_size=2, collate_fn=collate_fn)
        assert all(map(equal, batches(alone), first))
    stopped = loader()
    stopped.set_epoch(1)
    begun = iter(stopped)
    drawn = [next(begun), next(begun), next(begun)]
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert equal([*drawn, *resumed], first[1])


def test_two_passes_at_once_over_an_iterable_dataset_make_the_same_batches():
    loader = seeded_loader(Shards(), 1029, batch_size=2, collate_fn=Mixup())
    loader.set_epoch(0)
    alone = [*loader]
    pairs = [*zip(loader, loader, strict=True)]
    assert all(equal(both, alone) for both in zip(*pairs, strict=True))


def test_an_iterable_dataset_refuses_to_resume_with_other_workers():
    state = seeded_loader(Shards(), 1029, batch_size=2, num_workers=2).state_dict()
    with pytest.raises(ValueError, match="num_workers 2 instead of 3"):
        seeded_loader(Shards(), 1029, batch_size=2, num_workers=3).load_state_dict(state)


def test_a_place_beyond_an_iterable_datasets_end_is_refused():
    loader = seeded_loader(Shards(), 1029, batch_size=2)
    loader.load_state_dict({**loader.state_dict(), "batches": 50})
    with pytest.raises(ValueError, match="ended before batch 50"):
        next(iter(loader))
