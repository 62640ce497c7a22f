"""`seedscope diagnose` prints the report, and exits with 1 if runs differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import seedscope_command
from seedscope.cli.main import main

PROGRAM = """
import time

import torch

print("loaded")

def same():
    print("called")
    return torch.rand(3)

def other():
    return torch.ones(3) * time.perf_counter_ns()

def needs(values):
    return values

def broken():
    torch.ones(2)
    raise ValueError("no data\\nat all")
"""


@pytest.fixture(autouse=True)
def program(in_a_folder_of_its_own):
    Path("steps.py").write_text(PROGRAM)


def test_a_function_that_repeats_exits_with_0():
    done = seedscope_command("diagnose", "steps:same", "--seed", "7", "--runs", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reproducible: 3 runs of same are equal, 1 operation\n")
    assert "called" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_function_that_differs_exits_with_1_and_is_explained():
    done = seedscope_command("diagnose", "steps.py:other")
    assert done.returncode == 1
    assert "aten.mul.Tensor" in done.stdout
    assert "the time, at steps.py:13" in " ".join(done.stdout.split())
    assert all(len(line) < 80 for line in done.stdout.splitlines())


def test_json_has_the_whole_report():
    done = seedscope_command("diagnose", "steps:other", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["cause"] == "value from outside"
    assert found["seed"] == 1029


def test_a_function_that_raises_is_reported():
    done = seedscope_command("diagnose", "steps:broken")
    assert done.returncode == 1
    assert "in run 1, after 1 operation: ValueError: no data, at" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["steps:needs"], "needs(values) is not given its arguments"),
        (["steps:nothing"], "steps has no 'nothing'"),
        (["nowhere:f"], "nowhere"),
        (["steps"], "MODULE:FUNCTION"),
    ],
)
def test_what_cannot_be_diagnosed_is_said_in_a_line(arguments, words, capsys):
    assert main(["diagnose", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1]


@pytest.mark.parametrize("options", [["--runs", "1"], ["--runs", "x"], ["--seed", "-1"]])
def test_bad_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", "steps:same", *options])
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err
