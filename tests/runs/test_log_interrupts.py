"""Interrupts of an append: its lock is free at once, and no later line is lost."""

from __future__ import annotations

import errno
import gc
import os
import random
from pathlib import Path

import pytest

from interrupts import Fault, FaultAt
from seedscope import seeded
from seedscope.runs import files
from seedscope.runs import log as run_log


def open_files():
    return sorted(os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists())


@pytest.mark.parametrize("error", [Fault, TimeoutError])
def test_an_append_after_an_interrupted_one_does_not_wait_for_its_lock(log, error, monkeypatch):
    def append():
        try:
            log.append("begin", {"seed": 1})
        except error:  # its traceback holds the frames, and what they hold
            log.append("end", {"seed": 2})
            raise

    monkeypatch.setattr(files, "_patience_s", 0)
    before = open_files()
    for place in range(1, 100_000):
        fault = FaultAt(place, error, event="opcode")
        happened = fault.run(append)
        assert not log.lost, fault.where
        if not happened:
            break
    assert place > 100
    gc.collect()
    assert open_files() == before


def test_the_line_of_a_handler_that_an_interrupt_meets_is_written(log, monkeypatch):
    """One handler logs a run in the append of another, whose line a second one interrupts."""
    write, calls = run_log.append_line, []

    def interrupted(path, line, process):
        calls.append(line)
        if len(calls) == 1:
            with seeded(77, log=log):
                pass
        if b'"event":"end"' in line and b'"seed":77,' in line and len(calls) < 4:
            raise KeyboardInterrupt
        write(path, line, process)

    monkeypatch.setattr(run_log, "append_line", interrupted)
    with pytest.raises(KeyboardInterrupt), seeded(1, log=log):
        pass
    assert 77 in [run.seed for run in log]
    assert not log.unfinished()


def test_an_end_that_is_interrupted_after_a_handlers_lines_is_written_once(log, monkeypatch):
    write = run_log.append_line

    def interrupted(path, line, process):
        if b'"event":"end"' in line and b'"seed":1,' in line:
            monkeypatch.setattr(run_log, "append_line", write)
            with seeded(77, log=log):  # as the handler of a signal does
                pass
            raise KeyboardInterrupt
        write(path, line, process)

    monkeypatch.setattr(run_log, "append_line", interrupted)
    with pytest.raises(KeyboardInterrupt), seeded(1, log=log):
        pass
    assert [run.seed for run in log] == [77, 1]


def test_an_append_that_is_repeated_writes_its_line_once(log):
    held = len(files._held)
    path, lines = Path(log.path), [b"first\n", b"first and more\n", b"more\n", b"more\n", b"e\n"]
    for line in lines:
        files.append_line(log.path, line, os.getpid())
    assert path.read_bytes() == b"".join([*lines[:3], b"e\n"])
    assert len(files._held) == held
    path.write_bytes(b"torn")
    for _ in range(2):
        files.append_line(log.path, b"n\n", os.getpid())
        files.append_line(log.path, b"n\n", os.getpid())
        assert path.read_bytes() == b"torn\nn\n"


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EBADF])
def test_an_error_of_the_system_is_told_of(log, number, monkeypatch):
    def fails(*_):
        raise OSError(number, "as of a network file system")  # the first is a TimeoutError

    monkeypatch.setattr(files, "_append", fails)
    with pytest.warns(RuntimeWarning, match="could not be logged"), seeded(3, log=log):
        pass


def test_a_queue_that_an_interrupt_has_left_loses_no_line(log):
    run_log._appending.queue = []
    with seeded(3, log=log):
        pass
    assert len([*log]) == 1


def test_the_lines_of_a_handler_that_then_raises_are_written(log, monkeypatch):
    write = run_log.append_line

    def interrupted(path, line, process):
        monkeypatch.setattr(run_log, "append_line", write)
        with seeded(77, log=log):  # as the handler of a signal does
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(run_log, "append_line", interrupted)
    with pytest.raises(KeyboardInterrupt), seeded(1, log=log):
        pass
    assert [run.seed for run in log] == [77, 1]
    assert not log.unfinished()


@pytest.mark.parametrize("error", [type("MyTimeout", (OSError,), {}), ValueError])
def test_an_ordinary_error_of_a_handler_reaches_the_caller(log, error, monkeypatch):
    append = files._append

    def interrupted(*given):
        monkeypatch.setattr(files, "_append", append)
        raise error("time is up")

    monkeypatch.setattr(files, "_append", interrupted)
    with pytest.raises(error, match="time is up"), seeded(1, log=log):
        pass
    assert not log.lost
    assert [run.outcome for run in log] == [f"{error.__name__}: time is up"]


def test_a_line_that_cannot_be_written_is_told_of_and_ends_no_run(log):
    told = pytest.warns(RuntimeWarning, match="seed 3 could not be logged .* limit")
    with told, seeded(3, log=log):
        random.seed(10**5000)
    assert log.lost == 1
    assert [run.seed for run in log.unfinished()] == [3]


def test_a_file_system_that_numbers_files_anew_keeps_the_lines(log, monkeypatch):
    monkeypatch.setattr(files.os.path, "samestat", lambda *_: False)
    with seeded(3, log=log):
        pass
    assert [run.seed for run in log] == [3]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_log_that_is_replaced_while_an_append_waits_gets_the_line(log, is_deleted, monkeypatch):
    lock, path = files._lock, Path(log.path)

    def replaced(file):
        monkeypatch.setattr(files, "_lock", lock)
        if is_deleted:
            path.unlink()
        else:
            path.with_suffix(".new").touch()
            path.with_suffix(".new").replace(path)
        lock(file)

    with seeded(1, log=log):
        monkeypatch.setattr(files, "_lock", replaced)
    assert [run.seed for run in log] == [1]
