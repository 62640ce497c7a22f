"""Interrupts anywhere in a block: the outer state is back when the caller catches them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import signal
import threading
import types
import weakref
from functools import partial

import pytest
import torch

import interrupted_blocks
from helpers import run_in_thread, run_python
from interrupted_blocks import ACTIONS, MODEL
from interrupts import Fault, FaultAt, attack, not_as_before
from seedscope import RunLog, Stream, current_scope, isolated, seeded, snapshot
from seedscope.runs.recorder import Recorder
from seedscope.scope import turns
from seedscope.scope.scope import Scope
from seedscope.scope.stepping import Body, drive
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


def faults_at_bytecodes(name, places, error=Fault):
    action, before = ACTIONS[name], snapshot()
    interrupted_blocks.FINALLY.clear()
    FaultAt(10**9, event="opcode").run(action)  # Python 3.12 tells the first time of no bytecode
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


def test_an_exit_by_hand_can_be_called_again_and_again():
    before, block = snapshot(), seeded(1029)
    leave = block.__exit__
    error = ValueError("of the block")
    for raised in (None, None, None), (ValueError, error, None), (ValueError, error, error):
        block.__enter__()
        random.random()
        assert leave(*raised) is None, "an exit suppresses no error"
        assert before.changed(snapshot()) == ()
    with pytest.raises(RuntimeError, match="without having been entered"):
        leave(None, None, None)


def test_a_dropped_exit_leaves_what_its_own_with_has_entered_and_nothing_else():
    before, block = snapshot(), seeded(1029)
    with block:
        inside = snapshot()
        del_me = block.__exit__
        del del_me  # of the open block, not entered by it
        assert inside.changed(snapshot()) == ()
        leave = block.__exit__
        block.__enter__()
        random.random()
        del leave
        assert before.changed(snapshot()) != ()
        assert inside.changed(snapshot()) == ()
    assert before.changed(snapshot()) == ()


def test_the_exit_of_a_class_serves_an_exit_stack():
    before = snapshot()
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(seeded(1029)) is current_scope()
        stack.enter_context(isolated())
        random.random()
    assert before.changed(snapshot()) == ()


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
        before = len([*log])
        fault = FaultAt(place, event="opcode")
        happened = fault.run(lambda: [*steps()])
        for run in [*log][before:] if happened else []:
            is_late = fault.where.startswith(("recorder", "log", "files", "scope", "wrapping"))
            assert run.outcome == f"Fault: {fault.where}" or (run.outcome == "ok" and is_late)
        if not happened:
            break


@pytest.fixture
def interrupted_exit(monkeypatch):
    """Ctrl-C comes wherever a block begins to be left."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Scope, "leave", interrupted)


def test_an_interrupt_at_an_exit_is_the_outcome_of_its_run(tmp_path, interrupted_exit):
    log = RunLog(tmp_path / "runs.jsonl")
    with pytest.raises(KeyboardInterrupt), seeded(3, log=log):
        pass
    assert [run.outcome for run in log] == ["KeyboardInterrupt"]


def test_an_interrupt_at_an_exit_keeps_no_objects_alive(interrupted_exit):
    class Local:
        pass

    kept = []

    def block():
        local = Local()
        kept.append(weakref.ref(local))
        with seeded(3):
            pass

    gc.disable()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            block()
        assert kept[0]() is None
    finally:
        gc.enable()


def test_a_dropped_exit_gives_back_a_turn_that_an_interrupted_entry_has_kept():
    leave = seeded(3).__exit__
    assert turns.take(threading.get_ident(), waits=False) is None
    del leave
    assert not turns._holder


def test_a_turn_that_an_interrupt_has_given_back_half_wakes_those_who_wait():
    woken = threading.Lock()
    woken.acquire()
    turns._waiting_threads.append(woken)
    turns.give_back(threading.get_ident())  # again: nobody has the turn
    assert woken.acquire(timeout=0)


class InterruptedScope:
    """A scope whose entries are interrupted, at the calls `at`."""

    def __init__(self, at):
        self.at, self.entries, self.is_open = at, 0, False

    def __enter__(self):
        self.entries += 1
        if self.entries in self.at:
            raise KeyboardInterrupt
        self.is_open = True

    def __exit__(self, *_):
        self.is_open = False


def test_a_body_is_closed_in_its_scope_after_a_second_interrupt():
    scope, ended = InterruptedScope(at=(2, 3)), []

    def body():
        try:
            yield
        finally:
            ended.append(scope.is_open)

    steps = drive(Body(body()), scope)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    assert ended == [True]


def test_an_async_body_that_is_closed_at_an_await_ends_in_its_scope():
    modes = []

    @types.coroutine
    def wait():
        yield

    @seeded(3)
    async def steps():
        try:
            await wait()
            yield
        finally:
            modes.append(torch.get_deterministic_debug_mode())

    async def consume():
        async for _ in steps():
            pass

    consumer = consume()
    consumer.send(None)
    consumer.close()
    assert modes == [2]
