"""The house: imports run one way, nothing is long, nothing heavy loads, types hold."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch

import seedscope
from helpers import ROOT, run_python

PACKAGE = ROOT / "seedscope"
FILES = sorted(PACKAGE.rglob("*.py"))


def test_each_floor_imports_only_lower_floors():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of the body; decorators, signature and docstring do not count."""
    first = function.body[0].lineno
    if ast.get_docstring(function) is not None:
        first = function.body[0].end_lineno + 1
    return function.end_lineno - first + 1


def test_every_function_has_at_most_40_lines():
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {lines_of(node)} lines"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > 40
    ]
    assert not long, "\n".join(long)


def test_every_file_has_at_most_300_lines():
    lengths = {file: len(file.read_text().splitlines()) for file in FILES}
    assert len(lengths) > 50
    long = {str(file): lines for file, lines in lengths.items() if lines > 300}
    assert not long


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


def test_the_package_and_its_command_load_torch_only_when_needed():
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
    assert sorted(seedscope._HOMES) == sorted(seedscope.__all__)
    for name in seedscope.__all__:
        assert getattr(seedscope, name).__doc__, name
        # The import of a module with this name would replace the function by the module.
        assert not (PACKAGE / f"{name}.py").exists()
        assert not (PACKAGE / name).exists()


def test_names_that_are_not_loaded_yet_are_listed():
    assert {*seedscope.__all__, "__version__"} <= {*dir(seedscope)}
    assert dir(seedscope) == sorted({*dir(seedscope)})


def public_functions(owner: type) -> list:
    """The functions of a class that users call: its methods, and those of its properties."""
    found = []
    for name, member in inspect.getmembers_static(owner):
        if not name.startswith("_") or name.endswith("__"):
            found += [getattr(member, f, None) for f in ("__func__", "fget", "fset")] + [member]
    return [member for member in found if inspect.isfunction(member)]


def test_type_hints_of_every_public_object_resolve():
    public = [getattr(seedscope, name) for name in seedscope.__all__]
    methods = [
        method for thing in public if isinstance(thing, type) for method in public_functions(thing)
    ]
    assert len(methods) > 50
    for thing in (*public, *methods):
        typing.get_type_hints(thing)
    assert seedscope.RunLog in typing.get_args(typing.get_type_hints(seedscope.seeded)["log"])


@pytest.mark.parametrize(
    "command",
    [
        ["mypy", "--strict", "seedscope", "tests/typing/api.py"],
        ["pyright", "--warnings", "tests/typing/api.py"],
        ["pyright", "--verifytypes", "seedscope", "--ignoreexternal"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_type_checkers_and_linter_find_nothing(command):
    pinned = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    if command[0] != "ruff" and torch.__version__.split("+")[0] != pinned:
        pytest.skip(f"the types are checked with the types of torch {pinned}")
    # pyright looks for the package in the Python that comes first on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env=os.environ | {"PATH": path},
    )
    assert result.returncode == 0, result.stdout + result.stderr
