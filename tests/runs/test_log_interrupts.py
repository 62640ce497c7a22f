"""Interrupts of an append: its lock is free at once, and no later line is lost."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import traceback
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


class ForksAt(FaultAt):
    """Forks where a fault would be raised, as the handler of a signal may; both go on."""

    child = -1

    def _raise(self, error, frame):
        self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_lasti}"
        self.child = os.fork()


def test_a_child_that_is_forked_in_an_append_and_goes_on_writes_no_second_line(log):
    def append():
        try:
            log.append("end", {"id": "0" * 12, "seed": 1, "began": "2026-01-01", "outcome": "ok"})
        finally:
            if fork.child == 0:
                if sys.exception() is not None:
                    traceback.print_exc()
                os._exit(sys.exception() is not None or log.lost)

    for place in range(1, 100_000, 5):
        Path(log.path).unlink(missing_ok=True)
        fork = ForksAt(place, event="opcode")
        happened = fork.run(append)
        if not happened:
            break
        _, status = os.waitpid(fork.child, 0)
        assert (status, [run.seed for run in log], log.lost) == (0, [1], 0), fork.where
    assert place > 100


@pytest.mark.parametrize("error", [SystemExit(7), KeyError("x"), ValueError("x"), Fault()])
def test_an_error_of_a_child_that_is_forked_in_an_append_ends_the_child(log, error, monkeypatch):
    lock = files._lock

    def forks(file):
        monkeypatch.setattr(files, "_lock", lock)
        nonlocal child
        child = os.fork()
        if child == 0:
            raise error
        lock(file)

    monkeypatch.setattr(files, "_lock", forks)
    child, raised = -1, None
    try:
        with seeded(1, log=log):
            pass
    except BaseException as found:
        raised = found
    finally:
        if child == 0:
            os._exit(raised is not error)
    assert os.waitpid(child, 0)[1] == 0
    assert [run.seed for run in log] == [1]


def test_a_child_that_is_forked_while_a_file_is_opened_cannot_keep_its_lock(log, monkeypatch):
    """Another thread forks, before the append has the file in its list."""
    find, may_end = files._open_to_append, multiprocessing.get_context("fork").Event()
    child = multiprocessing.get_context("fork").Process(target=may_end.wait)

    def forks(path):
        monkeypatch.setattr(files, "_open_to_append", find)
        file = find(path)
        child.start()
        return file

    append, found = files._append, []
    monkeypatch.setattr(files, "_open_to_append", forks)
    monkeypatch.setattr(files, "_append", lambda *given: (append(*given), look(*given)))

    def look(file, _):
        # An open file's information has the locks that its description holds.
        for process in (os.getpid(), child.pid):
            information = Path(f"/proc/{process}/fdinfo/{file.fileno()}")
            found.append(information.exists() and "FLOCK" in information.read_text())

    log.append("end", {"id": "0" * 12, "seed": 1, "began": "2026-01-01", "outcome": "ok"})
    may_end.set()
    child.join()
    assert found == [True, False]
    assert not [held for held in files._held if held() is not None]


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


def test_a_child_for_which_a_handler_waits_in_an_append_does_not_hang(log, monkeypatch):
    monkeypatch.setattr(files, "_CHILDS_PATIENCE_S", 0.01)
    append = files._append

    def forks(*given):
        monkeypatch.setattr(files, "_append", append)
        child = os.fork()
        if child == 0:
            try:
                with pytest.warns(RuntimeWarning, match="has held its lock for 0.01 s"):
                    log.append("end", {"seed": 2})
            finally:
                os._exit(sys.exception() is not None)
        assert os.waitpid(child, 0)[1] == 0
        append(*given)

    monkeypatch.setattr(files, "_append", forks)
    with seeded(1, log=log):
        pass
    assert [run.seed for run in log] == [1]
    assert files._patience_s > 1  # this process's own


def test_a_process_killed_in_an_append_leaves_its_lock_to_no_child(log, monkeypatch):
    code = """
import os, signal, sys, threading, time
from seedscope import RunLog, seeded
from seedscope.runs import files

def waits(*_):
    is_locked.set()
    time.sleep(60)

is_locked, files._append = threading.Event(), waits
log = RunLog(sys.argv[1])
threading.Thread(target=log.append, args=("end", {"seed": 1}), daemon=True).start()
is_locked.wait()
child = os.fork()
if child == 0:
    os.closerange(0, 3)
    time.sleep(60)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, log.path], capture_output=True, text=True
    )
    child = int(killed.stdout)
    try:
        monkeypatch.setattr(files, "_patience_s", 0)
        with seeded(2, log=log):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    assert [run.seed for run in log] == [2]


def test_an_append_that_is_repeated_writes_its_line_once(log):
    path, lines = Path(log.path), [b"first\n", b"first and more\n", b"more\n", b"more\n", b"e\n"]
    for line in lines:
        files.append_line(log.path, line, os.getpid())
    assert path.read_bytes() == b"".join([*lines[:3], b"e\n"])
    path.write_bytes(b"torn")
    for _ in range(2):
        files.append_line(log.path, b"n\n", os.getpid())
        files.append_line(log.path, b"n\n", os.getpid())
        assert path.read_bytes() == b"torn\nn\n"


def test_a_timeout_of_the_system_is_told_of(log, monkeypatch):
    def fails(*_):
        raise OSError(110, "Connection timed out")  # of a network file system; a TimeoutError

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
