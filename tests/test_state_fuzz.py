"""Damaged states are refused, or work: thousands of them, in a process that may end badly."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from helpers import PROGRAMS, ROOT, TESTS

PROGRAM = PROGRAMS / "state_fuzz.py"


def run_fuzz(*arguments: object) -> dict | list:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=590,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])},
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-5000:]}"
    return ast.literal_eval(done.stdout)


def assert_each_is_refused_or_works(seed, first, count, folder):
    number = folder / "number"
    try:
        outcomes = run_fuzz(seed, first, count, number)
    except BaseException as error:
        if number.exists():  # also if the interpreter died
            error.add_note(f"seed {seed}, input {number.read_text()}")
        raise
    assert sum(outcomes.values()) == count
    assert min(outcomes.values()) > count / 20


def test_each_damaged_state_is_refused_or_works(tmp_path):
    assert_each_is_refused_or_works(1029, 0, 2000, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_each_of_many_damaged_states_is_refused_or_works(part, tmp_path):
    count = 62_500
    assert_each_is_refused_or_works(5, part * count, count, tmp_path)


def test_reading_a_state_runs_imports_and_opens_nothing():
    # The hook of the interpreter tells of code that is unpickled, compiled or imported, and of
    # files and processes. A hook cannot be removed.
    assert set(run_fuzz("audit", 1029, 0, 1000)) <= {"builtins.id", "sys._getframe"}
