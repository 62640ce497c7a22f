"""A sweep with a log continues where it stopped."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers import PROGRAMS, ROOT, table
from seedscope import RunLog, note, seeded, sweep
from sweep_functions import draws, sometimes_fails, tensor

pytestmark = pytest.mark.filterwarnings("ignore:the best seed may be only luck")


def test_a_sweep_continues_from_its_log(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    with pytest.warns(UserWarning, match="1 of 5 seeds failed"):
        first = sweep(sometimes_fails, 5, log=log)
    size = os.path.getsize(log.path)
    with pytest.warns(UserWarning, match="1 of 5 seeds failed"):
        again = sweep(sometimes_fails, 5, log=log)
    assert os.path.getsize(log.path) == size  # no seed ran
    assert str([*again]) == str([*first])  # NaN, traceback and durations included
    with pytest.warns(UserWarning, match="2 of 9 seeds failed"):
        more = sweep(sometimes_fails, 9, log=log)
    assert len([*log]) == 9
    assert [o.seed for o in more] == [*range(9)]


def test_a_sweep_takes_no_outcome_of_another_function_or_option(tmp_path):
    log = tmp_path / "runs.jsonl"
    sweep(draws, 3, log=log)
    sweep(tensor, 3, log=log)
    sweep(draws, 3, log=log, deterministic=False)
    sweep(draws, 3, log=log, name="other")
    with seeded(1, log=log):
        note(value=1)
    assert len([*RunLog(log)]) == 13
    assert table(sweep(draws, 3, log=log)) == table(sweep(draws, 3))


def test_seeds_run_again_under_other_code_versions_or_threads(tmp_path):
    """A warning says so."""
    log = RunLog(tmp_path / "runs.jsonl")
    sweep(draws, 3, log=log)
    text = Path(log.path).read_text()
    changes = [
        (f'"torch":"{torch.__version__}"', '"torch":"1.0"', r"torch was 1\.0, is .*"),
        ('"script_sha256":"', '"script_sha256":"0', "the script has changed"),
        (f'"threads":{torch.get_num_threads()},', '"threads":77,', "threads was 77, is .*"),
    ]
    for now, then, said in changes:
        Path(log.path).write_text(text.replace(now, then))
        with pytest.warns(UserWarning, match=rf"3 outcomes .*{said}\): these seeds run again"):
            sweep(draws, 3, log=log)
        assert len([*log]) == 6


def test_a_changed_function_of_the_same_name_runs_again(tmp_path):
    log = tmp_path / "runs.jsonl"
    namespace = {"__name__": "changing"}

    def values(body):
        exec(f"def f(seed): return {body}", namespace)
        return [o.value for o in sweep(namespace["f"], 3, log=log, name="changing:f")]

    assert values("seed + 100") == [100, 101, 102]
    with pytest.warns(UserWarning, match=r"3 outcomes .*\(the function's code was .* run again"):
        assert values("-seed") == [0, -1, -2]


def test_outcomes_of_another_commit_are_used_with_a_warning(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    sweep(draws, 3, log=log)
    text = Path(log.path).read_text()
    git = re.search(r'"git":(null|{[^}]*})', text)[0]
    Path(log.path).write_text(text.replace(git, '"git":{"commit":"abc","dirty":true}'))
    with pytest.warns(
        UserWarning, match=r"3 outcomes .*commit was abc, is .*\): the sweep uses them"
    ):
        sweep(draws, 3, log=log)
    assert len([*log]) == 3


@pytest.mark.filterwarnings("ignore:all . values are")
def test_the_threads_option_sets_the_number_of_threads():
    before = torch.get_num_threads()
    assert [o.value for o in sweep(torch.get_num_threads, 2, threads=before + 1)] == [
        before + 1
    ] * 2
    assert torch.get_num_threads() == before


def test_the_functions_notes_are_kept_beside_its_value(tmp_path):
    log = tmp_path / "runs.jsonl"
    result = sweep(draws, 2, log=log)
    assert [run.notes["value"] for run in RunLog(log)] == [o.value for o in result]
    assert [run.notes["threads"] for run in RunLog(log)] == [torch.get_num_threads()] * 2
    assert {run.sweep for run in RunLog(log)} == {"sweep_functions:draws"}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sweep_killed_at_any_point_runs_only_what_is_missing(processes, tmp_path):
    marks = tmp_path / "marks"
    marks.touch()
    command = [sys.executable, "-m", "seedscope", "sweep", "sweep_functions:counted", "--csv"]
    command += [
        "--seeds",
        "40",
        "--processes",
        str(processes),
        "--log",
        str(tmp_path / "runs.jsonl"),
    ]
    environment = {**os.environ, "MARKS": str(marks), "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{ROOT}"}
    kills = 0
    for _ in range(3):
        done_before = marks.read_text().count("x")
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        while marks.read_text().count("x") < done_before + 6 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.Random().random() / 20)
        if process.poll() is None:
            kills += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    # Each kill loses at most the seeds that were running or not yet logged.
    assert marks.read_text().count("x") <= 40 + kills * 3 * processes
    rows = [line.split(",")[:2] for line in done.stdout.splitlines()[1:]]
    expected = {str(o.seed): str(o.value) for o in sweep(lambda: torch.rand(1).item(), 40)}
    assert dict(rows) == expected
    assert len(rows) == 40


def test_ctrl_c_on_the_command_line_says_what_is_kept(tmp_path):
    command = [sys.executable, "-m", "seedscope", "sweep", "sweep_functions:slow", "--seeds", "400"]
    environment = {**os.environ, "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    log = RunLog(tmp_path / "runs.jsonl")
    while len([*log]) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    count = len([*log])
    assert said == (
        f"seedscope: stopped after {count} seeds, kept in runs.jsonl: "
        "the same command resumes the sweep\n"
    )
    assert out.startswith("sweep of sweep_functions:slow")
    assert f"seeds      {count}," in out


def test_a_seed_of_a_sweep_takes_no_place_among_the_runs_of_its_process(tmp_path):
    """A replay finds the other runs by their place."""
    log = RunLog(tmp_path / "runs.jsonl")
    with seeded(1, log=log):
        pass
    sweep(draws, 2, log=log)
    with seeded(2, log=log):
        pass
    first, *of_sweep, last = [run.ordinal for run in log]
    assert of_sweep == [None, None]
    assert last == first + 1


@pytest.mark.parametrize(("name", "value"), [("threads", 77), ("function", "0" * 16)])
def test_a_seed_that_other_threads_or_code_have_run_runs_again(tmp_path, name, value):
    path = tmp_path / "runs.jsonl"
    sweep(draws, 2, log=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [line | {name: value} if line["seed"] == 1 else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    with pytest.warns(UserWarning, match="these seeds run again"):
        sweep(draws, 2, log=path)
    assert [run.seed for run in RunLog(path)] == [0, 1, 1]


@pytest.mark.parametrize("value", ["text", [1.0], None])
def test_a_line_without_a_number_is_no_outcome(tmp_path, value):
    path = tmp_path / "runs.jsonl"
    sweep(draws, 1, log=path)
    line = json.loads(path.read_text())
    path.write_text(json.dumps(line | {"notes": {"value": value}}) + "\n")
    sweep(draws, 1, log=path)
    assert [run.seed for run in RunLog(path)] == [0, 0]
