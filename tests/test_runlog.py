"""The run log: what a line has, that none is lost, and that values come back exactly."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, draw, run_python
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from seedscope import RunLog, note, seeded, snapshot
from seedscope.runs import log as run_log
from seedscope.runs.values import decode, encode
from seedscope.support import conditions

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def log(tmp_path) -> RunLog:
    return RunLog(tmp_path / "runs.jsonl")


def lines(log: RunLog) -> list[dict]:
    with open(log.path) as file:
        return [json.loads(line) for line in file]


# ----------------------------------------------------------------------- what is kept


def test_a_block_has_a_line_from_when_it_begins_and_a_full_one_from_when_it_ends(log):
    with seeded(log=log) as scope:
        (begun,) = lines(log)
        assert (begun["event"], begun["seed"]) == ("begin", scope.seed)
        assert [*log] == []
        assert [run.seed for run in log.unfinished()] == [scope.seed]
        scope.note(loss=0.5)
        note(epoch=3)
        time.sleep(0.01)
    _, ended = lines(log)
    assert ended["event"] == "end" and ended["seed"] == scope.seed
    (run,) = log
    assert log.unfinished() == []
    assert run.id == begun["id"] and run.notes == {"loss": 0.5, "epoch": 3}
    assert run.outcome == "ok" and 0.01 <= run.duration < 60
    assert run.command == sys.orig_argv and run.folder == os.getcwd()
    assert run.versions["torch"] == torch.__version__
    assert run.versions["numpy"] == np.__version__
    assert run.settings["deterministic_algorithms"] == 2  # those inside
    assert run.options == {
        "deterministic": True,
        "fill_uninitialized_memory": None,
        "sources": None,
    }
    assert len(run.devices) == 1 + torch.cuda.is_initialized() * torch.cuda.device_count()
    assert run.threads == torch.get_num_threads()


def test_every_line_is_plain_json_also_with_nan(log):
    with seeded(1, log=log) as scope:
        scope.note(loss=math.nan, bound=-math.inf)

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    with open(log.path) as file:
        for line in file:
            json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("private", [True, False])
def test_cudnns_version_is_read_and_no_gpu_is_started(monkeypatch, private):
    def version():
        assert torch.cuda.is_initialized(), "torch.backends.cudnn.version() would start it"
        return 91900

    cudnn = types.SimpleNamespace(getVersionInt=lambda: 91900)
    monkeypatch.setattr(torch._C, "_cudnn", cudnn if private else None, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "version", version)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert conditions.versions()["cudnn"] == ("91900" if private else None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert conditions.versions()["cudnn"] == "91900"


def test_the_log_does_not_move_a_random_number_inside_or_outside(tmp_path):
    # In a fresh process: the first logged block imports, asks git, and locks.
    run_python(
        f"""
import sys; sys.path.insert(0, "tests")
from conftest import draw
from seedscope import seeded, snapshot
with seeded(1029):
    expected = draw()
before = snapshot()
with seeded(1029, log={str(tmp_path / "runs.jsonl")!r}) as scope:
    scope.note(loss=1.0)
    assert draw() == expected
assert before.changed(snapshot()) == ()
"""
    )


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (ValueError("wrong\nvery"), "ValueError: wrong"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (SystemExit(0), "ok"),
    ],
)
def test_what_ended_a_block_is_kept(log, raised, outcome):
    with pytest.raises(type(raised)), seeded(1, log=log):
        raise raised
    assert [run.outcome for run in log] == [outcome]


def test_each_call_of_a_decorated_function_is_a_run(log):
    @seeded(log=log.path)
    def train(x):
        note(x=x)
        return torch.rand(1).item()

    values = [train(0), train(1)]
    runs = [*log]
    assert [run.notes["x"] for run in runs] == [0, 1]
    assert [run.ordinal for run in runs][1] - runs[0].ordinal == 1
    for run, value in zip(runs, values, strict=True):
        with seeded(run.seed):
            assert torch.rand(1).item() == value


def test_a_decorated_generator_is_one_run_that_ends_with_its_body(log):
    @seeded(log=log)
    def steps(fail=False):
        for i in range(3):
            note(i=i)
            yield torch.rand(1).item()
        if fail:
            raise ValueError("late")

    running = steps()
    next(running)
    assert [*log] == [] and len(log.unfinished()) == 1
    list(running)
    closed = steps()
    next(closed)
    closed.close()
    with pytest.raises(ValueError):
        list(steps(fail=True))
    assert [run.outcome for run in log] == ["ok", "ok", "ValueError: late"]
    assert [run.notes["i"] for run in log] == [2, 0, 2]


def test_decorated_coroutines_and_async_generators_that_interleave_are_a_run_each(log):
    @seeded(log=log)
    async def train(name):
        note(first=name)
        await asyncio.sleep(0)
        note(second=name)

    @seeded(log=log)
    async def batches(name):
        note(first=name, second=name)
        yield 1
        await asyncio.sleep(0)
        yield 2

    async def consume(name):
        return [x async for x in batches(name)]

    async def main():
        await asyncio.gather(train("a"), train("b"), consume("c"), consume("d"))

    asyncio.run(main())
    notes = sorted((run.notes["first"], run.notes["second"]) for run in log)
    assert notes == [(name, name) for name in "abcd"]
    assert {run.outcome for run in log} == {"ok"} and log.unfinished() == []


def test_note_goes_to_the_innermost_run_that_has_a_log(log):
    with seeded(1, log=log), seeded(2):
        note(loss=1)
        with seeded(3, log=log):
            note(loss=3)
    assert {run.seed: run.notes["loss"] for run in log} == {1: 1, 3: 3}


def test_note_where_nothing_is_logged_says_so():
    with seeded(1) as scope:
        scope.note(loss=1)  # the block may be run with a log or without
        with pytest.warns(UserWarning, match="no run is being logged, so loss was not kept"):
            note(loss=1)


def test_note_after_the_block_is_refused(log):
    with seeded(1, log=log) as scope:
        pass
    with pytest.raises(RuntimeError, match="cannot note loss: the block is not open"):
        scope.note(loss=1)


@pytest.mark.parametrize("wrong", [3, b"runs", ["runs.jsonl"]], ids=repr)
def test_a_log_that_is_no_path_is_refused_before_anything_is_touched(wrong):
    before = snapshot()
    with pytest.raises(TypeError, match="a log is a path or a RunLog"):
        seeded(1, log=wrong)
    assert before.changed(snapshot()) == ()


def test_a_relative_log_stays_where_it_was_when_the_folder_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with seeded(1, log="runs.jsonl"):
        (tmp_path / "other").mkdir()
        os.chdir(tmp_path / "other")
    assert len([*RunLog(tmp_path / "runs.jsonl")]) == 1


def test_a_scope_with_a_log_pickles(log):
    again = pickle.loads(pickle.dumps(seeded(1, log=log)))
    with again:
        pass
    assert [run.seed for run in log] == [1]


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_scripts_commit_is_kept_and_whether_it_was_changed(tmp_path):
    script = tmp_path / "repository" / "train.py"
    script.parent.mkdir()
    script.write_text('from seedscope import seeded\nwith seeded(1, log="runs.jsonl"): pass\n')

    def run() -> list:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, script], cwd=tmp_path, check=True, env=environment)
        return [*RunLog(tmp_path / "runs.jsonl")]

    (without,) = run()
    git(script.parent, "init")
    git(script.parent, "add", ".")
    git(script.parent, "commit", "-m", "first")
    commit = git(script.parent, "rev-parse", "HEAD")
    clean = run()[-1]
    script.write_text(script.read_text() + "# more\n")
    dirty = run()[-1]
    assert without.git is None
    assert clean.git == {"commit": commit, "dirty": False}
    assert dirty.git == {"commit": commit, "dirty": True}
    assert without.script == str(script)
    assert {found.name for found in clean.differences(dirty)} == {
        "uncommitted changes",
        "script_sha256",
    }


# ----------------------------------------------------------------------- nothing is lost


def test_16_processes_and_8_threads_lose_no_line_and_tear_none(log):
    def append_all(process):
        def append(thread):
            for i in range(4):
                key = {"id": f"{process}-{thread}-{i}", "seed": i, "began": ""}
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
    assert sorted(ids) == sorted("-".join(map(str, key)) for key in keys)


def test_a_thread_makes_its_lock_once(log, monkeypatch):
    made = []

    class Lock(FileLock):
        def __init__(self, path, **options):
            made.append(path)
            super().__init__(path, **options)

    monkeypatch.setattr(run_log, "FileLock", Lock)

    def append_twice():
        for seed in (1, 2):
            with seeded(seed, log=log):
                pass

    append_twice()
    thread = threading.Thread(target=append_twice)
    thread.start()
    thread.join()
    assert made == [f"{log.path}.lock"] * 2
    other = RunLog(f"{log.path}.other")
    with seeded(3, log=other):  # another file's lock is another
        pass
    assert made[2:] == [f"{other.path}.lock"]
    assert len([*log]) == 4 and len([*other]) == 1


def test_an_append_that_ctrl_c_cuts_short_leaves_the_lock_free(log, monkeypatch):
    with seeded(1, log=log):
        pass

    release = FileLock.release

    def interrupted(lock, force=False):
        if not force:  # as what frees a lock that nobody has is
            raise KeyboardInterrupt
        release(lock, force)

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "release", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append("end", {"id": "x", "seed": 2, "began": ""})
    with FileLock(f"{log.path}.lock", timeout=0):
        pass
    with seeded(3, log=log):
        pass
    assert [run.seed for run in log] == [1, 2, 3]


def test_a_forked_child_has_a_lock_of_its_own(log):
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
    assert [run.seed for run in log.unfinished()] == [77] and [*log] == []


def test_processes_killed_while_they_append_leave_a_log_that_reads(log):
    def append_forever():
        i = 0
        while True:
            record = {"id": f"{os.getpid()}-{i}", "seed": i, "began": "", "notes": {}}
            log.append("end", {**record, "options": {"text": "x" * 200_000}})
            i += 1

    for _ in range(8):
        process = FORK.Process(target=append_forever)
        process.start()
        time.sleep(0.06)
        process.kill()
        process.join()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = len([*log])
    assert count >= 1
    assert all("torn" in str(warning.message) for warning in told)
    with seeded(1, log=log):  # and is appended to
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len([*log]) == count + 1


def test_a_line_torn_anywhere_is_reported_and_kept_out_of_the_way(log):
    for seed in (1, 2):
        with seeded(seed, log=log) as scope:
            scope.note(inner={"event": "end", "$complete": True}, nan=math.nan)
    whole = Path(log.path).read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(start + 1, len(whole) - 1, 7):
        with open(log.path, "wb") as file:
            file.write(whole[:length])
        with pytest.warns(RuntimeWarning, match="line 4 is (torn|not a run record)"):
            assert [run.seed for run in log] == [1]
        with pytest.warns(RuntimeWarning):
            assert [run.seed for run in log.unfinished()] == [2]
        with seeded(3, log=log):
            pass
        with pytest.warns(RuntimeWarning, match="line 4"):
            assert [run.seed for run in log] == [1, 3]


def test_a_log_that_cannot_be_written_is_a_warning_and_the_run_keeps_its_result(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "runs.jsonl"  # its folder cannot be
    with pytest.warns(RuntimeWarning, match=r"seed 1.* could not be logged in .*runs\.jsonl"):
        with seeded(1) as scope:
            expected = draw()
        with seeded(1, log=path) as scope:
            scope.note(loss=0.25)
            result = draw()
    assert result == expected
    # Also where warnings are made errors.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with seeded(1, log=path):
            result = draw()
    assert result == expected


def test_a_run_is_kept_whose_error_cannot_be_written(log):
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    with pytest.raises(Mute), seeded(1, log=log):
        raise Mute
    assert [run.outcome for run in log] == ["Mute"]


def test_a_scope_opened_in_the_middle_of_an_append_is_logged_after_it(log, monkeypatch):
    write = RunLog._append

    def interrupted(self, line):
        if b'"event":"begin"' in line and b'"seed":1,' in line:
            with seeded(2, log=log):  # as a signal's handler does
                pass
        write(self, line)

    monkeypatch.setattr(RunLog, "_append", interrupted)
    with seeded(1, log=log):
        pass
    assert [run.seed for run in log] == [2, 1]


def test_the_warning_has_the_seed_and_the_notes(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning) as told, seeded(71, log=tmp_path / "file" / "x") as scope:
        scope.note(loss=0.25)
    assert "seed 71" in str(told[-1].message) and '{"loss": 0.25}' in str(told[-1].message)


def test_a_disk_that_fills_in_the_middle_of_a_line_leaves_no_torn_one(log):
    # The kernel takes a part of the write, up to the limit on the file's size, as a full
    # disk does, and refuses the rest.
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


def test_a_forked_child_that_leaves_the_block_leaves_the_record_to_its_parent(log):
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


def test_a_file_that_is_no_log_is_refused_and_one_that_is_not_there_is_empty(log):
    assert [*log] == [] and log.unfinished() == []
    with open(log.path, "w") as file:
        file.write("hello\nworld\n")
    with pytest.raises(ValueError, match="is not a run log: line 1 is not a run record"):
        list(log)


def test_find_takes_the_beginning_of_an_id(log):
    for seed in range(3):
        with seeded(seed, log=log):
            pass
    runs = [*log]
    assert log.find(runs[1].id) == runs[1]
    assert log.find(runs[1].id[:8]) == runs[1]
    with pytest.raises(LookupError, match="no run with an id that starts with 'xyz'"):
        log.find("xyz")
    with pytest.raises(LookupError, match="3 runs"):
        log.find("")


def test_a_later_versions_line_reads(log):
    with seeded(1, log=log):
        pass
    text = Path(log.path).read_text()
    Path(log.path).write_text(text.replace('"seed":1', '"seed":1,"mood":"good"'))
    assert [run.mood for run in log] == ["good"]


# ----------------------------------------------------------------------- values


def same(a, b) -> bool:
    """Equal in type and in every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    if isinstance(a, torch.Tensor):
        bits = (x.contiguous().reshape(-1).view(torch.uint8).tolist() for x in (a, b))
        return a.dtype == b.dtype and a.shape == b.shape and next(bits) == next(bits)
    if isinstance(a, (np.generic, np.ndarray)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def through_json(value):
    return decode(json.loads(json.dumps(encode(value, "x"), allow_nan=False)))


NAN_WITH_BITS = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.just(NAN_WITH_BITS),
    st.complex_numbers(),
    st.text(),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.float16, st.floats(width=16)),
    st.builds(np.float64, st.floats()),
    st.builds(np.int8, st.integers(-128, 127)),
    st.builds(np.uint64, st.integers(0, 2**64 - 1)),
    st.builds(np.bool_, st.booleans()),
    st.builds(lambda x: torch.tensor(x, dtype=torch.bfloat16), st.floats(width=32)),
    st.builds(lambda x: torch.tensor(x, dtype=torch.float64), st.floats()),
    st.builds(torch.tensor, st.integers(-(2**63), 2**63 - 1)),
)
KEYS = st.one_of(st.text(), st.integers(), st.sampled_from(["$float", "$tuple", "$"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_comes_back_with_its_type_and_every_bit(value):
    assert same(through_json(value), value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint16).reshape(2, 3),
        np.array([math.nan, -0.0, 1e-320]),
        np.zeros((0, 3), dtype=np.int32),
        np.array(3.5),
        torch.tensor([[1.5, math.inf]]),
        torch.tensor(True),
        torch.zeros(0, 3),
        torch.tensor(1 + 2j),
        torch.zeros(2, requires_grad=True),
    ],
    ids=repr,
)
def test_arrays_and_tensors_come_back(value):
    expected = value.detach() if isinstance(value, torch.Tensor) else value
    assert same(through_json(value), expected)


class Named(np.ndarray):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"x",
        np.datetime64("2026-01-01"),
        open,
        10**5000,
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        np.zeros(2).view(Named),
        np.zeros(2, dtype=">f4"),
        torch.zeros(2).to_sparse(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_kept_is_refused_with_its_name(log, value):
    with seeded(1, log=log) as scope:
        scope.note(good=1)
        with pytest.raises(TypeError, match="the log cannot keep bad="):
            scope.note(fine=2, bad=value)
    assert [run.notes for run in log] == [{"good": 1}]


def test_a_name_that_could_be_taken_for_the_end_of_a_line_is_refused(log):
    with seeded(1, log=log) as scope, pytest.raises(TypeError, match=r"must not begin with \$"):
        scope.note(**{"$complete": True})


def test_the_notes_are_those_of_the_moment(log):
    history = [1]
    with seeded(1, log=log) as scope:
        scope.note(history=history)
        history.append(2)
    assert [run.notes for run in log] == [{"history": [1]}]


def test_jq_and_pandas_can_read_it(log, tmp_path):
    import pandas

    with seeded(2**32 - 1, log=log) as scope:
        scope.note(loss=0.5)
    frame = pandas.read_json(log.path, lines=True)
    assert frame["seed"].tolist() == [2**32 - 1] * 2
    # What `jq -c 'select(.event == "end")'` writes.
    kept = [line for line in lines(log) if line["event"] == "end"]
    (tmp_path / "kept.jsonl").write_text(
        "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept)
    )
    assert [run.notes for run in RunLog(tmp_path / "kept.jsonl")] == [{"loss": 0.5}]
