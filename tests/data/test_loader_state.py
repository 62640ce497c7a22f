"""The place of a loader in its epoch: what was consumed, and what a state must fit."""

from __future__ import annotations

import multiprocessing
import pickle
import time
import weakref

import pytest
import torch
from torch.utils.data import Dataset, RandomSampler, WeightedRandomSampler

from seedscope import seeded_loader

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Counted(Dataset):
    """A dataset that counts the samples which any process has drawn."""

    def __init__(self, size=40):
        self.size = size
        self.drawn = torch.zeros(size).share_memory_()

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.drawn[index] += 1
        return torch.tensor([index, torch.rand(1).item()])


def loader_of(dataset=None, seed=1029, **options):
    options = {"batch_size": 4, "shuffle": True, **options}
    return seeded_loader(Counted() if dataset is None else dataset, seed, **options)


def consumed(loader):
    return loader.state_dict()["batches"]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_place_is_what_the_loop_has_received_and_not_what_workers_have_prefetched(workers):
    dataset = Counted()
    options = {"prefetch_factor": 3} if workers else {}
    loader = loader_of(dataset, num_workers=workers, **options)
    assert consumed(loader) == 0
    begun = iter(loader)
    assert len(begun) == 10
    for number in range(1, 4):
        next(begun)
        assert consumed(loader) == number
    for _ in begun:
        pass
    assert consumed(loader) == 10
    assert dataset.drawn.tolist() == [1] * 40


@pytest.mark.parametrize("workers", [0, 2])
def test_no_sample_before_the_place_is_drawn_again(workers):
    whole = [*loader_of()]
    state = {**loader_of().state_dict(), "batches": 7}
    dataset = Counted()
    resumed = loader_of(dataset, num_workers=workers)
    resumed.load_state_dict(state)
    rest = [*resumed]
    assert all(map(torch.equal, rest, whole[7:]))
    assert len(rest) == 3
    assert dataset.drawn.sum() == 12
    again = [*resumed]
    assert len(again) == 10, "the pass after the resumed one is whole"


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"sampler": RandomSampler(range(40))}, 10),
        ({"sampler": RandomSampler(range(40)), "batch_size": 3}, 14),
        ({"sampler": RandomSampler(range(40)), "batch_size": 3, "drop_last": True}, 13),
        ({"sampler": RandomSampler(range(40)), "batch_size": None}, 40),
    ],
)
def test_a_place_beyond_the_end_is_refused_also_with_a_sampler(options, last):
    loader = loader_of(shuffle=False, **options)
    state = loader.state_dict()
    with pytest.raises(ValueError, match=f"from 0 up to {last}, got {last + 1}"):
        loader.load_state_dict({**state, "batches": last + 1})
    loader.load_state_dict({**state, "batches": last})
    assert [*loader] == []
    del state["seed"]
    with pytest.raises(ValueError, match="seed missing instead of 1029"):
        loader.load_state_dict(state)


def test_a_loaded_place_waits_for_its_epoch():
    state = {**loader_of().state_dict(), "epoch": 2, "batches": 7}
    resumed = loader_of()
    resumed.load_state_dict(state)
    assert resumed.epoch == 2
    assert resumed.state_dict() == state
    resumed.set_epoch(2)
    assert len([*resumed]) == 3
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert consumed(resumed) == 0
    assert len([*resumed]) == 10


def test_an_epoch_that_had_ended_has_no_rest():
    loader = loader_of()
    for _ in loader:
        pass
    resumed = loader_of()
    resumed.load_state_dict(loader.state_dict())
    assert [*resumed] == []
    resumed.set_epoch(1)
    assert len([*resumed]) == 10


def test_a_pass_that_was_left_does_not_count_for_the_next():
    loader = loader_of()
    left = iter(loader)
    next(left)
    begun = iter(loader)
    next(begun)
    next(begun)
    next(left)
    assert consumed(loader) == 2
    loader.set_epoch(1)
    assert consumed(loader) == 0


def test_workers_end_when_a_pass_is_left():
    # Those of a pass that has raised live on until the collector finds torch's iterator.
    before = {*multiprocessing.active_children()}
    loader = loader_of(num_workers=2)
    for _ in loader:
        break
    deadline = time.monotonic() + 30
    while {*multiprocessing.active_children()} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {*multiprocessing.active_children()} <= before
    kept = weakref.ref(loader)
    del loader
    assert kept() is None


def test_a_pass_whose_persistent_workers_draw_for_another_one_is_refused():
    loader = loader_of(num_workers=1, persistent_workers=True)
    left = iter(loader)
    next(left)
    begun = iter(loader)
    next(begun)
    with pytest.raises(RuntimeError, match="another pass of this loader has begun"):
        next(left)
    assert len([*begun]) == 9


def test_the_epoch_that_a_trainer_tells_the_sampler_counts():
    loader, other = loader_of(), loader_of()
    loader.sampler.set_epoch(3)
    other.set_epoch(3)
    assert loader.epoch == 3
    assert all(map(torch.equal, loader, other))
    assert loader.dataset.epoch == 3


@pytest.mark.parametrize("size", [40, 40_000])
def test_a_state_is_small_whatever_the_epochs_length(size):
    sampler = WeightedRandomSampler(torch.ones(size), size)
    for loader in (
        loader_of(Counted(size)),
        loader_of(Counted(size), sampler=sampler, shuffle=False),
    ):
        next(iter(loader))
        assert len(pickle.dumps(loader.state_dict())) < 1000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dataset": Counted(41)}, "length 40 instead of 41"),
        ({"seed": 7}, "seed 1029 instead of 7"),
        ({"shuffle": False}, "order 'shuffled' instead of 'in order'"),
        ({"shuffle": False, "sampler": [1, 2]}, "length 40 instead of 2"),
        ({"batch_size": 5}, "batch_size 4 instead of 5"),
        ({"batch_size": None}, "batch_size 4 instead of None"),
        ({"drop_last": True}, "drop_last False instead of True"),
        ({"num_replicas": 2, "rank": 0}, "num_replicas 1 instead of 2"),
    ],
)
def test_a_state_of_another_loader_is_refused_and_changes_nothing(options, says):
    state = {**loader_of().state_dict(), "epoch": 1, "batches": 3}
    other = loader_of(**options)
    before = other.state_dict()
    with pytest.raises(ValueError, match=says):
        other.load_state_dict(state)
    assert other.state_dict() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batches": 11}, "batches must be an integer from 0 up to 10"),
        ({"batches": "3"}, "batches must be"),
        ({"epoch": 2**63}, "epoch must be"),
        ({"format": True}, "format True instead of 1"),
    ],
)
def test_a_damaged_state_is_refused(change, says):
    loader = loader_of()
    with pytest.raises(ValueError, match=says):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(ValueError, match="expected a saved place"):
        loader.load_state_dict({"epoch": 1})


def test_a_state_that_is_loaded_during_a_pass_counts():
    loader = loader_of()
    left = iter(loader)
    next(left)
    loader.load_state_dict({**loader.state_dict(), "batches": 7})
    next(left)
    assert consumed(loader) == 7
    assert len([*loader]) == 3


def test_a_place_is_kept_if_the_pass_cannot_begin(monkeypatch):
    loader = loader_of()
    loader.load_state_dict({**loader.state_dict(), "batches": 7})
    with monkeypatch.context() as broken:
        broken.setattr(torch.utils.data.DataLoader, "__iter__", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(iter(loader))
    assert consumed(loader) == 7
    assert len([*loader]) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_empty_dataset_has_no_batches(workers):
    loader = loader_of(Counted(0), num_workers=workers)
    loader.set_epoch(3)
    assert loader.epoch == 3
    assert [*loader] == []
    resumed = loader_of(Counted(0))
    resumed.load_state_dict(loader.state_dict())
    assert (resumed.epoch, [*resumed]) == (3, [])


def test_ranks_share_the_batches_of_an_epoch():
    ranks = [loader_of(batch_size=2, num_replicas=2, rank=rank) for rank in range(2)]
    state = {**ranks[0].state_dict(), "batches": 4}
    for loader in ranks:
        loader.load_state_dict(state)  # of the first rank, for all
    together = [torch.cat(both)[[0, 2, 1, 3]] for both in zip(*ranks, strict=True)]
    whole = loader_of()
    assert all(map(torch.equal, together, [*whole][4:]))
