from __future__ import annotations

import pytest

from seedscope import RunLog


@pytest.fixture
def log(tmp_path) -> RunLog:
    return RunLog(tmp_path / "runs.jsonl")
