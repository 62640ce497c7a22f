"""Steps for tests of `cost`, where fresh processes can import them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
import weakref

import numpy as np
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


def replaced():
    index = torch.tensor([0, 1, 1])

    def step():
        return torch.zeros(4).put_(index, torch.randn(3))

    return step


def racing():
    """Sum in a random order, as racing threads do, unless torch has to repeat.

    Real threads meet in the same order on some machines, where `cost` rightly finds no race.
    """
    values = torch.randn(10_000)

    def step():
        if torch.are_deterministic_algorithms_enabled():
            return values.cumsum(0)
        of_the_system = np.random.default_rng([*os.urandom(8)])  # no scope seeds it
        return values[of_the_system.permutation(len(values))].cumsum(0)

    return step


def without_a_deterministic_kernel():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of quantized tensors, which will be removed
        values = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
    return lambda: values.clone().resize_(2).dequantize()


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
    assert multiprocessing.parent_process() is not None, "the caller looked for a GPU"
    return False


def late():
    """Run an operation that cannot repeat, in every twentieth step only."""
    resize, calls = without_a_deterministic_kernel(), itertools.count(1)
    return lambda: resize() if next(calls) % 20 == 0 else torch.ones(1)


def fails_once():
    """Fail in the first strict step after the repeats."""
    strict = itertools.count(1)

    def step():
        if torch.are_deterministic_algorithms_enabled() and next(strict) == 2:
            raise RuntimeError("once")
        return torch.ones(1)

    return step


def ends():
    batches = iter(torch.ones(50, 2))
    return lambda: next(batches).sum()


most_alive = 0


def cyclic():
    """Leave in each step an object that only the garbage collector frees."""
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


# ---- items of a benchmark run: called with their slot, in the process that measures


def fine(slot):
    return {"process": os.getpid()}


def raises(slot):
    slot.keep({"so far": 1})
    raise ValueError("no such layer\nat all")


def dies(slot):
    slot.keep({"so far": 1})
    os._exit(1)


def hangs(slot):
    """Wait for ever, with a child process that also waits."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    slot.keep({"process": os.getpid(), "child": child.pid})
    time.sleep(1000)


def loses_the_device(slot):
    """Answer, and leave CUDA as after an illegal access: every later call fails."""

    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, synchronize
    return fine(slot)


def loses_the_device_and_dies_of_it(slot):
    """The driver ends the process that asks for a lost device."""
    found = loses_the_device(slot)
    torch.cuda.synchronize = lambda: os._exit(1)
    return found


def forks_and_dies(slot):
    """Die while a forked child that inherited the pipe lives."""
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(1)


def _ends_in_the_middle_of_a_message(slot, how):
    from multiprocessing.connection import Connection

    def send_half(self, message):
        os.write(self.fileno(), message[: len(message) // 2])
        os.kill(os.getpid(), how)
        time.sleep(1000)

    Connection._send = send_half
    slot.keep({"text": "a" * 1000})


def dies_in_a_message(slot):
    if os.fork() == 0:
        time.sleep(1000)  # holds the pipe
    _ends_in_the_middle_of_a_message(slot, signal.SIGKILL)


def stops_in_a_message(slot):
    _ends_in_the_middle_of_a_message(slot, signal.SIGSTOP)


class _NotToBeRead:
    def __reduce__(self):
        return int, ("no number",)


def cannot_be_read(slot):
    return {"what": _NotToBeRead()}


def hangs_afterwards(slot):
    """Answer, and keep the process waiting for a device that never answers."""
    torch.cuda.is_initialized = lambda: True
    torch.cuda.synchronize = lambda: time.sleep(1000)
    return fine(slot)


def nothing(slot):
    return None


def child_returns(slot):
    is_child = os.fork() == 0
    time.sleep(0.5 * (not is_child))
    return fine(slot)


def serves_nothing(connection, method):
    """Stand in for a process that ends before it is ready."""


def floods(slot):
    while True:
        slot.keep({"so far": 1})


def not_json(slot):
    return {"tensor": torch.ones(2)}


def not_a_number(slot):
    return {"ms": float("nan")}


def slow(slot):
    time.sleep(0.5)
    return fine(slot)


class DiesOnArrival:
    """Ends the process that it is sent to."""

    def __reduce__(self):
        return os._exit, (1,)
