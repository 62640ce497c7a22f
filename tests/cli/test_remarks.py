"""What a command says reaches the user, whatever the program does to logging and streams."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from helpers import seedscope_command
from seedscope import RunLog, seeded
from seedscope.cli.messages import said
from seedscope.support.remarks import remark, warn


def test_a_remark_is_printed_once_and_outside_of_a_command_logged(capsys, caplog):
    with said(says_warnings=True):
        remark("3 of them from the log")
        warnings.simplefilter("always")
        for _ in range(2):
            warnings.warn("said twice", UserWarning, stacklevel=1)
        warn("of the package")
    assert capsys.readouterr().err == (
        "seedscope: 3 of them from the log\nseedscope: said twice\nseedscope: of the package\n"
    )
    assert caplog.messages == []
    with caplog.at_level(logging.INFO, "seedscope"):
        remark("outside of a command")
    with pytest.warns(UserWarning, match="of the package") as told:
        warn("of the package")
    assert told[0].filename == __file__
    assert caplog.messages == ["outside of a command"]
    assert capsys.readouterr().err == ""


SILENT = """
import logging.config, random, warnings
logging.config.dictConfig({"version": 1})
logging.disable()
logging.captureWarnings(True)
warnings.filterwarnings("ignore")

def value(seed):
    if seed == 1:
        raise ValueError("of seed 1")
    return random.SystemRandom().random()

def make_step():
    raise OSError("no data")
"""


def test_a_program_that_is_silent_leaves_the_command_its_voice():
    Path("silent.py").write_text(SILENT)
    swept = seedscope_command("sweep", "silent:value", "--seeds", "3", "--log", "a.jsonl")
    assert "1 of 3 seeds failed, the first is 1" in swept.stderr
    assert "ValueError: of seed 1" in swept.stderr
    run = next(run for run in RunLog("a.jsonl") if run.outcome == "ok")
    done = seedscope_command("replay", "--yes", run.id, "--log", "a.jsonl")
    assert done.returncode == 1
    assert "NOT equal: value was" in done.stderr
    done = seedscope_command("sweep", "silent:nope")
    assert done.returncode == 2
    assert "silent has no 'nope'" in done.stderr
    done = seedscope_command("cost", "silent:make_step")
    assert "silent:make_step failed: OSError: no data" in done.stderr
    done = seedscope_command("sweep", "silent:value", "--seeds", "3", "--log", "/proc/no/a.jsonl")
    assert done.stderr.count("could not be logged in /proc/no/a.jsonl") == 3


def shell(command: str) -> subprocess.CompletedProcess[str]:
    command = command.replace("seedscope ", f"{sys.executable} -m seedscope ")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


@pytest.fixture
def differs() -> str:
    """The id of a run whose replay differs."""
    Path("noisy.py").write_text(
        "import random, time\ndef value():\n    return random.SystemRandom().random()\n"
    )
    seedscope_command("sweep", "noisy:value", "--seeds", "1", "--log", "a.jsonl")
    return next(iter(RunLog("a.jsonl"))).id


@pytest.mark.parametrize("end", ["2>&-", ">&-", ">&- 2>&-", "2>/dev/full", "2>&1 | head -c 1"])
def test_a_replay_that_differs_exits_with_1_whoever_listens(differs, end):
    assert shell(f"seedscope replay --yes {differs} --log a.jsonl {end}").returncode == 1


@pytest.mark.parametrize("end", ["2>&-", ">&-", ">&- 2>&-", "2>/dev/full", "| head -c 1"])
def test_a_command_that_succeeds_exits_with_0_whoever_listens(end):
    Path("steady.py").write_text("def value(seed):\n    return seed\n")
    for command in ("info", "info --json", "sweep steady:value --seeds 2 --csv", "log"):
        assert shell(f"seedscope {command} {end}").returncode == 0


def test_prints_to_a_reader_that_has_gone_cost_no_answer():
    Path("prints.py").write_text("def value(seed):\n    print('x' * 99)\n    return seed\n")
    seedscope_command("sweep", "prints:value", "--seeds", "1", "--log", "a.jsonl")
    run = next(iter(RunLog("a.jsonl")))
    assert shell(f"seedscope replay --yes {run.id} --log a.jsonl | true").returncode == 0


@pytest.mark.parametrize("command", ["info", "log", "log --csv"])
def test_output_that_cannot_be_written_is_an_error(command):
    with seeded(1, log="runs.jsonl"):
        pass
    done = shell(f"seedscope {command} > /dev/full")
    assert done.returncode == 2
    assert "cannot write the output: [Errno 28]" in done.stderr


def test_an_unwritable_log_is_not_said_to_have_the_run():
    Path("script.py").write_text("")
    done = seedscope_command("run", "--log", "/proc/no/a.jsonl", "script.py")
    assert ", NOT logged in /proc/no/a.jsonl" in done.stderr


def test_a_terminal_without_unicode_gets_the_table(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with seeded(1, log="runs.jsonl") as scope:
        scope.note(text="longer than its column")
    done = seedscope_command("log")
    assert done.returncode == 0, done.stderr
    assert "longer than its" in done.stdout


def test_a_log_that_is_a_folder_is_one_line():
    Path("steady.py").write_text("def value(seed):\n    return seed\n")
    done = seedscope_command("sweep", "steady:value", "--log", ".")
    assert done.returncode == 2
    assert done.stderr.startswith("seedscope: ")
    assert "is a folder: name a regular file as the log" in done.stderr


def test_a_worker_that_dies_leaves_the_outcomes_and_the_way_on():
    Path("dies.py").write_text(
        "import os, time\n"
        "def value(seed):\n"
        "    if seed == 3:\n"
        "        time.sleep(1)\n"
        "        os._exit(1)\n"
        "    return seed\n"
    )
    command = ["sweep", "dies:value", "--seeds", "4", "--processes", "2", "--threads", "1"]
    done = seedscope_command(*command, "--log", "a.jsonl")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the executor broke after" in done.stderr
    assert "kept in a.jsonl: the same command resumes the sweep" in done.stderr
    assert "sweep of dies:value" in done.stdout
