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

from helpers import seedscope_command, sweep_of
from seedscope import RunLog, current_scope, derive_seed, seeded, sweep


def seeds_itself():
    torch.manual_seed(42)
    return torch.rand(())


def seeds_python_alone():
    random.seed(42)
    return random.random() + torch.rand(())


def takes_the_seed(seed):
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.rand(()) + np.random.rand()


def follows_nothing():
    return 7.0


def told(function, **options):
    """Return the sweep of three seeds and the texts of its warnings, without that of luck."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = sweep(function, 3, progress=False, **options)
    texts = [str(warning.message) for warning in found if warning.category is UserWarning]
    return result, [text for text in texts if "only luck" not in text]


def test_equal_values_are_no_finding():
    result, [seeded, equal] = told(seeds_itself)
    assert seeded.startswith("the function itself seeds torch with 42 in each run")
    assert equal.startswith("all 3 values are 0.882269")
    assert result.is_constant
    assert result.reseeded == {"torch": 42}
    assert [outcome.reseeded for outcome in result] == [{"torch": 42}] * 3
    assert result.best is None
    assert all(map(math.isnan, result.interval()))
    assert result.luck() is None
    shown = " ".join(str(result).split())
    assert "best" not in shown.replace("no seed is better", "")
    assert "interval" not in shown
    assert f"warning {' '.join(seeded.split())}" in shown


def test_values_that_partly_follow_keep_their_best_seed():
    result, [seeded] = told(seeds_python_alone)
    assert "seeds python with 42" in seeded
    assert result.best is not None
    assert not result.is_constant


def test_equal_values_are_told_where_nothing_is_seeded():
    result, [equal] = told(follows_nothing)
    assert "all 3 values are 7" in equal
    assert result.reseeded == {}


def test_a_function_that_passes_its_seed_on_is_not_told_of():
    result, texts = told(takes_the_seed)
    assert texts == []
    assert result.warnings() == []


def seed_plus_one(seed):
    torch.manual_seed(seed + 1)
    return torch.rand(())


def seed_derived():
    set_seed = random.seed
    set_seed(derive_seed(current_scope().seed, "model"))
    return random.random()


def seed_drawn():
    torch.manual_seed(torch.randint(2**31, ()).item())
    return torch.rand(())


@pytest.mark.parametrize("function", [seed_plus_one, seed_derived, seed_drawn])
def test_seeds_that_differ_from_run_to_run_may_follow(function):
    result, texts = told(function)
    assert texts == []
    assert all(outcome.reseeded for outcome in result)


def test_fresh_entropy_in_each_run_is_told():
    result, [text] = told(lambda: random.seed() or random.random(), name="fresh")
    assert "seeds python with fresh entropy" in text
    assert result.reseeded == {"python": None}


@seeded
def decorated():
    torch.manual_seed(42)
    return torch.rand(())


def helped():
    return decorated() + random.random()


def test_a_decorated_helper_does_not_hide_its_seed():
    _, [text] = told(helped)
    assert "seeds torch with 42" in text


def test_equal_values_beside_others_are_counted():
    result = sweep_of(1.0, 1.0, float("nan"))
    assert result.warnings()[0].startswith("all 2 finite values of 3 seeds are 1:")


@pytest.mark.parametrize("wrong", ["null", "5", "true", '["torch"]', '"torch"'])
def test_a_damaged_line_is_named_and_left_out(wrong, tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    told(seeds_itself, log=log)
    file = tmp_path / "runs.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"reseeded":{"torch":42}', f'"reseeded":{wrong}', 1))
    with pytest.warns(RuntimeWarning, match="line 1 is damaged .reseeded is"):
        assert len([*log]) == 2
    done = seedscope_command("log", "--log", str(file))
    assert done.returncode == 0
    assert "line 1 is damaged" in done.stderr


def test_one_seed_is_never_all_equal():
    assert not sweep_of(1.0).is_constant
    assert sweep_of(1.0).best.value == 1.0


@pytest.mark.filterwarnings("ignore:the best seed may be only luck")
def test_workers_and_logs_keep_the_names(tmp_path):
    log = tmp_path / "runs.jsonl"
    with ProcessPoolExecutor(2) as pool:
        result, texts = told(seeds_itself, executor=pool, log=log)
    assert result.reseeded == {"torch": 42}
    assert len(texts) == 2
    assert [run.reseeded for run in RunLog(log)] == [{"torch": 42}] * 3
    resumed, texts = told(seeds_itself, log=log)
    assert resumed.reseeded == {"torch": 42}
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
    assert "warning    the function itself seeds torch with 42 in each run" in done.stdout
    assert "warning    all 3 values are 0.882269" in done.stdout
    assert (
        "no plot was written: no seed gave a finite value, or all values are equal" in done.stderr
    )
    assert done.stderr.count("\n") == 1
    done = seedscope_command(*command, "--json", cwd=tmp_path)
    assert [outcome["reseeded"] for outcome in json.loads(done.stdout)] == [{"torch": 42}] * 3
    assert "the function itself seeds torch" in done.stderr
    assert "all 3 values are" in done.stderr
    done = seedscope_command("log", "--log", "a.jsonl", cwd=tmp_path)
    assert "seedscope: code in 3 of 3 runs has called a function that seeds torch" in done.stderr
    done = seedscope_command("log", "--log", "a.jsonl", "--json", cwd=tmp_path)
    assert [run["reseeded"] for run in json.loads(done.stdout)] == [{"torch": 42}] * 3
