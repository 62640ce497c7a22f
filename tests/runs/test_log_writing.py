"""Writing the run log: no line is lost, and none is torn."""

from __future__ import annotations

import fcntl
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from helpers import ROOT, draw, run_python
from seedscope import RunLog, seeded
from seedscope.runs import files
from seedscope.runs import log as run_log

FORK = multiprocessing.get_context("fork")


def test_16_processes_and_8_threads_lose_no_line_and_tear_none(log):
    def append_all(process):
        def append(thread):
            for i in range(4):
                key = {"id": f"{process:04}{thread:04}{i:04}", "seed": i, "began": "2026-01-01"}
                log.append("begin", {**key, "options": {"text": "x" * 5000}})
                log.append("end", {**key, "outcome": "ok", "notes": {}})

        threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    processes = [FORK.Process(target=append_all, args=(n,)) for n in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = [run.id for run in log]
        assert log.unfinished() == []
    keys = itertools.product(range(16), range(8), range(4))
    assert sorted(ids) == sorted("{:04}{:04}{:04}".format(*key) for key in keys)


def test_a_log_whose_lock_another_process_holds_is_told_of(log, monkeypatch):
    monkeypatch.setattr(files, "_patience_s", 0.01)
    with seeded(1, log=log):
        pass
    with open(log.path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = pytest.warns(RuntimeWarning, match="seed 2 could not be logged .* has held its lock")
        with said, seeded(2, log=log):
            pass
    assert log.lost == 2
    with seeded(3, log=log):
        pass
    assert [run.seed for run in log] == [1, 3]


def test_an_append_waits_for_the_end_of_another(log):
    with seeded(1, log=log), open(log.path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        log.append("end", {"id": "0" * 12, "seed": 2, "began": "2026-01-01", "outcome": "ok"})
        assert timer.finished.is_set()
        timer.join()
    assert [run.seed for run in log] == [2, 1]


def test_a_child_that_is_forked_during_an_append_does_not_keep_its_lock(log, monkeypatch):
    append, may_end = files._append, FORK.Event()
    monkeypatch.setattr(files, "_patience_s", 0.01)
    monkeypatch.setattr(files, "_append", lambda *given: (append(*given), child.start()))
    child = FORK.Process(target=may_end.wait)
    log.append("end", {"id": "0" * 12, "seed": 1, "began": "2026-01-01", "outcome": "ok"})
    monkeypatch.setattr(files, "_append", append)
    with seeded(2, log=log):
        pass
    may_end.set()
    child.join()
    assert [run.seed for run in log] == [1, 2]


def test_a_forked_child_appends_too(log):
    def append_once():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with seeded(2, log=log):
                pass

    with seeded(1, log=log):
        pass
    process = FORK.Process(target=append_once)
    process.start()
    process.join()
    append_once()
    assert process.exitcode == 0
    assert [run.seed for run in log] == [1, 2, 2]


def test_the_folder_of_a_log_is_made_and_made_again(tmp_path):
    log = RunLog(tmp_path / "a" / "b" / "runs.jsonl")
    with seeded(1, log=log):
        shutil.rmtree(tmp_path / "a")
    assert [run.seed for run in log] == [1]


def test_a_process_killed_in_its_block_leaves_its_seed(log):
    code = f"""
import os, signal
from seedscope import seeded
with seeded(77, log={log.path!r}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert [run.seed for run in log.unfinished()] == [77]
    assert [*log] == []


def test_processes_killed_while_appending_leave_a_readable_log(log):
    def append_forever():
        i = 0
        while True:
            key = {"id": f"{os.getpid() % 10**6:06}{i:06}", "seed": i, "began": "2026-01-01"}
            log.append(
                "end", {**key, "notes": {}, "outcome": "ok", "options": {"text": "x" * 200_000}}
            )
            i += 1

    for _ in range(8):
        process = FORK.Process(target=append_forever)
        size = Path(log.path).stat().st_size if Path(log.path).exists() else 0
        process.start()
        while not (Path(log.path).exists() and Path(log.path).stat().st_size > size):
            time.sleep(0.001)
        time.sleep(0.03)
        process.kill()
        process.join()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = len([*log])
    assert count >= 1
    assert all("torn" in str(warning.message) for warning in told)
    with seeded(1, log=log):  # the log takes another run
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len([*log]) == count + 1


def test_a_run_that_cannot_be_logged_warns_and_keeps_its_result(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "runs.jsonl"  # a file has the place of its folder

    def logged():
        with seeded(1, log=path) as scope:
            scope.note(loss=0.25)
            return draw()

    with seeded(1):
        expected = draw()
    with pytest.warns(RuntimeWarning, match=r"seed 1.* could not be logged in .*runs\.jsonl"):
        result = logged()
    assert result == expected
    # This holds even where warnings are errors.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with seeded(1, log=path):
            result = draw()
    assert result == expected


def test_a_run_whose_error_cannot_be_printed_is_kept(log):
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    with pytest.raises(Mute), seeded(1, log=log):
        raise Mute
    assert [run.outcome for run in log] == ["Mute"]


def test_a_scope_opened_during_an_append_is_logged(log, monkeypatch):
    write = run_log.append_line

    def interrupted(path, line, process):
        if b'"event":"begin"' in line and b'"seed":1,' in line:
            with seeded(2, log=log):  # as a signal's handler does
                pass
        write(path, line, process)

    monkeypatch.setattr(run_log, "append_line", interrupted)
    with seeded(1, log=log):
        pass
    assert [run.seed for run in log] == [2, 1]


def test_a_process_forked_during_an_append_logs_its_own_runs(log, monkeypatch):
    write = run_log.append_line

    def forks(path, line, process):
        if b'"event":"begin"' in line and b'"seed":1,' in line:
            pid = os.fork()  # as a signal's handler may
            if pid == 0:
                try:
                    with seeded(2, log=log):
                        pass
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        write(path, line, process)

    monkeypatch.setattr(run_log, "append_line", forks)
    with seeded(1, log=log):
        pass
    assert [(run.seed, run.is_child) for run in log] == [(2, True), (1, False)]


def test_the_warning_has_the_seed_and_the_notes(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning) as told, seeded(71, log=tmp_path / "file" / "x") as scope:
        scope.note(loss=0.25)
    assert "seed 71" in str(told[-1].message)
    assert '{"loss": 0.25}' in str(told[-1].message)
    assert {warning.filename for warning in told} == {__file__}


def test_the_warning_has_the_start_of_long_notes(tmp_path):
    with pytest.warns(RuntimeWarning) as told, seeded(71, log=tmp_path) as scope:
        scope.note(text="x" * 20_000)
    assert 'with notes {"text": "xxx' in str(told[-1].message)
    assert 10_000 < len(str(told[-1].message)) < 11_000


def test_a_disk_that_fills_during_a_write_leaves_no_torn_line(log):
    # A limit on the file's size acts like a full disk: the kernel takes a part of the write, and
    # refuses the rest.
    run_python(
        f"""
import resource, warnings
from seedscope import RunLog, seeded
log = RunLog({log.path!r})
with seeded(1, log=log): pass
size = len(open(log.path, "rb").read())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    with seeded(2, log=log): pass
assert len(told) == 2 and all("could not be logged" in str(w.message) for w in told), told
assert len(open(log.path, "rb").read()) == size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with seeded(3, log=log): pass
""",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [run.seed for run in log] == [1, 3]


def test_a_forked_child_leaves_the_record_to_its_parent(log):
    with seeded(1, log=log) as scope:
        pid = os.fork()
        if pid == 0:
            try:
                scope.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert [*log] == []
    assert [run.seed for run in log] == [1]
