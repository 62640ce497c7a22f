from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import fake_accelerator
import numpy as np
import pytest
import torch

import seedscope
from seedscope import evaluation
from seedscope.scope import open_scopes
from seedscope.settings import environment
from seedscope.sources.registry import select_sources

fake_accelerator.register()

ROOT = Path(__file__).parent.parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        torch.cuda.init()  # whichever test is the first to use it has not changed its state


@pytest.fixture(autouse=True)
def nothing_happens_outside():
    """Every source and setting is after each test what it was before it."""
    fake_accelerator.FAKE.reset()
    before = seedscope.snapshot()
    yield
    still_open = [*open_scopes._open_scopes]
    open_scopes._open_scopes.clear()
    fake_accelerator.FAKE.reset()
    changed = before.changed(seedscope.snapshot())
    before.restore()
    assert not still_open, f"the test left {still_open} open"
    assert not changed, f"the test left {changed} changed"


@pytest.fixture
def public_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state and setting is read and written by public calls alone."""
    [python], [numpy] = select_sources(["python"]), select_sources(["numpy"])
    monkeypatch.setattr(python, "_mapped", None)
    monkeypatch.setattr(numpy, "_mapped", None)
    monkeypatch.setitem(vars(numpy), "_gauss", None)
    for function in (environment.read_variable, environment.write_variable):
        monkeypatch.setattr(function, "__defaults__", (None,))
    monkeypatch.setattr(open_scopes, "_running_loop", None)
    monkeypatch.setattr(evaluation, "_MODULES", None)


@pytest.fixture(params=["fast", "public"])
def ways(request: pytest.FixtureRequest) -> str:
    """Both ways to each state: in place, and by public calls."""
    if request.param == "public":
        request.getfixturevalue("public_ways")
    return request.param


@pytest.fixture
def fake() -> fake_accelerator.FakeAccelerator:
    return fake_accelerator.FAKE


def draw() -> tuple:
    """One value from each source that this machine has."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.standard_normal(),
        torch.rand(1).item(),
        fake_accelerator.FAKE.rand(),
        np.random.default_rng().random(),
        random.Random().random(),
    )


def seedscope_command(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """What `seedscope ARGUMENTS` does in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "seedscope", *arguments],
        **{"capture_output": True, "text": True, "timeout": 120, **options},
    )


def run_python(code: str, *arguments: str, timeout: int = 120, **options) -> str:
    """What a fresh interpreter prints for `code`."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        **options,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
