"""A fault at every line: nothing is lost, and the toolkit works afterwards."""

from __future__ import annotations

import ctypes
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from fake_accelerator import FAKE
from helpers import Lottery
from interrupts import Fault, FaultAt
from seedscope import RestoreError, Source, Stream, register_source, seeded, snapshot
from seedscope.scope.open_scopes import _open_scopes
from seedscope.scope.scope import Scope
from seedscope.support.interrupts import in_one_step


def changed_since(before) -> tuple[str, ...]:
    """The names that changed since a snapshot, and variables that os.environ has wrong."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    names = ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "TORCHINDUCTOR_DETERMINISTIC")
    unknown = [n for n in names if getenv(n.encode()) != os.environb.get(n.encode())]
    return (*before.changed(snapshot()), *unknown)


def expected_draws():
    with seeded(5):
        return random.random(), np.random.standard_normal(), torch.rand(1).item()


def test_a_signal_never_comes_between_calls_in_one_step():
    done = []
    # The C library's call: Python's own calls also handle the signal that they send, at once.
    send = partial(ctypes.CDLL(None)["raise"], signal.SIGALRM)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)

    def interrupted():
        in_one_step(send, partial(done.append, 1), partial(done.append, 2))
        done.append("later")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert done == [1, 2]


def test_calls_in_one_step_end_with_the_first_that_raises():
    done = []
    with pytest.raises(IndexError):
        in_one_step(partial(done.append, 1), [].pop, partial(done.append, 2))
    assert done == [1]


def enter_in_another_thread():
    """Enter a scope; this hangs or raises if a fault has left the turn taken."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(expected_draws).result(20)


@pytest.fixture(
    params=[
        "plain",
        "cached Gaussian",
        "device running",
        "other bit generator",
        "nested",
        "public ways",
    ]
)
def outer_state(request):
    outer = snapshot()
    if request.param == "cached Gaussian":
        random.gauss(0, 1)
        np.random.standard_normal()
    elif request.param == "device running":
        FAKE.init()
    elif request.param == "other bit generator":
        np.random.set_bit_generator(np.random.PCG64(5))
    elif request.param == "public ways":
        request.getfixturevalue("public_ways")
    if request.param == "nested":
        with seeded(7):
            yield
    else:
        yield
    FAKE.reset()
    outer.restore()


@pytest.mark.parametrize("error", [Fault, ValueError])
@pytest.mark.parametrize(
    "make", [lambda: seeded(1029), lambda: Stream(1029), lambda: seeded(3, threads="wait")]
)
def test_a_fault_at_any_line_of_entry_leaves_the_outer_state(outer_state, make, error):
    before, open_before = snapshot(), [*_open_scopes]
    expected = expected_draws()
    for lines in range(1, 10_000):
        scope = make()
        fault = FaultAt(lines, error)
        if not fault.run(scope.__enter__):
            scope.__exit__(None, None, None)
            break
        assert changed_since(before) == (), f"a fault at {fault.where}"
        assert _open_scopes == open_before, f"a fault at {fault.where}"
        assert expected_draws() == expected, f"after a fault at {fault.where}"
        if not _open_scopes:
            assert enter_in_another_thread() == expected, f"after a fault at {fault.where}"
    assert lines > 80, "the whole entry was traced"
    assert snapshot() == before


@pytest.mark.parametrize("make", [seeded, Stream])
def test_an_interrupt_at_any_line_of_exit_leaves_the_outer_state(outer_state, make):
    before, open_before = snapshot(), [*_open_scopes]
    for lines in range(1, 10_000):
        scope = make(1029)
        scope.__enter__()
        random.random(), np.random.standard_normal(), torch.rand(1)
        torch.backends.cudnn.benchmark = True
        fault = FaultAt(lines)
        happened = fault.run(partial(scope.__exit__, None, None, None))
        if not happened:
            break
        assert changed_since(before) == (), f"a fault at {fault.where}"
        assert _open_scopes == open_before, f"a fault at {fault.where}"
        if not _open_scopes:
            enter_in_another_thread()
    assert lines > 60
    assert snapshot() == before


def test_an_interrupt_at_any_line_of_a_snapshot_changes_nothing(outer_state):
    before = snapshot()
    for lines in range(1, 10_000):
        fault = FaultAt(lines)
        if not fault.run(snapshot):
            break
        assert changed_since(before) == (), f"a fault at {fault.where}"
    assert lines > 30


class Interrupted(Lottery, Source):
    """Its restore is interrupted, the first `times` times."""

    name = "interrupted"

    def __init__(self, times, error=KeyboardInterrupt):
        super().__init__()
        self.left, self.error = times, error

    def restore(self, state):
        if self.left:
            self.left -= 1
            raise self.error
        super().restore(state)


@pytest.mark.parametrize("times", [1, 2, 100])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_restore_runs_again_and_stops_no_other(error, times):
    before = snapshot()
    source = Interrupted(times, error)
    unregister = register_source(source)
    try:
        with pytest.raises(error), seeded(1029):
            random.random(), np.random.rand(), torch.rand(1)
    finally:
        unregister()
    assert before.changed(snapshot()) == ()
    assert not _open_scopes
    assert (source.state == 7) == (times < 100)
    enter_in_another_thread()


@pytest.mark.parametrize("make", [seeded, Stream])
def test_interrupts_before_an_exit_and_in_a_restore_lose_nothing(make, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = snapshot()
    unregister = register_source(Interrupted(1))
    try:
        block = make(1029)
        opened = block.__enter__()
        random.random(), np.random.rand(), torch.rand(1)
        monkeypatch.setattr(Scope, "leave", interrupted)
        with pytest.raises(KeyboardInterrupt):
            block.__exit__(None, None, None)
        monkeypatch.undo()
        assert not opened.is_open
    finally:
        unregister()
    assert before.changed(snapshot()) == ()
    assert not _open_scopes
    enter_in_another_thread()


class Failing(Lottery, Source):
    """Once it has drawn, the next call of one of its methods fails."""

    name = "failing"

    def __init__(self, method):
        super().__init__()
        self.method, self.has_drawn = method, False

    def capture(self):
        self.fail("capture")
        return super().capture()

    def restore(self, state):
        self.fail("restore")
        super().restore(state)

    def draw(self):
        self.has_drawn = True
        return super().draw()

    def fail(self, method):
        if self.has_drawn and method == self.method:
            self.has_drawn = False
            raise ValueError(f"{method} fails")


@pytest.mark.parametrize("make", [seeded, Stream])
@pytest.mark.parametrize("method", ["capture", "restore"])
def test_a_call_whose_own_exit_fails_leaves_its_scope(make, method):
    before, source = snapshot(), Failing(method)
    unregister = register_source(source)
    try:

        @make(1029)
        def function():
            random.random(), np.random.rand(), torch.rand(1)
            torch.backends.cudnn.benchmark = True
            source.draw()

        with pytest.raises((ValueError, RestoreError)):
            function()
        assert not _open_scopes
        assert source.state == 7  # a restore that fails once runs again
    finally:
        unregister()
    assert before.changed(snapshot()) == ()
    enter_in_another_thread()
