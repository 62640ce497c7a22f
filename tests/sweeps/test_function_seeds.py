"""A sweep of a function that does not follow its seed says so."""

from __future__ import annotations

import json
import math
import random
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from transformers import set_seed

from helpers import seedscope_command, sweep_of
from seedscope import RunLog, sweep


def seeds_itself():
    torch.manual_seed(42)
    return torch.rand(())


def seeds_python_alone():
    random.seed(42)
    return random.random() + torch.rand(())


def takes_the_seed(seed):
    set_seed(seed)
    return torch.rand(()) + np.random.rand()


def follows_nothing():
    return 7.0


def told(function, **options):
    """Return the sweep of three seeds and the texts of its warnings, without that of luck."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = sweep(function, 3, progress=False, **options)
    texts = [str(warning.message) for warning in found]
    return result, [text for text in texts if "only luck" not in text]


def test_equal_values_are_no_finding():
    result, [seeded, equal] = told(seeds_itself)
    assert "the function itself seeds torch" in seeded
    assert equal.startswith("all 3 seeds gave the value 0.882269")
    assert result.is_constant
    assert result.reseeded == ("torch",)
    assert [outcome.reseeded for outcome in result] == [("torch",)] * 3
    assert result.best is None
    assert all(map(math.isnan, result.interval()))
    assert result.luck() is None
    shown = " ".join(str(result).split())
    assert "best" not in shown.replace("no seed is better", "")
    assert "interval" not in shown
    assert f"warning {' '.join(seeded.split())}" in shown


def test_values_that_partly_follow_keep_their_best_seed():
    result, [seeded] = told(seeds_python_alone)
    assert "seeds python, with another seed" in seeded
    assert result.best is not None
    assert not result.is_constant


def test_equal_values_are_told_where_nothing_is_seeded():
    result, [equal] = told(follows_nothing)
    assert "gave the value 7" in equal
    assert result.reseeded == ()


def test_a_function_that_passes_its_seed_on_is_not_told_of():
    result, texts = told(takes_the_seed)
    assert texts == []
    assert result.warnings() == []


def test_one_seed_is_never_all_equal():
    assert not sweep_of(1.0).is_constant
    assert sweep_of(1.0).best.value == 1.0


@pytest.mark.filterwarnings("ignore:the best seed may be only luck")
def test_workers_and_logs_keep_the_names(tmp_path):
    log = tmp_path / "runs.jsonl"
    with ProcessPoolExecutor(2) as pool:
        result, texts = told(seeds_itself, executor=pool, log=log)
    assert result.reseeded == ("torch",)
    assert len(texts) == 2
    assert [run.reseeded for run in RunLog(log)] == [["torch"]] * 3
    resumed, texts = told(seeds_itself, log=log)
    assert resumed.reseeded == ("torch",)
    assert len(texts) == 2


def test_the_commands_tell(tmp_path):
    (tmp_path / "work.py").write_text(
        "import torch\n"
        "def loss():\n    torch.manual_seed(42)\n    return torch.rand(())\n"
        "def seed(): return 1.0\n"
    )
    command = ["sweep", "work.py:loss", "--seeds", "3", "--log", "a.jsonl"]
    done = seedscope_command(*command, "--plot", "a.png", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning    in 3 of 3 runs the function itself seeds torch" in done.stdout
    assert "warning    all 3 seeds gave the value 0.882269" in done.stdout
    assert done.stderr == "seedscope: no plot was written: the values show nothing\n"
    done = seedscope_command(*command, "--json", cwd=tmp_path)
    assert [outcome["reseeded"] for outcome in json.loads(done.stdout)] == [["torch"]] * 3
    assert "the function itself seeds torch" in done.stderr
    assert "gave the value" in done.stderr
    done = seedscope_command("log", "--log", "a.jsonl", cwd=tmp_path)
    assert "seedscope: in 3 of 3 runs code of the run has seeded torch itself" in done.stderr
    done = seedscope_command("log", "--log", "a.jsonl", "--json", cwd=tmp_path)
    assert [run["reseeded"] for run in json.loads(done.stdout)] == [["torch"]] * 3
