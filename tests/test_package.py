"""The house: imports run one way, nothing heavy loads, types hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_python

PACKAGE = ROOT / "seedscope"


def test_each_floor_imports_only_lower_ones():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(
    not hasattr(torch._C._dynamo.eval_frame, "set_code_exec_strategy"),
    reason="before torch 2.7 the compiler has to be imported to be kept out",
)
def test_importing_is_light():
    run_python(
        """
import sys, torch, numpy
before = set(sys.modules)
from seedscope import *
heavy = {"torch._dynamo", "torch._inductor", "torch._inductor.config", "matplotlib", "rich",
         "sklearn", "pandas", "torch.distributed.checkpoint", "wrapt"}
heavy &= set(sys.modules) - before
assert not heavy, heavy
assert not torch.cuda.is_initialized()
"""
    )


def test_the_package_and_its_command_load_torch_only_when_they_need_it():
    run_python(
        """
import sys
import seedscope.cli.main
from seedscope import derive_seed, fresh_seed
heavy = {"torch", "numpy", "wrapt"} & set(sys.modules)
assert not heavy, heavy
"""
    )


def test_the_commands_help_loads_nothing_that_it_does_not_need():
    run_python(
        """
import sys
sys.argv = ["seedscope", "--help"]
try:
    import seedscope.__main__
except SystemExit as end:
    assert end.code == 0
heavy = {"concurrent.futures", "csv", "hashlib", "json", "multiprocessing", "random", "secrets"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    )


def test_every_public_name_is_there_and_documented():
    import seedscope

    assert sorted(seedscope._HOMES) == sorted(seedscope.__all__)
    for name in seedscope.__all__:
        assert getattr(seedscope, name).__doc__, name
        # An import of such a module would put the module in the place of the function.
        assert not (PACKAGE / f"{name}.py").exists() and not (PACKAGE / name).exists()


@pytest.mark.parametrize(
    "command",
    [
        ["mypy", "--strict", "seedscope", "tests/typing_example.py"],
        ["pyright", "--warnings", "tests/typing_example.py"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_type_checkers_and_linter_find_nothing(command):
    result = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
