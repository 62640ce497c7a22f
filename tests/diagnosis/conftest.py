from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_else_traces():
    """Leave the trace function to `diagnose`, which names no lines while a coverage tool has it."""
    before = sys.gettrace()
    sys.settrace(None)
    yield
    assert sys.gettrace() is None
    sys.settrace(before)
