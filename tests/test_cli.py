"""`seedscope log`, `info`, `replay`: their output, and what they say when they cannot."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, seedscope_command
from test_runlog import git

from seedscope import RunLog, seeded
from seedscope.cli.main import main


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def runs() -> list:
    """A log of four runs that ended and one that did not, oldest first."""
    for seed, loss in enumerate([0.25, 0.125, math.nan]):
        with seeded(seed, log="runs.jsonl") as scope:
            scope.note(loss=loss, epoch=seed, tensor=torch.tensor(loss))
    with pytest.raises(ValueError), seeded(3, log="runs.jsonl"):
        raise ValueError("diverged")
    log = RunLog("runs.jsonl")
    log.append("begin", {"id": "unfinished00", "seed": 4, "began": "2026-01-01T00:00:00+00:00"})
    return [*log]


def seeds_of(capsys, *arguments: str) -> list[int]:
    assert main(["log", "--json", *arguments]) == 0
    return [run["seed"] for run in json.loads(capsys.readouterr().out)]


def test_log_shows_the_runs_newest_first_with_what_they_noted(runs, capsys):
    assert main(["log"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "4 runs of runs.jsonl" in lines[0]
    ids = [line.split()[0] for line in lines[4:8]]
    assert ids == [run.id[:8] for run in reversed(runs)]
    assert "0.125" in lines[6] and "nan" in lines[5] and "ValueError: diverged" in lines[4]
    assert shown.err == "seedscope: runs that have not ended: 1; --unfinished shows them\n"
    assert max(map(len, lines)) <= 120


def test_log_keeps_what_matters_on_a_narrow_terminal(runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["log", "--best", "loss"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert runs[1].id[:8] in lines[4] and " 0.125 " in lines[4]


def test_best_sorts_by_a_note_and_leaves_out_what_has_none(runs, capsys):
    assert seeds_of(capsys, "--best", "loss") == [1, 0]
    assert seeds_of(capsys, "--best", "loss:max") == [0, 1]
    assert seeds_of(capsys, "--best", "tensor") == [1, 0]


@pytest.mark.parametrize(
    ("conditions", "seeds"),
    [
        (["loss<0.2"], [1]),
        (["loss>=0.125"], [1, 0]),
        (["epoch!=1"], [2, 0]),
        (["outcome=ok", "epoch>0"], [2, 1]),
        (["seed = 3"], [3]),
        (["tensor<0.2"], [1]),
        (["outcome<3"], []),
        (["seed==2"], [2]),
        (["torch=" + torch.__version__], [3, 2, 1, 0]),
    ],
)
def test_where_keeps_what_holds(runs, capsys, conditions, seeds):
    arguments = [part for text in conditions for part in ("--where", text)]
    assert seeds_of(capsys, *arguments) == seeds


def test_unfinished_runs_are_asked_for(runs, capsys):
    assert seeds_of(capsys, "--unfinished") == [4]


def test_json_and_csv_have_the_values(runs, capsys):
    assert main(["log", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)[2]
    assert record["notes"]["loss"] == 0.125 and record["id"] == runs[1].id
    assert record["settings"] and record["versions"]["torch"] == torch.__version__
    assert main(["log", "--csv"]) == 0
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert [row["loss"] for row in rows] == ["", "nan", "0.125", "0.25"]
    assert rows[2]["tensor"] == "0.125" and rows[2]["id"] == runs[1].id


def test_a_note_named_like_a_field_hides_neither(capsys):
    with seeded(7, log="runs.jsonl") as scope:
        scope.note(seed=5, outcome="fine")
    assert main(["log", "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["seed"], row["notes.seed"]) == ("7", "5")
    assert (row["outcome"], row["notes.outcome"]) == ("ok", "fine")
    assert seeds_of(capsys, "--where", "seed=7") == [7]
    assert seeds_of(capsys, "--where", "seed=5") == []
    assert seeds_of(capsys, "--where", "notes.seed=5") == [7]


def test_where_takes_the_beginning_of_an_id_or_a_commit(runs, capsys):
    assert seeds_of(capsys, "--where", f"id={runs[1].id[:6]}") == [1]
    if runs[1].git:
        assert seeds_of(capsys, "--where", f"commit={runs[1].git['commit'][:7]}") == [3, 2, 1, 0]


def test_many_and_long_notes_leave_ids_and_commands_readable(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with seeded(2**32 - 1, log="runs.jsonl") as scope:
        scope.note(**{f"metric_{i}": i / 7 for i in range(9)}, tensor=torch.rand(50), loss=0.5)
    assert main(["log", "--best", "loss"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (run,) = RunLog("runs.jsonl")
    row = lines[4].split()
    assert row[0] == run.id[:8] and "4294967295" in row and "0.5" in row and "ok" in row
    assert max(map(len, lines)) <= 80
    assert "more notes, shown by --json and --csv: metric_" in " ".join(lines)


def test_replays_are_shown_when_they_are_asked_for(runs, capsys):
    key = {"id": "a" * 12, "seed": 1, "began": "2026-01-01T00:00:00+00:00", "notes": {}}
    RunLog("runs.jsonl").append("end", {**key, "replays": runs[1].id})
    assert seeds_of(capsys) == [3, 2, 1, 0]
    assert seeds_of(capsys, "--replays") == [3, 2, 1, 0, 1]


def test_of_several_ranks_the_first_is_shown(capsys):
    log = RunLog("runs.jsonl")
    for rank in range(3):
        key = {"id": f"{rank}" * 12, "seed": rank, "began": f"2026-01-01T00:00:0{rank}+00:00"}
        log.append("end", {**key, "notes": {}, "outcome": "ok", "rank": rank})
    assert seeds_of(capsys) == [0]
    assert seeds_of(capsys, "--where", "rank>=1") == [2, 1]


def test_a_torn_line_is_one_line_on_stderr_beside_the_table(runs, capsys):
    with open("runs.jsonl", "ab") as file:
        file.write(b'{"event":"end","id":"torn')
    assert seeds_of(capsys) == [3, 2, 1, 0]
    assert main(["log"]) == 0
    said = capsys.readouterr().err
    assert said.count("line 10 is torn") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["log", "--log", "none.jsonl"], "there is no log at none.jsonl"),
        (["log", "--log", "broken.jsonl"], "broken.jsonl is not a run log: line 1 is not a run"),
        (["log", "--log", "."], "cannot read the log: [Errno 21] Is a directory"),
        (
            ["log", "--best", "accuracy"],
            "no run has a number as note 'accuracy'; the notes are: epoch, loss",
        ),
        (
            ["log", "--where", "nothing>1"],
            "no run has a field or note 'nothing'; the notes are: epoch",
        ),
        (["sweep", "math:sin", "--plot", "x.xyz"], "--plot needs a file name that ends in .png"),
        (
            ["sweep", "math:sin", "--plot", "none/x.png"],
            "the folder of --plot 'none/x.png' does not exist",
        ),
        (["log", "--best", "loss:up"], "--best takes NOTE, NOTE:min or NOTE:max"),
        (["replay", "zzz"], "no run with an id that starts with 'zzz'"),
        (["replay", "zzz", "--log", "none.jsonl"], "there is no log at none.jsonl"),
        (["replay", "unfinished00"], "unfinished00 cannot be replayed: its folder"),
        (["sweep", "nowhere:f"], "no module 'nowhere' in the working folder"),
        (["sweep", "math:nothing"], "math has no 'nothing'"),
        (["sweep", "math:sin", "--log", "broken.jsonl"], "broken.jsonl is not a run log"),
        (["sweep", "math"], "'math' does not have the form MODULE:FUNCTION"),
        (["sweep", "math:pow"], "pow must be callable as fn(seed) or fn()"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(runs, capsys, arguments, says):
    Path("broken.jsonl").write_text("hello\n")
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("seedscope: ") and says in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("text", ["loss", "<3", "a b=1"])
def test_a_condition_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["log", "--where", text])
    assert stopped.value.code == 2
    assert "must be like loss<0.2 or outcome=ok" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["run"], ["log"], ["replay"], ["sweep"], ["info"]])
def test_help_explains_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "example" in capsys.readouterr().out


def test_a_table_without_rich_names_the_extra(runs):
    code = "import sys; sys.modules['rich'] = None; from seedscope.cli.main import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(main(['log']))"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == 'seedscope: The table needs rich: pip install "seedscope[cli]"\n'


def test_a_pipe_that_closes_early_is_no_error(runs):
    command = f"{sys.executable} -m seedscope log --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[\n" and done.stderr == ""


def test_info_has_what_bears_on_reproducibility(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["torch"] == torch.__version__
    assert info["settings"]["cudnn.benchmark"] is torch.backends.cudnn.benchmark
    assert info["environment"]["OMP_NUM_THREADS"] == "3"
    assert info["process"]["hash randomization"] is bool(sys.flags.hash_randomization)
    assert info["machine"]["CPU threads"] == torch.get_num_threads()
    assert main(["info"]) == 0
    assert f"torch      {torch.__version__}" in capsys.readouterr().out


# --------------------------------------------------------------------------------- replay

TRAIN = """
import sys
import torch
from seedscope import note
note(loss=torch.rand(()) * float(sys.argv[1]), nan=float("nan"))
"""


def only_run(**fields) -> str:
    runs = [run for run in RunLog("runs.jsonl") if run.replays is None]
    return [run for run in runs if all(getattr(run, k) == v for k, v in fields.items())][-1].id


def test_replay_gives_the_same_and_says_what_differs_and_what_came_out(tmp_path):
    Path("train.py").write_text(TRAIN)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    assert seedscope_command("run", "train.py", "2").returncode == 0
    log = str(tmp_path / "runs.jsonl")
    identity = only_run()

    same = seedscope_command("replay", identity[:6], "--log", log, cwd="/")
    assert same.returncode == 0, same.stderr
    assert "differs from then" not in same.stderr
    assert "equal: loss is " in same.stderr and "equal: nan is " in same.stderr
    assert "the same again: every noted value is equal, bit for bit" in same.stderr

    Path("train.py").write_text(TRAIN.replace("* float", "* 0.5 * float"))
    other = seedscope_command("replay", identity, "--log", log, cwd="/")
    assert other.returncode == 1
    assert "differs from then: uncommitted changes was False, is True" in other.stderr
    assert "differs from then: the script has changed" in other.stderr
    assert "NOT equal: loss was " in other.stderr and "equal: nan is" in other.stderr
    assert "the run did not repeat" in other.stderr
    replayed = [run for run in RunLog(log) if run.replays == identity]
    assert len(replayed) == 2 and len({run.seed for run in replayed}) == 1


def test_a_script_that_logs_its_own_blocks_is_replayed_with_its_seeds(tmp_path):
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
    done = seedscope_command("replay", second.id)
    assert done.returncode == 0, done.stderr
    assert f"equal: second is {second.notes['second']}" in done.stderr
    again = [run for run in RunLog("runs.jsonl") if run.replays]
    assert [run.notes for run in again] == [first.notes, second.notes]
    assert [run.replays for run in again] == [first.id, second.id]


def test_a_replay_takes_nothing_from_the_log_that_it_is_to_be_compared_with(tmp_path):
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
    done = seedscope_command("replay", runs[1].id)
    assert done.returncode == 1 and "NOT equal: best was " in done.stderr
    done = seedscope_command("replay", runs[0].id)
    assert done.returncode == 0 and "equal: seed_of_its_own is" in done.stderr


def test_a_replay_is_for_the_program_and_not_for_what_it_starts(tmp_path):
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
    done = seedscope_command("replay", parent.id)
    assert done.returncode == 0, done.stderr
    again = [run for run in RunLog("runs.jsonl") if run.replays]
    assert [(run.replays, run.seed) for run in again] == [(parent.id, parent.seed)]


@pytest.mark.slow
def test_a_program_that_changes_its_folder_is_replayed_where_it_was_started(tmp_path):
    Path("sub").mkdir()
    Path("go.py").write_text(
        "from seedscope import seeded\nimport os\nos.chdir('sub')\n"
        "with seeded(log='../runs.jsonl') as scope: scope.note(x=scope.seed)\n"
    )
    subprocess.run([sys.executable, "go.py"], check=True)
    done = seedscope_command("replay", only_run())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_hashes_of_strings_are_named_where_they_may_be_why(tmp_path):
    Path("hashed.py").write_text(
        "from seedscope import seeded\n"
        "with seeded(1, log='runs.jsonl') as scope: scope.note(x=hash('a'))\n"
    )
    subprocess.run([sys.executable, "hashed.py"], check=True)
    done = seedscope_command("replay", only_run())
    assert done.returncode == 1 and "seedscope run sets PYTHONHASHSEED" in done.stderr


@pytest.mark.slow
def test_a_run_that_was_killed_is_replayed_with_nothing_to_compare(tmp_path):
    Path("kill.py").write_text(
        "import os, sys\nfrom seedscope import note\nnote(x=1)\n"
        "if not os.path.exists('done'):\n"
        "    open('done', 'w').close()\n    os.kill(os.getpid(), 9)\n"
    )
    assert seedscope_command("run", "kill.py").returncode == -9
    (killed,) = RunLog("runs.jsonl").unfinished()
    done = seedscope_command("replay", killed.id)
    assert done.returncode == 0
    assert "the first run had not ended: there is nothing to compare; now: ok" in done.stderr


@pytest.mark.slow
def test_a_run_that_failed_is_replayed_into_the_same_failure(tmp_path):
    Path("fail.py").write_text("import torch; raise ValueError(torch.rand(1).item())")
    assert seedscope_command("run", "fail.py").returncode == 1
    done = seedscope_command("replay", only_run())
    assert done.returncode == 0, done.stderr
    assert "the run ended in the same way; no values were noted" in done.stderr
    assert "ValueError: 0." in done.stderr


def test_a_seed_of_a_sweep_is_replayed(tmp_path):
    Path("work.py").write_text("import torch\ndef loss(): return torch.rand(1).item()\n")
    assert seedscope_command("sweep", "work:loss", "--seeds", "3:6").returncode == 0
    done = seedscope_command("replay", only_run(seed=4))
    assert done.returncode == 0, done.stderr
    assert "replaying" in done.stderr and "work:loss, seed 4" in done.stderr
    assert "the same again" in done.stderr
    Path("work.py").write_text("import torch\ndef gain(): return 1\n")
    done = seedscope_command("replay", only_run(seed=4))
    assert done.returncode == 2 and "work has no 'loss'" in done.stderr


def test_what_cannot_be_replayed_says_why(tmp_path):
    code = "from seedscope import seeded\nwith seeded(5, log='runs.jsonl'): pass\n"
    subprocess.run([sys.executable, "-i"], input=code, text=True, check=True, capture_output=True)
    done = seedscope_command("replay", only_run())
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
        done = seedscope_command("replay", child.id)
        assert done.returncode == 2 and "it ran in a child process" in done.stderr
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    Path("rank.py").write_text("pass")
    seedscope_command("run", "--seed", "9", "rank.py", env=environment)
    done = seedscope_command("replay", only_run(seed=9))
    assert done.returncode == 2
    assert "it was rank 1 of several: start all ranks as before" in done.stderr
