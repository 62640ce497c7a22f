"""`seedscope log`: which runs it shows, in which form."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
import torch

from seedscope import RunLog, seeded
from seedscope.cli.main import main


def seeds_of(capsys, *arguments: str) -> list[int]:
    assert main(["log", "--json", *arguments]) == 0
    return [run["seed"] for run in json.loads(capsys.readouterr().out)]


def test_log_shows_the_newest_runs_first_with_their_notes(runs, capsys):
    assert main(["log"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "4 runs of runs.jsonl" in lines[0]
    assert lines[2].split()[-2:] == ["outcome", "command"]
    ids = [line.split()[0] for line in lines[4:8]]
    assert ids == [run.id[:8] for run in reversed(runs)]
    assert "0.125" in lines[6]
    assert "nan" in lines[5]
    assert "ValueError: diverged" in lines[4]
    assert shown.err == "seedscope: runs that have not ended: 1; --unfinished shows them\n"
    assert max(map(len, lines)) <= 120


def test_log_keeps_id_and_note_on_a_narrow_terminal(runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["log", "--best", "loss"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert runs[1].id[:8] in lines[4]
    assert " 0.125 " in lines[4]


def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(runs, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    with seeded(7, log="runs.jsonl") as scope:
        scope.note(**{f"a_metric_with_a_long_name_{i}": i for i in range(9)})
    command = [sys.executable, "-m", "seedscope", "log"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert "a_metric_with_a_long_name_8" in piped.stdout.splitlines()[2]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    on_terminal = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert on_terminal.wait(20) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert max(map(len, text.splitlines())) <= 80
    assert "more notes, shown by --json and --csv" in text


def test_best_sorts_by_a_note_and_leaves_out_runs_without_it(runs, capsys):
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
def test_where_keeps_the_runs_that_match(runs, capsys, conditions, seeds):
    arguments = [part for text in conditions for part in ("--where", text)]
    assert seeds_of(capsys, *arguments) == seeds


def test_unfinished_shows_the_unfinished_runs(runs, capsys):
    assert seeds_of(capsys, "--unfinished") == [4]


def test_json_and_csv_have_the_values(runs, capsys):
    assert main(["log", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)[2]
    assert record["notes"]["loss"] == 0.125
    assert record["id"] == runs[1].id
    assert record["settings"]
    assert record["versions"]["torch"] == torch.__version__
    assert main(["log", "--csv"]) == 0
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert [row["loss"] for row in rows] == ["", "nan", "0.125", "0.25"]
    assert rows[2]["tensor"] == "0.125"
    assert rows[2]["id"] == runs[1].id


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


def test_where_takes_a_note_with_the_name_of_a_method(capsys):
    with seeded(7, log="runs.jsonl") as scope:
        scope.note(event="race", what=3)
    assert seeds_of(capsys, "--where", "event=race", "--where", "what=3") == [7]
    assert seeds_of(capsys, "--where", "event=end") == []


def test_where_compares_a_note_as_a_whole(capsys):
    for text in ("1000", "10000"):
        with seeded(int(text), log="runs.jsonl") as scope:
            scope.note(split=text)
    assert seeds_of(capsys, "--where", "split=1000") == [1000]
    assert seeds_of(capsys, "--where", "split!=1000") == [10000]


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
    assert row[0] == run.id[:8]
    assert "4294967295" in row
    assert "0.5" in row
    assert "ok" in row
    assert max(map(len, lines)) <= 80
    assert "more notes, shown by --json and --csv: metric_" in " ".join(lines)


def test_rare_notes_in_a_pipe_take_no_time_for_each_run(monkeypatch, capsys):
    """One line with many notes would take a column for each of them in every row."""
    monkeypatch.delenv("COLUMNS", raising=False)
    for seed in range(100):
        with seeded(seed, log="runs.jsonl") as scope:
            scope.note(**{f"common_{i}": i for i in range(30)})
            if seed == 50:
                scope.note(**{f"rare_{i}": i for i in range(999)})
    assert main(["log"]) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()[1:-1]) < 3_000
    assert all(f" common_{i} " in text for i in range(30))
    assert "more notes, shown by --json and --csv: rare_" in text


def test_replays_are_shown_only_on_request(runs, capsys):
    key = {"id": "a" * 12, "seed": 1, "began": "2026-01-01T00:00:00+00:00", "notes": {}}
    RunLog("runs.jsonl").append("end", {**key, "outcome": "ok", "replays": runs[1].id})
    assert seeds_of(capsys) == [3, 2, 1, 0]
    assert seeds_of(capsys, "--replays") == [3, 2, 1, 0, 1]


def test_of_several_ranks_the_first_is_shown(capsys):
    log = RunLog("runs.jsonl")
    for rank in range(3):
        key = {"id": f"{rank}" * 12, "seed": rank, "began": f"2026-01-01T00:00:0{rank}+00:00"}
        log.append("end", {**key, "notes": {}, "outcome": "ok", "rank": rank})
    assert seeds_of(capsys) == [0]
    assert seeds_of(capsys, "--where", "rank>=1") == [2, 1]


@pytest.mark.filterwarnings("always::RuntimeWarning")
def test_a_torn_line_is_one_line_on_stderr_beside_the_table(runs, capsys):
    with open("runs.jsonl", "ab") as file:
        file.write(b'{"event":"end","id":"torn')
    assert seeds_of(capsys) == [3, 2, 1, 0]
    assert main(["log"]) == 0
    said = capsys.readouterr().err
    assert said.count("line 10 is torn") == 1


def test_a_pipe_that_closes_early_is_not_an_error(runs):
    command = f"{sys.executable} -m seedscope log --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[\n"
    assert done.stderr == ""
