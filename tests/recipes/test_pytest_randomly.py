"""pytest-randomly seeds `random` and NumPy after the fixtures, and shuffles the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers import ROOT
from small_training import RECIPES

HOOK = """\
import pytest
from seedscope import seeded

@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    with seeded(1029):
        return (yield)
"""
FIXTURE = """\
import pytest
from seedscope import seeded

@pytest.fixture(autouse=True)
def scope():
    with seeded(1029) as scope:
        yield scope
"""
# What is outside of a scope stays as it was: around a call, or around the fixture `scope`.
CHECKS = """
import pytest
from seedscope import snapshot

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    before = snapshot()
    result = yield
    assert "scope" in pyfuncitem.fixturenames or before.changed(snapshot()) == ()
    return result

@pytest.fixture(autouse=True)
def outside(request):
    before = snapshot()
    yield
    assert "scope" not in request.fixturenames or before.changed(snapshot()) == ()
"""
TESTS = """
import json, os, random
import numpy as np, torch
from seedscope import seeded

def note(test):
    with open(os.environ["NOTES"], "a") as file:
        draws = random.random(), np.random.rand(), torch.rand(1).item()
        print(json.dumps([__name__, test, *draws]), file=file)
"""


def write_tests(folder, name, conftest="", decorator=""):
    tests = [f"{decorator}def test_{letter}(tmp_path): note('{letter}')\n" for letter in "abcde"]
    (folder / name).mkdir()
    (folder / name / "conftest.py").write_text(conftest)
    (folder / name / f"test_{name}.py").write_text(TESTS + "\n".join(tests))


def run_tests(folder, seed, *options):
    """Return the draws of each test, by file, in the order in which a fresh pytest ran them."""
    notes = folder / f"{seed}.jsonl"
    arguments = ["-p", "randomly", f"--randomly-seed={seed}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-p", "no:xdist", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "NOTES": str(notes)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = {}
    for file, test, *draws in map(json.loads, notes.read_text().splitlines()):
        drawn.setdefault(file, {})[test] = draws
    return drawn


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(CHECKS)
    write_tests(tmp_path, "hook", HOOK)
    write_tests(tmp_path, "fixture", FIXTURE)
    write_tests(tmp_path, "decorator", decorator="@seeded(1029)\n")
    return tmp_path


def test_a_hook_and_a_decorator_seed_each_test(folder):
    first, second = (run_tests(folder, seed) for seed in (1, 1029))
    for file in ("test_hook", "test_decorator"):
        assert [*first[file]] != [*second[file]]  # the order of the tests
        assert first[file] == second[file]
        assert len({*map(tuple, first[file].values())}) == 1
    # pytest-randomly seeds `random` and NumPy again after a fixture; it leaves torch alone.
    for test, (python, numpy, torch) in first["test_fixture"].items():
        others = second["test_fixture"][test]
        assert (python != others[0], numpy != others[1], torch == others[2]) == (True,) * 3


def test_a_fixture_seeds_each_test_if_nothing_seeds_again(folder):
    first, second = (run_tests(folder, seed, "--randomly-dont-reset-seed") for seed in (1, 1029))
    assert [*first["test_fixture"]] != [*second["test_fixture"]]
    assert first == second


@pytest.mark.parametrize("code", [HOOK, FIXTURE], ids=["hook", "fixture"])
def test_the_page_shows_the_conftest(code):
    assert code.split("\n\n")[-1] in RECIPES.read_text()
