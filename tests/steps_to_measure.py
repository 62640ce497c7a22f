"""Steps for tests of `cost`, where fresh processes can import them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import weakref

import torch


def training():
    network = torch.nn.Sequential(
        torch.nn.Linear(32, 32), torch.nn.Dropout(), torch.nn.Linear(32, 4)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step():
        loss = network(torch.randn(16, 32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return network

    return step


def racing():
    """Threads add into the same places: another order gives other bits, most times."""
    # So many that the threads meet also where they take turns on one core.
    source, places = torch.randn(2_000_000), torch.randint(0, 50, (2_000_000,))

    def step():
        return torch.zeros(50).index_put_((places,), source, accumulate=True)

    return step


def without_a_deterministic_kernel():
    values, places = torch.nn.functional.max_pool2d(torch.randn(1, 2, 8, 8), 2, return_indices=True)
    return lambda: torch.nn.functional.max_unpool2d(values, places, 2)


def entropy():
    import os

    return lambda: torch.tensor(int.from_bytes(os.urandom(7), "big"))


def broken():
    return lambda: torch.zeros(2) @ torch.zeros(3)


def returns_nothing():
    return lambda: None


def no_step():
    return torch.zeros(3)


def a_model():
    return torch.nn.Linear(2, 2)


def asked():
    assert multiprocessing.parent_process() is not None, "asked in the caller"
    return False


def late():
    """An operation that does not repeat, in every twentieth step alone."""
    unpool, calls = without_a_deterministic_kernel(), itertools.count(1)
    return lambda: unpool() if next(calls) % 20 == 0 else torch.ones(1)


def ends():
    batches = iter(torch.ones(50, 2))
    return lambda: next(batches).sum()


most_alive = 0


def cyclic():
    """Each step leaves an object that only the garbage collector takes away."""
    alive = weakref.WeakSet()

    class Left:
        def __init__(self):
            self.itself = self
            alive.add(self)

    def step():
        global most_alive
        Left()
        most_alive = max(most_alive, len(alive))
        time.sleep(0.0001)
        return torch.ones(1)

    return step


def fine_or_not(group, item):
    """What `measure_all` calls: it raises, ends its process, or says which process it is."""
    if item == "raises":
        raise ValueError("no such layer\nat all")
    if item == "dies":
        os._exit(1)
    return {"process": os.getpid()}


def device_or_not(group, item):
    """As after an illegal access on a GPU: CUDA answers nothing else any more."""

    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    if item == "lost":
        torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, synchronize
    return {"process": os.getpid()}


def device_or_death(group, item):
    """The driver ends the process that asks for a lost device."""
    found = device_or_not(group, item)
    if item == "lost":
        torch.cuda.synchronize = lambda: os._exit(1)
    return found


class DiesOnArrival:
    """Ends the process that it is sent to."""

    def __reduce__(self):
        return os._exit, (1,)


def slow(group, item):
    time.sleep(0.5)
    return {"process": os.getpid()}
