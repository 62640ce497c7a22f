from __future__ import annotations

import math

import pytest
import torch

from helpers import ROOT
from seedscope import RunLog, seeded


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def runs() -> list:
    """A log of four runs that ended and one that did not, oldest first."""
    for seed, loss in enumerate([0.25, 0.125, math.nan]):
        with seeded(seed, log="runs.jsonl") as scope:
            scope.note(loss=loss, epoch=seed, tensor=torch.tensor(loss))
    with pytest.raises(ValueError, match="diverged"), seeded(3, log="runs.jsonl"):
        raise ValueError("diverged")
    log = RunLog("runs.jsonl")
    log.append("begin", {"id": "ffffffffff00", "seed": 4, "began": "2026-01-01T00:00:00+00:00"})
    return [*log]
