"""`seedscope replay`: the same program with the same seed, and what differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import git, seedscope_command
from seedscope import RunLog

TRAIN = """
import sys
import torch
from seedscope import note
note(loss=torch.rand(()) * float(sys.argv[1]), nan=float("nan"))
"""


def only_run(**fields) -> str:
    runs = [run for run in RunLog("runs.jsonl") if run.replays is None]
    return [run for run in runs if all(getattr(run, k) == v for k, v in fields.items())][-1].id


def test_a_replay_gives_the_same_values_and_says_what_differs(tmp_path):
    Path("train.py").write_text(TRAIN)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    assert seedscope_command("run", "train.py", "2").returncode == 0
    log = str(tmp_path / "runs.jsonl")
    identity = only_run()

    same = seedscope_command("replay", "--yes", identity[:6], "--log", log, cwd="/")
    assert same.returncode == 0, same.stderr
    assert "differs from then" not in same.stderr
    assert "equal: loss is " in same.stderr
    assert "equal: nan is " in same.stderr
    assert "the same again: every noted value is equal, bit for bit" in same.stderr

    Path("train.py").write_text(TRAIN.replace("* float", "* 0.5 * float"))
    other = seedscope_command("replay", "--yes", identity, "--log", log, cwd="/")
    assert other.returncode == 1
    assert "differs from then: uncommitted changes was False, is True" in other.stderr
    assert "differs from then: the script has changed" in other.stderr
    assert "NOT equal: loss was " in other.stderr
    assert "equal: nan is" in other.stderr
    assert "the run did not repeat" in other.stderr
    replayed = [run for run in RunLog(log) if run.replays == identity]
    assert len(replayed) == 2
    assert len({run.seed for run in replayed}) == 1


def test_a_script_with_its_own_blocks_replays_with_its_seeds(tmp_path):
    Path("own.py").write_text(
        """
import torch
from seedscope import seeded
for name in ("first", "second"):
    with seeded(log="runs.jsonl") as scope:
        scope.note(**{name: torch.rand(1).item()})
"""
    )
    subprocess.run([sys.executable, "own.py"], check=True)
    first, second = RunLog("runs.jsonl")
    done = seedscope_command("replay", "--yes", second.id)
    assert done.returncode == 0, done.stderr
    assert f"equal: second is {second.notes['second']}" in done.stderr
    again = [run for run in RunLog("runs.jsonl") if run.replays]
    assert [run.notes for run in again] == [first.notes, second.notes]
    assert [run.replays for run in again] == [first.id, second.id]


def test_a_replay_takes_nothing_from_the_log_it_is_compared_with(tmp_path):
    Path("entropy.py").write_text(
        """
import os
from seedscope import note, seeded, sweep
def draw(seed): return int.from_bytes(os.urandom(4), "big")
if __name__ == "__main__":
    note(best=sweep(draw, 3, log="runs.jsonl").best.value)
    with seeded(log="runs.jsonl") as scope:
        scope.note(seed_of_its_own=scope.seed)
"""
    )
    assert seedscope_command("run", "entropy.py").returncode == 0
    runs = [run for run in RunLog("runs.jsonl") if run.sweep is None]
    done = seedscope_command("replay", "--yes", runs[1].id)
    assert done.returncode == 1
    assert "NOT equal: best was " in done.stderr
    done = seedscope_command("replay", "--yes", runs[0].id)
    assert done.returncode == 0
    assert "equal: seed_of_its_own is" in done.stderr


def test_a_replay_does_not_extend_to_child_processes(tmp_path):
    Path("child.py").write_text(
        """
import subprocess, sys
from seedscope import seeded
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "child.py", "x"], check=True)
with seeded(log="runs.jsonl") as scope:
    scope.note(arguments=len(sys.argv))
"""
    )
    subprocess.run([sys.executable, "child.py"], check=True)
    (parent,) = [run for run in RunLog("runs.jsonl") if run.notes["arguments"] == 1]
    done = seedscope_command("replay", "--yes", parent.id)
    assert done.returncode == 0, done.stderr
    again = [run for run in RunLog("runs.jsonl") if run.replays]
    assert [(run.replays, run.seed) for run in again] == [(parent.id, parent.seed)]


@pytest.mark.slow
def test_a_program_that_changes_folder_replays_where_it_began(tmp_path):
    Path("sub").mkdir()
    Path("go.py").write_text(
        "from seedscope import seeded\nimport os\nos.chdir('sub')\n"
        "with seeded(log='../runs.jsonl') as scope: scope.note(x=scope.seed)\n"
    )
    subprocess.run([sys.executable, "go.py"], check=True)
    done = seedscope_command("replay", "--yes", only_run())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_replay_names_string_hashes_as_a_possible_cause(tmp_path):
    Path("hashed.py").write_text(
        "from seedscope import seeded\n"
        "with seeded(1, log='runs.jsonl') as scope: scope.note(x=hash('a'))\n"
    )
    subprocess.run([sys.executable, "hashed.py"], check=True)
    done = seedscope_command("replay", "--yes", only_run())
    assert done.returncode == 1
    assert "seedscope run sets PYTHONHASHSEED" in done.stderr


@pytest.mark.slow
def test_a_killed_run_is_replayed_with_nothing_to_compare(tmp_path):
    Path("kill.py").write_text(
        "import os, sys\nfrom seedscope import note\nnote(x=1)\n"
        "if not os.path.exists('done'):\n"
        "    open('done', 'w').close()\n    os.kill(os.getpid(), 9)\n"
    )
    assert seedscope_command("run", "kill.py").returncode == -9
    (killed,) = RunLog("runs.jsonl").unfinished()
    done = seedscope_command("replay", "--yes", killed.id)
    assert done.returncode == 0
    assert "the first run had not ended: there is nothing to compare; now: ok" in done.stderr


@pytest.mark.slow
def test_a_failed_run_is_replayed_into_the_same_failure(tmp_path):
    Path("fail.py").write_text("import torch; raise ValueError(torch.rand(1).item())")
    assert seedscope_command("run", "fail.py").returncode == 1
    done = seedscope_command("replay", "--yes", only_run())
    assert done.returncode == 0, done.stderr
    assert "the run ended in the same way; no values were noted" in done.stderr
    assert "ValueError: 0." in done.stderr


def test_a_seed_of_a_sweep_is_replayed(tmp_path):
    Path("work.py").write_text("import torch\ndef loss(): return torch.rand(1).item()\n")
    assert seedscope_command("sweep", "work:loss", "--seeds", "3:6").returncode == 0
    done = seedscope_command("replay", "--yes", only_run(seed=4))
    assert done.returncode == 0, done.stderr
    assert "replaying" in done.stderr
    assert "it imports work, first from " in done.stderr
    assert "and calls loss with seed 4" in done.stderr
    assert "the same again" in done.stderr
    Path("work.py").write_text("import torch\ndef gain(): return 1\n")
    done = seedscope_command("replay", "--yes", only_run(seed=4))
    assert done.returncode == 2
    assert "work has no 'loss'" in done.stderr


def test_a_run_that_cannot_be_replayed_says_why(tmp_path):
    code = "from seedscope import seeded\nwith seeded(5, log='runs.jsonl'): pass\n"
    subprocess.run([sys.executable, "-i"], input=code, text=True, check=True, capture_output=True)
    done = seedscope_command("replay", "--yes", only_run())
    assert done.returncode == 2
    assert "from standard input: run the code in `with seeded(5):`" in done.stderr
    Path("spawned.py").write_text(
        """
import multiprocessing
from seedscope import seeded
def work(seed):
    with seeded(seed, log="runs.jsonl"): pass
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool: pool.map(work, [6])
"""
    )
    subprocess.run([sys.executable, "spawned.py"], check=True)
    for child in [run for run in RunLog("runs.jsonl") if run.seed == 6]:
        done = seedscope_command("replay", "--yes", child.id)
        assert done.returncode == 2
        assert "it ran in a child process" in done.stderr
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    Path("rank.py").write_text("pass")
    seedscope_command("run", "--seed", "9", "rank.py", env=environment)
    done = seedscope_command("replay", "--yes", only_run(seed=9))
    assert done.returncode == 2
    assert "it was rank 1 of several: start all ranks as before" in done.stderr
