"""An order that is a function of the seed and the epoch, and resumes in mid-epoch."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from seedscope import SeededSampler, seeded, snapshot
from seedscope.data.indices import SeededIndex

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Buckets(Sampler):
    """A batch sampler that shuffles by `random`, by NumPy and by a generator that it holds."""

    def __init__(self, size=10):
        self.size, self.rng = size, np.random.default_rng(3)

    def __len__(self):
        return 4

    def __iter__(self):
        order = [*range(self.size)]
        random.shuffle(order)
        for start in range(0, 8, 2):
            yield [order[start], int(np.random.randint(self.size)), int(self.rng.integers(10))]


SAMPLERS = {
    "weighted": lambda: WeightedRandomSampler([1.0, 2.0, 3.0], 12),
    "with replacement": lambda: RandomSampler(range(5), replacement=True, num_samples=12),
    "subset": lambda: SubsetRandomSampler([3, 1, 4, 5]),
    "batches": Buckets,
    "of torch": lambda: BatchSampler(RandomSampler(range(9)), 2, drop_last=False),
}


def order_of(source, epoch=0, seed=1029, **options):
    sampler = SeededSampler(source, seed, **options)
    sampler.set_epoch(epoch)
    found = [*sampler]
    assert len(found) == len(sampler)
    return found


def test_the_order_of_a_dataset_is_a_function_of_seed_and_epoch():
    first = order_of(range(50))
    assert sorted(first) == [*range(50)]
    with seeded(3):
        torch.rand(4)
        assert order_of(range(50)) == first
    others = [order_of(range(50), epoch=1), order_of(range(50), seed=1030)]
    assert first not in others
    assert order_of(range(50), shuffle=False) == [*range(50)]


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_the_order_of_a_sampler_is_a_function_of_seed_and_epoch(make):
    before = snapshot()
    orders = [order_of(make(), epoch) for epoch in range(4)]
    assert [order_of(make(), epoch) for epoch in range(4)] == orders
    assert any(order != orders[0] for order in orders)
    assert before.changed(snapshot()) == ()


def test_indices_carry_the_epoch_and_tell_repeated_draws_apart():
    drawn = order_of(WeightedRandomSampler([1.0, 1.0], 16), epoch=3)
    assert all(type(index) is SeededIndex and index.epoch == 3 for index in drawn)
    seen = Counter()
    for index in drawn:
        assert index.repeat == seen[int(index)]
        seen[int(index)] += 1


def test_indices_in_batches_and_slices_are_marked_too():
    batches = order_of(Buckets())
    assert all(type(index) is SeededIndex for batch in batches for index in batch)
    repeats = Counter((int(i), i.repeat) for batch in batches for i in batch)
    assert set(repeats.values()) == {1}

    class Slices(Sampler):
        def __len__(self):
            return 4

        def __iter__(self):
            yield from (slice(0, 3), "a name", np.array([3, 3]), torch.tensor([1.5]))

    part, name, array, other = order_of(Slices())
    assert (part, name, array) == (slice(0, 3), "a name", [3, 3])
    assert type(part.stop) is SeededIndex
    assert [index.repeat for index in array] == [1, 2], "the slice ends at 3"
    assert torch.equal(other, torch.tensor([1.5])), "no index"


@given(size=st.integers(1, 40), ranks=st.integers(1, 5), cut=st.booleans(), mixed=st.booleans())
def test_ranks_share_as_those_of_a_distributed_sampler(size, ranks, cut, mixed):
    shares = []
    for rank in range(ranks):
        shard = {"num_replicas": ranks, "rank": rank, "drop_last": cut}
        ours = SeededSampler(range(size), 5, shuffle=mixed, **shard)
        theirs = DistributedSampler(range(size), shuffle=False, **shard)
        shares.append([*ours])
        assert len(ours) == len(shares[-1]) == len(theirs)
        if not mixed:
            assert shares[-1] == [*theirs]
    drawn = [(int(index), index.repeat) for share in shares for index in share]
    assert len({*drawn}) == len(drawn), "what fills the end up is another draw"
    whole = [int(index) for index in SeededSampler(range(size), 5, shuffle=mixed)]
    together = [index for places in zip(*shares, strict=True) for index in places]
    assert together[:size] == whole[: len(together)]


@given(size=st.integers(0, 30), ranks=st.integers(1, 3), data=st.data())
def test_a_resumed_pass_has_the_rest(size, ranks, data):
    shard = {"num_replicas": ranks, "rank": data.draw(st.integers(0, ranks - 1))}
    sampler = SeededSampler(range(size), 5, **shard)
    sampler.set_epoch(2)
    whole = [*sampler]
    begun = iter(sampler)
    drawn = [next(begun) for _ in range(data.draw(st.integers(0, len(whole))))]
    resumed = SeededSampler(range(size), 5, **shard)
    resumed.load_state_dict(sampler.state_dict())
    resumed.set_epoch(2)
    assert [*drawn, *resumed] == whole
    assert [*resumed] == whole, "the pass after it is whole"


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_a_samplers_order_resumes(make):
    sampler = SeededSampler(make(), 5)
    sampler.set_epoch(1)
    begun = iter(sampler)
    drawn = [next(begun), next(begun)]
    resumed = SeededSampler(make(), 5)
    resumed.load_state_dict(sampler.state_dict())
    assert [*drawn, *resumed] == order_of(make(), epoch=1, seed=5)


def test_a_pass_has_the_epoch_of_its_first_index_and_counts_in_that_alone():
    sampler = SeededSampler(range(9), 1)
    begun = iter(sampler)
    sampler.set_epoch(1)
    assert next(begun).epoch == 1
    assert sampler.state_dict()["position"] == 1
    sampler.set_epoch(2)
    assert next(begun).epoch == 1
    assert sampler.state_dict()["position"] == 0


def test_another_epoch_begins_at_its_beginning():
    sampler = SeededSampler(range(9), 5)
    sampler.load_state_dict({**sampler.state_dict(), "epoch": 1, "position": 4})
    sampler.set_epoch(2)
    assert len([*sampler]) == 9
    assert sampler.state_dict()["position"] == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_a_place_is_exact_without_workers_and_warned_of_with_them(workers):
    sampler = SeededSampler(range(12), 5)
    loader = DataLoader(
        range(12), 2, sampler=sampler, num_workers=workers, generator=torch.Generator()
    )
    batches = iter(loader)
    next(batches)
    if workers:
        with pytest.warns(RuntimeWarning, match="ahead of the training"):
            assert sampler.state_dict()["position"] > 2
    else:
        assert sampler.state_dict()["position"] == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 6}, "seed 6 instead of 5"),
        ({"length": 11}, "length 11 instead of 12"),
        ({"order": "in order"}, "order 'in order' instead of 'shuffled'"),
        ({"num_replicas": 2}, "num_replicas 2"),
        ({"format": 2}, "format 2"),
        ({"position": 13}, "position must be an integer from 0 up to 12"),
        ({"position": -1}, "position must be"),
        ({"position": True}, "position must be"),
        ({"epoch": -1}, "epoch must be"),
        ({"epoch": "1"}, "no usable epoch"),
    ],
)
def test_a_state_of_another_sampler_is_refused_and_changes_nothing(change, says):
    sampler = SeededSampler(range(12), 5)
    sampler.set_epoch(3)
    next(iter(sampler))
    before = sampler.state_dict()
    with pytest.raises(ValueError, match=says):
        sampler.load_state_dict({**before, **change})
    for damaged in (None, [], {}, {"epoch": 1}):
        with pytest.raises(ValueError, match="expected a saved place"):
            sampler.load_state_dict(damaged)
    assert sampler.state_dict() == before


def test_a_state_of_a_sampler_with_other_weights_is_refused():
    state = SeededSampler(WeightedRandomSampler([1.0, 1.0], 9), 5).state_dict()
    with pytest.raises(ValueError, match="order 'torch"):
        SeededSampler(WeightedRandomSampler([1.0, 9.0], 9), 5).load_state_dict(state)


class Endless:
    def __iter__(self):
        while True:
            yield 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((Endless(), 1), "Give test_sampler.Endless a __len__"),
        ((8, 1), "expected a dataset or a sampler with a length, got 8"),
        ((range(3), -1), "seed must be in"),
        ((range(3), "1"), "seed must be an integer"),
    ],
)
def test_a_wrong_source_or_seed_is_refused(arguments, says):
    with pytest.raises((TypeError, ValueError), match=says):
        SeededSampler(*arguments)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_replicas": 2, "rank": 2}, "from 0 to 1, got 2"),
        ({"rank": 1}, "rank=1 needs num_replicas"),
        ({"num_replicas": 2}, "num_replicas=2 needs a rank"),
        ({"num_replicas": 0}, "at least 1, got 0"),
    ],
)
def test_a_wrong_rank_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        SeededSampler(range(3), 1, **options)


def test_a_sampler_that_shares_among_ranks_keeps_its_share_and_gets_the_epoch():
    def share(rank, epoch):
        inner = DistributedSampler(range(12), num_replicas=2, rank=rank, seed=3)
        return order_of(BatchSampler(inner, 2, drop_last=False), epoch)

    drawn = sorted(index for rank in range(2) for batch in share(rank, 1) for index in batch)
    assert drawn == [*range(12)]
    assert share(0, 1) != share(0, 2)
    inner = DistributedSampler(range(12), num_replicas=2, rank=0)
    with pytest.raises(ValueError, match="gives each rank its share"):
        SeededSampler(inner, 1, num_replicas=2, rank=0)


def test_a_sampler_that_draws_from_the_operating_system_is_warned_of():
    buckets = Buckets()
    buckets.rng = random.SystemRandom()
    with pytest.warns(RuntimeWarning, match=r"sampler.rng draws from the operating system .*\.$"):
        SeededSampler(buckets, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_sampler_resumes_under_a_plain_loader(workers):
    def made():
        return SeededSampler(BatchSampler(RandomSampler(range(11)), 3, False), 1029)

    whole = [*made()]
    resumed = made()
    resumed.load_state_dict({**resumed.state_dict(), "position": 2})
    options = {"num_workers": workers, "generator": torch.Generator()}
    loader = DataLoader(range(11), batch_sampler=resumed, **options)
    assert [batch.tolist() for batch in loader] == whole[2:]
    assert [batch.tolist() for batch in loader] == whole


def test_a_number_of_numpy_serves_as_a_rank_and_in_a_state():
    sampler = SeededSampler(range(9), 1, num_replicas=np.int64(2), rank=np.int64(1))
    SeededSampler(range(9), 1, num_replicas=2, rank=0).load_state_dict(sampler.state_dict())


def test_a_place_beyond_the_end_of_a_samplers_order_is_refused():
    sampler = SeededSampler(RandomSampler(range(9)), 1, num_replicas=2, rank=1)
    with pytest.raises(ValueError, match="from 0 up to 5, got 6"):
        sampler.load_state_dict({**sampler.state_dict(), "position": 6})


def test_shuffle_is_for_a_dataset():
    with pytest.raises(ValueError, match="shuffle is for a dataset"):
        SeededSampler(Buckets(), 1, shuffle=True)
