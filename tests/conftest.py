from __future__ import annotations

import pytest
import torch

import fake_accelerator
import seedscope
from seedscope import evaluation
from seedscope.scope import open_scopes
from seedscope.settings import environment
from seedscope.sources.registry import select_sources
from seedscope.sources.watch import WATCH

fake_accelerator.register()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        torch.cuda.init()  # or the first test that uses CUDA would seem to change its state


@pytest.fixture(autouse=True)
def nothing_happens_outside():
    """Check that each test leaves every source and setting as it was."""
    fake_accelerator.FAKE.reset()
    before = seedscope.snapshot()
    yield
    still_open = [*open_scopes._open_scopes]
    open_scopes._open_scopes.clear()
    fake_accelerator.FAKE.reset()
    changed = before.changed(seedscope.snapshot())
    before.restore()
    assert not still_open, f"the test left {still_open} open"
    assert not WATCH.capture(), "the test left the functions of libraries replaced"
    assert not changed, f"the test left {changed} changed"


@pytest.fixture
def the_outer_state_is_intact():
    """Check also that no device was started: the fixture for every test resets devices."""
    before = seedscope.snapshot()
    yield
    assert before.changed(seedscope.snapshot()) == ()


@pytest.fixture
def public_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every state and setting read and written by public calls alone."""
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


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list:
    """The calls that a GPU would get, and the other events that a test notes."""
    told: list = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("waits"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: told.append("resets"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: told.append("reads") or 2e6)
    return told
