"""A killed and resumed run ends in the same bits as an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.stateful import Stateful

from helpers import PROGRAMS, ROOT, draw
from seedscope import Snapshot, Stream, seeded, snapshot

SCRIPT = PROGRAMS / "train_resumable.py"


def can_ask_for_pinned_memory() -> bool:
    try:
        torch.zeros(1).is_pinned()
    except RuntimeError:  # before torch 2.7, of a device without C++ hooks
        return False
    return True


def train(path: Path, *kill_at: int) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path), *map(str, kill_at)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    result = train(tmp_path_factory.mktemp("whole") / "checkpoint.pt")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("18 ")
    return result.stdout


SLOW = [pytest.param((at,), marks=pytest.mark.slow) for at in (0, 11, 17)]


@pytest.mark.parametrize("kills", [(5,), (6,), (3, 12), *SLOW], ids=str)
def test_a_killed_run_resumes_to_the_same_bits(uninterrupted, kills, tmp_path):
    for kill_at in kills:
        assert train(tmp_path / "checkpoint.pt", kill_at).returncode == -signal.SIGKILL
    resumed = train(tmp_path / "checkpoint.pt")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == uninterrupted


def test_snapshots_and_streams_are_stateful():
    assert isinstance(snapshot(), Stateful)
    assert isinstance(Stream(1029), Stateful)


@pytest.mark.skipif(
    not can_ask_for_pinned_memory(), reason="the fake accelerator has no hooks for this torch"
)
@pytest.mark.filterwarnings("ignore")
def test_distributed_checkpoints_carry_both(tmp_path):
    stream = Stream(1029)
    with stream:
        draw()
    outer = snapshot()
    moment = snapshot()
    checkpoint.save({"stream": stream, "random": moment}, checkpoint_id=tmp_path)
    with stream:
        expected = draw()
    draw()
    loaded = {"stream": Stream(5), "random": snapshot()}
    checkpoint.load(loaded, checkpoint_id=tmp_path)
    assert moment.changed(loaded["random"]) == ()
    with loaded["stream"]:
        assert draw() == expected
    outer.restore()


def test_a_snapshot_loads_a_state_in_place():
    saved = snapshot().state_dict()
    with seeded(5):
        moment = snapshot()
        moment.load_state_dict(saved)
    assert moment == Snapshot.from_state_dict(saved)
    with pytest.raises(ValueError, match="not a Snapshot"):
        moment.load_state_dict({"model": torch.zeros(1)})
    assert moment == Snapshot.from_state_dict(saved)
