"""Samples that raise, are late or are interrupted: what comes after, and the saved place."""

from __future__ import annotations

import contextlib
import gc
import signal
import time
import weakref

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from seedscope import SeededDataset, SeededSampler, seeded_loader
from seedscope.data import passes

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


class Slow(Dataset):
    """A dataset of which one sample comes late."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 4:
            time.sleep(self.seconds)
        return torch.rand(1) + index


class Damaged(Slow):
    def __getitem__(self, index):
        if index in (0, 5):
            raise ValueError("damaged")
        return torch.rand(1) + index


class GoesOn(IterableDataset):
    """An iterator that raises once, and goes on."""

    def __init__(self, error=ValueError):
        self.error = error

    def __iter__(self):
        self.number = -1
        return self

    def __next__(self):
        self.number += 1
        if self.number == 2:
            raise self.error("damaged")
        if self.number == 6:
            raise StopIteration
        return self.number + torch.rand(1)


def collected(batches, *errors, stop=None):
    found = []
    while stop is None or len(found) < stop:
        try:
            found.append(next(batches))
        except errors:
            continue
        except StopIteration:
            break
    return found


def rest(loader, dataset):
    resumed = seeded_loader(dataset, 1, batch_size=2)
    resumed.load_state_dict(loader.state_dict())
    return [*resumed]


def test_a_timeout_loses_no_batch_of_the_place():
    whole = [*seeded_loader(Slow(0), 1, batch_size=2)]
    loader = seeded_loader(Slow(2.5), 1, batch_size=2, num_workers=1, timeout=1)
    found = collected(iter(loader), RuntimeError, stop=3)
    assert all(map(torch.equal, [*found, *rest(loader, Slow(0))], whole))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_batch_that_raised_counts_for_the_place(workers, is_known, monkeypatch):
    if not is_known:  # torch's count of what was received
        monkeypatch.setattr(passes, "_RECEIVED", "no such attribute")
    loader = seeded_loader(Damaged(0), 1, batch_size=2, num_workers=workers)
    found = collected(iter(loader), ValueError, stop=2)
    assert [batch[0].floor().item() for batch in found] == [2, 6]
    assert loader.state_dict()["batches"] == 4
    assert [batch[0].floor().item() for batch in rest(loader, Slow(0))] == [8, 10]


def test_an_interrupt_of_a_batch_counts_once_the_pass_has_gone_on():
    def alarm(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        loader = seeded_loader(Slow(1), 1, batch_size=2)
        batches = iter(loader)
        found = [next(batches), next(batches)]
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            next(batches)
        assert loader.state_dict()["batches"] == 2, "a stop here draws the batch again"
        found.append(next(batches))
        assert found[-1].floor().flatten().tolist() == [6, 7]
        assert loader.state_dict()["batches"] == 4
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_that_raises_goes_on_as_without_the_seeds(workers):
    options = {"batch_size": None, "num_workers": workers, "generator": torch.Generator()}
    found = collected(iter(DataLoader(SeededDataset(GoesOn(), 1), **options)), ValueError)
    assert [number.floor().item() for number in found] == [0, 1, 3, 4, 5]
    again = collected(iter(SeededDataset(GoesOn(), 1)), ValueError)
    assert all(map(torch.equal, found, again))


def test_an_interrupted_iterator_goes_on_too():
    stream = iter(SeededDataset(GoesOn(KeyboardInterrupt), 1))
    found = collected(stream, KeyboardInterrupt)
    assert [number.floor().item() for number in found] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_place_behind_a_batch_that_raised_resumes(workers):
    def loader():
        return seeded_loader(GoesOn(), 1, batch_size=2, num_workers=workers)

    stopped = loader()
    found = collected(iter(stopped), ValueError, stop=2)
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    rest = torch.cat([*found, *resumed]).flatten()
    assert rest.floor().tolist() == [0, 1, 3, 4, 5]
    assert torch.equal(rest, torch.cat(collected(iter(loader()), ValueError)).flatten())


def test_an_error_of_an_iterator_keeps_nothing_alive():
    class Kept:
        pass

    class Raising(IterableDataset):
        def __iter__(self):
            kept = Kept()
            kept.found = weakref.ref(kept)
            found.append(kept.found)
            yield 1
            raise ValueError("damaged")

    found = []
    gc.collect()
    gc.disable()
    try:
        stream = iter(SeededDataset(Raising(), 1))
        assert collected(stream, ValueError, stop=1) == [1]
        with pytest.raises(ValueError, match="damaged"):
            next(stream)
        del stream
        assert found[0]() is None
    finally:
        gc.enable()


def test_a_stream_can_be_closed():
    closed = []

    class Closing(IterableDataset):
        def __iter__(self):
            try:
                yield 1
            finally:
                closed.append(torch.rand(1))

    stream = iter(SeededDataset(Closing(), 1))
    with contextlib.closing(stream):
        next(stream)
    assert len(closed) == 1


def test_a_sampler_that_raises_resumes_at_the_same_place():
    class Once(Sampler):
        fails = False

        def __len__(self):
            return 6

        def __iter__(self):
            if self.fails:
                self.fails = False
                raise OSError("not there")
            return iter(range(6))

    inner = Once()
    sampler = SeededSampler(inner, 1)
    sampler.load_state_dict({**sampler.state_dict(), "position": 4})
    inner.fails = True
    with pytest.raises(OSError, match="not there"):
        list(sampler)
    assert [*sampler] == [4, 5]
