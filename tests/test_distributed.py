from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from helpers import PROGRAMS, ROOT
from seedscope import derive_seed, rank_seed, shared_seed, snapshot

SCRIPT = PROGRAMS / "train_distributed.py"


def train(out: Path) -> list[dict]:
    out.mkdir()
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    result = subprocess.run(
        [sys.executable, *command, str(SCRIPT), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(4)]


def test_four_processes_repeat_under_torchrun(tmp_path):
    first, second = train(tmp_path / "first"), train(tmp_path / "second")
    assert len({rank["weights"] for rank in first + second}) == 1
    assert len({str(rank["plain"]) for rank in first}) == 1, "the plain seed agrees"
    assert len({str(rank["rank"]) for rank in first}) == 4, "each rank has its own masks"
    assert [rank["rank"] for rank in first] == [rank["rank"] for rank in second]
    assert [r["seed"] for r in first] == [derive_seed(1029, "rank", rank) for rank in range(4)]
    assert len({rank["shared"] for rank in first}) == 1
    assert first[0]["shared"] != second[0]["shared"], "shared, and fresh on each run"
    assert first[1]["pair"] == first[3]["pair"] != first[1]["shared"]


def test_both_seeds_warn_without_a_process_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    before = snapshot()
    with pytest.warns(UserWarning, match=r"rank_seed\(\): no process group is initialised"):
        assert rank_seed(1029) == derive_seed(1029, "rank", 0)
    with pytest.warns(UserWarning, match=r"shared_seed\(\): no process group") as warned:
        assert shared_seed() < 2**32
    assert warned[0].filename == __file__
    assert before.changed(snapshot()) == ()


def test_under_torchrun_the_warning_names_what_is_missing(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with pytest.warns(
        UserWarning, match="RANK=3 is set: call torch.distributed.init_process_group"
    ):
        rank_seed(1029)


@pytest.mark.parametrize("seed", [-1, "1029", None])
def test_bad_seeds_are_refused_without_a_warning(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((TypeError, ValueError), match="seed must be"):
            rank_seed(seed)
