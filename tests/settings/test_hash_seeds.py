"""The hash seeds that scopes give to child processes: repeatable, and no memory for each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers import run_python
from seedscope import seeded, snapshot

HASH = [sys.executable, "-c", "print(hash('seedscope'))"]


def test_the_number_of_hash_seeds_is_bounded(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    seen = set()
    for seed in range(0, 2**64, 2**64 // 10_007):
        with seeded(seed, sources=[]):
            seen.add(os.environ["PYTHONHASHSEED"])
    assert 1000 < len(seen) <= 4096


def test_many_scopes_with_fresh_seeds_take_no_memory():
    # The C library keeps each distinct string of the environment for ever: 1.6 MB before.
    code = """
import random
from seedscope import seeded

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

def enter(seeds):
    for seed in seeds:
        with seeded(seed * 2654435761 % 2**64, sources=["python"]) as scope:
            random.random()
    return resident()

before = enter(range(5000))
print(enter(range(5000, 25_000)) - before)
"""
    assert int(run_python(code)) < 800, "kB"


@pytest.mark.parametrize("seed", [5, 123456789])
def test_children_of_seedscope_run_hash_as_their_parent(seed):
    # `seedscope run` starts the process with all 32 bits of the seed.
    code = f"""
import subprocess, sys, os
from seedscope import seeded
with seeded({seed}):
    child = subprocess.check_output({HASH!r}, text=True)
assert int(child) == hash("seedscope")
with seeded({seed} + 1):
    assert int(subprocess.check_output({HASH!r}, text=True)) != hash("seedscope")
assert os.environ["PYTHONHASHSEED"] == "{seed}"
"""
    run_python(code, env={**os.environ, "PYTHONHASHSEED": str(seed)})


@pytest.mark.parametrize("mode", ["cudnn", False])
@pytest.mark.parametrize("outside", [None, "7"])
def test_without_deterministic_algorithms_the_environment_is_left_alone(mode, outside, monkeypatch):
    names = ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "TORCHINDUCTOR_DETERMINISTIC")
    for name in names:
        monkeypatch.delenv(name, raising=False)
        if outside is not None:
            monkeypatch.setenv(name, outside)
    before = {**os.environ}
    with seeded(1029, deterministic=mode):
        assert os.environ == before
        assert subprocess.check_output(["env", "-0"]).count(b"PYTHONHASHSEED") == (
            outside is not None
        )
    with seeded(1029, deterministic="warn"):
        assert os.environ["PYTHONHASHSEED"] == "1029"
        assert os.environ["TORCHINDUCTOR_DETERMINISTIC"] == "1"
    assert os.environ == before


def test_the_hash_seed_is_no_change_after_the_block():
    before = snapshot()
    with seeded(2**40):
        assert "PYTHONHASHSEED" in before.changed(snapshot())
    assert snapshot() == before
