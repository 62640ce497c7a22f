"""Interrupts anywhere in a block: the outer state is back when the caller catches them."""

from __future__ import annotations

import pytest
import torch

import interrupted_blocks
from interrupted_blocks import ACTIONS, MODEL
from interrupts import FaultAt, attack, not_as_before
from seedscope import RunLog, snapshot

pytestmark = [
    # An interrupt can come between the call of a coroutine function and the await.
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("by_thread", [False, True], ids=["timer", "thread"])
@pytest.mark.parametrize("name", ACTIONS)
def test_a_signal_at_any_time_leaves_nothing_behind(name, by_thread):
    found = attack(ACTIONS[name], 60, by_thread=by_thread, model=MODEL)
    assert found.lost == []


@pytest.mark.slow
@pytest.mark.parametrize("by_thread", [False, True], ids=["timer", "thread"])
@pytest.mark.parametrize("name", ACTIONS)
def test_thousands_of_signals_leave_nothing_behind(name, by_thread):
    found = attack(ACTIONS[name], 2_000, by_thread=by_thread, model=MODEL)
    print(f"{name}: {found.signals} signals, {found.swallowed} swallowed")
    assert found.lost == []


def faults_at_bytecodes(name, places):
    action, before = ACTIONS[name], snapshot()
    interrupted_blocks.FINALLY.clear()
    FaultAt(10**9, event="opcode").run(action)  # Python 3.12 tells the first time of no bytecode
    for place in places:
        fault = FaultAt(place, event="opcode")
        happened = fault.run(action)
        assert not_as_before(before, MODEL) == (), f"a fault at {fault.where}"
        assert set(interrupted_blocks.FINALLY) <= {"inside"}, f"a fault at {fault.where}"
        if not happened:
            return place
    raise AssertionError(f"{name} has more bytecodes")


@pytest.mark.parametrize("name", ACTIONS)
def test_a_fault_at_every_seventh_bytecode_leaves_nothing_behind(name, small):
    assert faults_at_bytecodes(name, range(1, 100_000, 7)) > 1_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIONS)
def test_a_fault_at_every_bytecode_leaves_nothing_behind(name, small):
    assert faults_at_bytecodes(name, range(1, 100_000)) > 1_000


def test_a_run_after_an_interrupted_one_is_logged(small):
    log = RunLog(interrupted_blocks.LOG)
    for place in range(1, 100_000, 21):
        happened = FaultAt(place, event="opcode").run(ACTIONS["logged"])
        before = len([*log])
        ACTIONS["logged"]()
        assert len([*log]) == before + 1
        if not happened:
            break


@pytest.fixture
def small(monkeypatch):
    """Short operators, where no signal has to meet them."""
    monkeypatch.setattr(interrupted_blocks, "BIG", torch.ones(2, 2))
