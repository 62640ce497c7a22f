"""A log of someone else: its text stays text, and a replay asks before it runs anything."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seedscope import RunLog, seeded
from seedscope.cli.main import main
from seedscope.support.visible import message, shell, visible

HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\u2066c\u200bd\u2028e\x7f\r\ud800\u3164f"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\u2066c\u200bd\u2028e\x7f\r\ud800\u3164f"
STYLE = re.compile("\x1b\\[[0-9;]*m")
MARKUP = "[red]x[/red] [link=https://a.example]y[/link]"


def assert_plain(text: str) -> None:
    """Assert that nothing in a text is obeyed by a terminal or hidden, but styles of rich."""
    for line in STYLE.sub("", text).split("\n"):
        assert visible(line) == line, line


@pytest.fixture
def hostile() -> dict:
    """The record of a run whose texts are all hostile."""
    with seeded(1, log="runs.jsonl") as scope:
        scope.note(loss=0.5)
    end = json.loads(Path("runs.jsonl").read_text().splitlines()[1])
    end |= {"outcome": HOSTILE, "command": ["python", "-c", HOSTILE, "x y"], "sweep": None}
    end |= {"notes": {HOSTILE: HOSTILE, MARKUP: MARKUP, "loss": 0.5, "lines": "1\n2"}}
    end |= {"versions": {HOSTILE: HOSTILE}, "reseeded": {HOSTILE: None}, "rank": None}
    end |= {"script": None, "is_child": False, "folder": os.getcwd()}
    return end


def write(*records: dict, path: str = "runs.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records))


def test_no_text_of_a_log_reaches_the_terminal_as_it_is(hostile, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    write(hostile, {**hostile, "id": "b" * 12, "sweep": HOSTILE, "error": HOSTILE})
    for arguments in ([], ["--csv"], ["--best", "loss"], ["--where", "loss=0.5"], ["--json"]):
        assert main(["log", *arguments]) == 0
        said = capsys.readouterr()
        assert_plain(said.out)
        assert_plain(said.err)
        if arguments != ["--json"]:
            assert SHOWN in said.out
            assert SHOWN in said.err
            assert MARKUP in said.out
    assert main(["log", "--best", "none"]) == 2
    assert_plain(capsys.readouterr().err)


def test_json_keeps_the_text_in_ascii(hostile, capsys):
    write(hostile)
    assert main(["log", "--json"]) == 0
    said = capsys.readouterr().out
    assert said.isascii()
    assert json.loads(said)[0]["notes"][HOSTILE] == HOSTILE


def test_a_row_of_csv_is_one_line(hostile, capsys):
    write(hostile)
    assert main(["log", "--csv"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    (row,) = csv.DictReader(io.StringIO(said))
    assert (row["lines"], row[SHOWN]) == (r"1\n2", SHOWN)


def test_the_name_of_a_file_stays_text(hostile, capsys):
    write(hostile, path="a\x1b[31m[red].jsonl")
    assert main(["log", "--log", "a\x1b[31m[red].jsonl"]) == 0
    assert r"1 run of a\x1b[31m[red].jsonl" in capsys.readouterr().out
    assert main(["log", "--log", "none\x1b[31m\n"]) == 2
    assert_plain(capsys.readouterr().err)


def test_a_further_line_of_a_message_looks_like_no_other_message():
    assert message("one\nseedscope: two\x1b") == "one\n  seedscope: two\\x1b"


@pytest.mark.parametrize("word", [HOSTILE[:-3], "a'b\\c\x1b", "\n", "plain words", "$HOME"])
def test_a_shown_command_means_in_a_shell_what_is_run(word):
    word = word.replace("\ud800", "").replace("\x9b", "")
    shown = shell(["printf", "%s", word])
    assert_plain(shown)
    done = subprocess.run(["bash", "-c", shown], capture_output=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.decode() == word


def replay_on_a_terminal(answer: bytes | None, *arguments: str) -> tuple[int, str]:
    """Return the exit code and what a terminal of 80 columns shows of a replay."""
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", sys.executable, "-m", "seedscope", "replay", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 100
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
        if b"[y/N]" in shown and answer is not None:
            os.write(ours, answer)
            answer = None
    os.close(ours)
    return process.wait(20), shown.decode().replace("\r\n", "\n")


@pytest.fixture
def harmless() -> str:
    """The id of a run whose replay leaves a file, and notes nothing."""
    code = (
        "import pathlib; pathlib.Path('ran').touch(); from seedscope import seeded\n"
        "with seeded(5, log='runs.jsonl'): pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    os.remove("ran")
    return next(iter(RunLog("runs.jsonl"))).id


def test_a_replay_shows_the_command_and_asks_on_a_terminal(harmless):
    code, shown = replay_on_a_terminal(b"y\n", harmless)
    assert code == 0, shown
    assert os.path.exists("ran")
    asked = shown.index("seedscope: run it? [y/N]")
    command = shell([sys.executable, "-c", RunLog("runs.jsonl").find(harmless).command[2]])
    assert f"seedscope: the command is {command}\n" in shown[:asked]
    assert f"seedscope: replaying {harmless}, seed 5, in {os.getcwd()}\n" in shown[:asked]


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"yess\n", b"\x04", b"\x03"])
def test_another_answer_than_yes_runs_nothing(harmless, answer):
    code, shown = replay_on_a_terminal(answer, harmless)
    assert code == (130 if answer == b"\x03" else 2), shown
    assert not os.path.exists("ran")


def test_without_a_terminal_a_replay_needs_yes(harmless, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["replay", harmless]) == 2
    said = capsys.readouterr().err
    assert "the command is " in said
    assert said.endswith("without a terminal to ask, replay needs --yes\n")
    assert not os.path.exists("ran")


CANNOT = [
    ({"command": ["python", "-c", "a\0b"]}, "the system takes no such word"),
    ({"folder": "/\ud800"}, "the system takes no such word"),
    ({"command": []}, "it ran in an interactive session"),
    ({"command": ["python"]}, "it ran in an interactive session"),
    ({"sweep": "..x:f"}, "is not MODULE:FUNCTION"),
    ({"sweep": "/tmp/x.py:f"}, "is not MODULE:FUNCTION"),
    ({"sweep": "", "options": {}}, "is not MODULE:FUNCTION"),
    ({"sweep": "x:f", "options": {"log": "/tmp/x"}}, "its options are not those of a sweep"),
    ({"sweep": "x:f", "options": {"sources": 3}}, "its options are not those of a sweep"),
]


@pytest.mark.parametrize(("fields", "says"), CANNOT, ids=[says for _, says in CANNOT])
def test_a_run_that_no_process_could_have_is_refused_before_the_question(
    hostile, capsys, fields, says
):
    write({**hostile, "command": ["python", "x.py"], **fields})
    assert main(["replay", "--yes", hostile["id"]]) == 2
    assert says in capsys.readouterr().err
