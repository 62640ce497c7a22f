"""The lines of the run log: their fields, and the runs that have lines."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch

from helpers import ROOT, git, lines, run_in_fork, run_python
from seedscope import RunLog, note, seeded, snapshot
from seedscope.runs.process import Process, replay_request
from seedscope.runs.run import Difference
from seedscope.support import conditions


def test_a_block_has_a_begin_line_and_a_full_end_line(log):
    with seeded(log=log) as scope:
        (begun,) = lines(log)
        assert (begun["event"], begun["seed"]) == ("begin", scope.seed)
        assert [*log] == []
        assert [run.seed for run in log.unfinished()] == [scope.seed]
        scope.note(loss=0.5)
        note(epoch=3)
        time.sleep(0.01)
    _, ended = lines(log)
    assert ended["event"] == "end"
    assert ended["seed"] == scope.seed
    (run,) = log
    assert log.unfinished() == []
    assert run.id == begun["id"]
    assert run.notes == {"loss": 0.5, "epoch": 3}
    assert run.outcome == "ok"
    assert 0.01 <= run.duration < 60
    assert run.command == sys.orig_argv
    assert run.folder == os.getcwd()
    assert run.versions["torch"] == torch.__version__
    assert run.versions["numpy"] == np.__version__
    assert run.settings["deterministic_algorithms"] == 2  # the settings inside
    assert run.options == {
        "deterministic": True,
        "fill_uninitialized_memory": None,
        "sources": None,
    }
    assert len(run.devices) == 1 + torch.cuda.is_initialized() * torch.cuda.device_count()
    assert run.threads == torch.get_num_threads()


def test_every_line_is_plain_json_even_with_nan(log):
    with seeded(1, log=log) as scope:
        scope.note(loss=math.nan, bound=-math.inf)

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    with open(log.path) as file:
        for line in file:
            json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("private", [True, False])
def test_cudnns_version_is_read_without_starting_a_gpu(monkeypatch, private):
    def version():
        assert torch.cuda.is_initialized(), "torch.backends.cudnn.version() would start the GPU"
        return 91900

    cudnn = types.SimpleNamespace(getVersionInt=lambda: 91900)
    monkeypatch.setattr(torch._C, "_cudnn", cudnn if private else None, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "version", version)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert conditions.versions()["cudnn"] == ("91900" if private else None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert conditions.versions()["cudnn"] == "91900"


def test_the_log_changes_no_random_number_inside_or_outside(tmp_path):
    # In a fresh process: its first logged block imports, runs git and makes a lock.
    run_python(
        f"""
import sys; sys.path.insert(0, "tests")
import fake_accelerator
from helpers import draw
from seedscope import seeded, snapshot
fake_accelerator.register()
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
def test_the_outcome_of_a_block_is_kept(log, raised, outcome):
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


def test_a_decorated_generator_is_a_run_that_ends_with_its_body(log):
    @seeded(log=log)
    def steps(fail=False):
        for i in range(3):
            note(i=i)
            yield torch.rand(1).item()
        if fail:
            raise ValueError("late")

    running = steps()
    next(running)
    assert [*log] == []
    assert len(log.unfinished()) == 1
    list(running)
    closed = steps()
    next(closed)
    closed.close()
    with pytest.raises(ValueError, match="late"):
        list(steps(fail=True))
    assert [run.outcome for run in log] == ["ok", "ok", "ValueError: late"]
    assert [run.notes["i"] for run in log] == [2, 0, 2]


def test_each_interleaved_coroutine_or_async_generator_is_a_run(log):
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
    assert {run.outcome for run in log} == {"ok"}
    assert log.unfinished() == []


def test_note_goes_to_the_innermost_run_that_has_a_log(log):
    with seeded(1, log=log), seeded(2):
        note(loss=1)
        with seeded(3, log=log):
            note(loss=3)
    assert {run.seed: run.notes["loss"] for run in log} == {1: 1, 3: 3}


def test_note_warns_where_no_run_is_logged():
    with seeded(1) as scope:
        scope.note(loss=1)  # no warning: a block may run without a log
        with pytest.warns(UserWarning, match="no run is being logged, so loss was not kept"):
            note(loss=1)


def test_note_after_the_block_is_refused(log):
    with seeded(1, log=log) as scope:
        pass
    with pytest.raises(RuntimeError, match="cannot note loss: the block is not open"):
        scope.note(loss=1)


@pytest.mark.parametrize("wrong", [3, b"runs", ["runs.jsonl"]], ids=repr)
def test_a_log_that_is_not_a_path_is_refused_before_any_change(wrong):
    before = snapshot()
    with pytest.raises(TypeError, match="a log is a path or a RunLog"):
        seeded(1, log=wrong)
    assert before.changed(snapshot()) == ()


def test_a_relative_log_stays_in_place_when_the_folder_changes(tmp_path, monkeypatch):
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


def test_the_commit_is_kept_and_whether_the_script_has_changed(tmp_path):
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


def test_a_forked_child_is_another_process_also_with_an_id_seen_before(monkeypatch):
    """The system gives the number of a process that has ended to a later one."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(Process, "_known", {})
    ours = Process.this().id, Process.this().facts["is_child"]
    theirs = run_in_fork(lambda: (Process.this().id, Process.this().facts["is_child"]))
    assert ours[0] != theirs[0]
    assert (ours[1], theirs[1]) == (multiprocessing.parent_process() is not None, True)


def test_only_a_child_of_the_process_that_asks_replays(tmp_path):
    with seeded(3, log=tmp_path / "runs.jsonl") as scope:
        pass
    (run,) = RunLog(tmp_path / "runs.jsonl")
    asked = replay_request(RunLog(tmp_path / "runs.jsonl"), run)
    code = "from seedscope.runs.process import Process as P, is_replaying as asked; "
    code += "print(asked(), [*P.this().replayed], P.this().replay_log)"
    said = run_python(code, env=os.environ | asked)
    assert said == f"True [{run.ordinal}] RunLog({str(tmp_path / 'runs.jsonl')!r})"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    assert run_python(grandchild, env=os.environ | asked) == "False [] None"
    assert scope.run_id == run.id


def test_a_condition_that_one_run_does_not_have_is_absent():
    told = [str(Difference("a replacement", *both)) for both in (("version 1", None), (None, 2))]
    assert told == ["a replacement was version 1, is absent", "a replacement was absent, is 2"]
