"""Forks in an append: a child repeats no line of its parent, keeps no lock, and ends by itself."""

from __future__ import annotations

import multiprocessing
import os
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
    assert child > 0
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


def test_a_child_that_goes_on_after_its_parent_writes_no_second_line(log, monkeypatch):
    to_line, child = run_log._as_line, -1
    read, write = os.pipe()

    def forks(whole):
        nonlocal child
        monkeypatch.setattr(run_log, "_as_line", to_line)
        child = os.fork()
        if child == 0:
            os.read(read, 1)  # until other lines are there
        return to_line(whole)

    monkeypatch.setattr(run_log, "_as_line", forks)
    key = {"began": "2026-01-01", "outcome": "ok"}
    try:
        log.append("end", {"id": "0" * 12, "seed": 1, **key})
    finally:
        if child == 0:
            os._exit(sys.exception() is not None)
    log.append("end", {"id": "1" * 12, "seed": 2, **key})
    os.write(write, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert [run.seed for run in log] == [1, 2]
