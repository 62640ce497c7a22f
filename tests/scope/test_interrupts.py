"""Interrupts anywhere in a block: the outer state is back when the caller catches them."""

from __future__ import annotations

import ctypes
import gc
import random
import signal
from functools import partial

import pytest
import torch

import interrupted_blocks
from helpers import run_in_thread, run_python
from interrupted_blocks import ACTIONS, GAPS, MODEL
from interrupts import Fault, FaultAt, attack, not_as_before
from seedscope import RunLog, Stream, current_scope, seeded, snapshot
from seedscope.runs.recorder import Recorder
from seedscope.support.garbage import is_collecting

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


@pytest.mark.slow
@pytest.mark.parametrize("name", GAPS)
def test_a_gap_that_known_issues_name_is_still_there(name):
    found = attack(GAPS[name], 1_000, model=MODEL)
    print(f"{name}: {len(found.lost)} of {found.signals} signals left a scope open")
    assert found.lost


def faults_at_bytecodes(name, places, error=Fault):
    action, before = ACTIONS[name], snapshot()
    interrupted_blocks.FINALLY.clear()
    for place in places:
        fault = FaultAt(place, error, event="opcode")
        happened = fault.run(action)
        assert not_as_before(before, MODEL) == (), f"a fault at {fault.where}"
        assert set(interrupted_blocks.FINALLY) <= {"inside"}, f"a fault at {fault.where}"
        if not happened:
            return place
    raise AssertionError(f"{name} has more bytecodes")


@pytest.mark.parametrize("name", ACTIONS)
def test_a_fault_at_every_seventh_bytecode_leaves_nothing_behind(name, small):
    assert faults_at_bytecodes(name, range(1, 100_000, 7)) > 1_000


@pytest.mark.parametrize("error", [TimeoutError, RuntimeError])
@pytest.mark.parametrize("name", ["operator", "an_evaluation"])
def test_an_error_of_a_signal_handler_at_any_bytecode_leaves_nothing_behind(name, error, small):
    """Unlike Ctrl-C, an `except Exception` on the way can catch it."""
    assert faults_at_bytecodes(name, range(1, 100_000, 13), error) > 1_000


@pytest.mark.parametrize(
    ("name", "error"),
    [(name, Fault) for name in ACTIONS]
    + [
        (name, error)
        for name in ("generator", "coroutine", "async_generator")
        for error in (TimeoutError, RuntimeError)
    ],
)
@pytest.mark.parametrize("stride", [61, pytest.param(3, marks=pytest.mark.slow)])
def test_two_errors_of_signal_handlers_leave_nothing_behind(name, error, stride, small):
    """The second comes while a block or a step is left because of the first."""
    action, before, chance = ACTIONS[name], snapshot(), random.Random(3)
    interrupted_blocks.FINALLY.clear()
    for place in range(1, 100_000, stride):
        fault = FaultAt(place, event="opcode", then=(chance.randrange(1, 100), error))
        happened = fault.run(action)
        assert not_as_before(before, MODEL) == (), f"faults at {fault.where}"
        assert set(interrupted_blocks.FINALLY) <= {"inside"}, f"faults at {fault.where}"
        if not happened:
            break
        assert {*fault.came} & {*fault.told}, "both were swallowed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIONS)
def test_a_fault_at_every_bytecode_leaves_nothing_behind(name, small):
    assert faults_at_bytecodes(name, range(1, 100_000)) > 1_000


def test_a_run_after_an_interrupted_one_is_logged(small):
    log = RunLog(interrupted_blocks.LOG)
    for place in range(1, 100_000, 11):
        interrupted_blocks.LOG.unlink(missing_ok=True)
        fault = FaultAt(place, event="opcode")
        happened = fault.run(ACTIONS["logged"])
        assert not log.unfinished(), fault.where
        assert len([*log]) == len({run.id for run in log}) <= 1
        before = len([*log])
        ACTIONS["logged"]()
        assert len([*log]) == before + 1
        if not happened:
            break


def test_a_fault_in_the_guard_of_a_logged_block_loses_no_end(small):
    class FaultInGuard(FaultAt):
        def __call__(self, frame, event, argument):
            is_guard = frame.f_code.co_name == "_guard"
            return super().__call__(frame, event, argument) if is_guard else None

    log = RunLog(interrupted_blocks.LOG)
    for place in range(1, 1_000):
        interrupted_blocks.LOG.unlink(missing_ok=True)
        fault = FaultInGuard(place, event="opcode")
        happened = fault.run(ACTIONS["logged"])
        assert not log.unfinished(), fault.where
        if not happened:
            break
    assert place > 20


COLLECTIONS = """
import gc, sys
sys.path[:0] = ["tests"]
from interrupts import attack
from seedscope import seeded

with seeded(3):
    pass
gc.freeze()
print(attack(lambda: [gc.collect(0) for _ in range(200)], 1_000).swallowed)
"""


def test_no_interrupt_is_swallowed_in_a_garbage_collection():
    """In a process of its own: other libraries have callbacks in Python."""
    assert run_python(COLLECTIONS) == "0"


def test_a_collection_is_known_in_its_own_thread_alone():
    found = []

    class Dies:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            found.append((is_collecting(), run_in_thread(is_collecting)))

    assert not is_collecting()
    Dies()
    gc.collect()
    assert found == [(True, False)]
    assert not is_collecting()


@pytest.fixture
def small(monkeypatch):
    """Short operators, where no signal has to meet them."""
    monkeypatch.setattr(interrupted_blocks, "BIG", torch.ones(2, 2))


def test_a_stream_goes_on_where_an_interrupt_at_its_exit_has_found_it():
    def draw_in(stream):
        with stream:
            drawn.append(random.random())

    drawn = []
    plain = Stream(1029)
    for _ in range(3):
        draw_in(plain)
    expected = drawn
    for place in range(1, 100_000, 5):
        drawn = []
        stream = Stream(1029)
        draw_in(stream)
        happened = FaultAt(place, event="opcode").run(partial(draw_in, stream))
        draw_in(stream)
        if len(drawn) == 2:  # the fault came before the second draw
            draw_in(stream)
        assert drawn == expected
        if not happened:
            break


@pytest.mark.parametrize("make", [seeded, Stream])
def test_an_interrupt_that_is_kept_leaves_no_later_block_as_it_goes(make):
    scope, kept = make(5), []

    def enter():
        try:
            with scope:
                pass
        except Fault as fault:
            kept.append(fault)
            raise

    for place in range(1, 100_000):
        fault = FaultAt(place, event="opcode")
        happened = fault.run(enter)
        with scope:
            kept.clear()
            assert current_scope() is not None, fault.where
        if not happened:
            break


def test_an_interrupted_restore_of_a_snapshot_leaves_no_mixture():
    sources = ["python", "numpy", "torch"]
    other = snapshot(sources)
    for place in range(1, 100_000, 3):
        with seeded(3):
            inside = other.changed(snapshot(sources))
            fault = FaultAt(place, event="opcode")
            happened = fault.run(other.restore)
            assert other.changed(snapshot(sources)) in ((), inside), fault.where
        if not happened:
            break


def test_an_interrupted_run_ends_in_the_log_with_the_interrupt_as_its_outcome(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), seeded(3, log=log):
            # The C library's call: the signal is handled after it, where the block ends.
            ctypes.CDLL(None)["raise"](signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert [run.outcome for run in log] == ["KeyboardInterrupt"]
    assert not log.unfinished()


def test_an_entry_that_is_interrupted_ends_its_run_in_the_log(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    log = RunLog(tmp_path / "runs.jsonl")
    begin = Recorder.begin
    monkeypatch.setattr(Recorder, "begin", lambda recorder: (begin(recorder), interrupted()))
    with pytest.raises(KeyboardInterrupt), seeded(3, log=log):
        pass
    assert [run.outcome for run in log] == ["KeyboardInterrupt"]


def test_a_logged_generator_whose_scope_is_interrupted_keeps_the_interrupt_as_outcome(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")

    @seeded(3, log=log)
    def steps():
        yield random.random()
        yield random.random()

    for place in range(1, 100_000, 31):
        (tmp_path / "runs.jsonl").unlink(missing_ok=True)
        fault = FaultAt(place, event="opcode")
        happened = fault.run(lambda: [*steps()])
        for run in log if happened else []:
            is_late = fault.where.startswith(("recorder", "log", "files", "scope", "wrapping"))
            assert run.outcome == f"Fault: {fault.where}" or (run.outcome == "ok" and is_late)
        if not happened:
            break
