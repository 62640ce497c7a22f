"""`sweep` in one process: what a seed gets, and what a failure costs."""

from __future__ import annotations

import asyncio
import functools
import io
import math
import pickle
import re
import sys
import warnings

import numpy as np
import pytest
import torch

from helpers import table
from seedscope import RunLog, SweepBroken, SweepInterrupted, seeded, snapshot, sweep
from seedscope.sweeps.job import Job
from seedscope.sweeps.result import Outcome
from sweep_functions import draws, not_a_number, sometimes_fails, tensor

pytestmark = pytest.mark.filterwarnings("ignore:the best seed may be only luck")


def test_each_seed_has_its_own_scope_and_changes_nothing_outside():
    before = snapshot()
    result = sweep(draws, range(5, 8))
    assert before.changed(snapshot()) == ()
    for outcome in result:
        with seeded(outcome.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert outcome.value == draws()
        assert outcome.error is None
        assert outcome.duration > 0
    assert [o.seed for o in result] == [5, 6, 7]
    assert len(result) == 3


@pytest.mark.filterwarnings("ignore:all . values are")
def test_a_function_gets_the_seed_if_it_takes_a_seed():
    def with_default(seed=7):
        return seed

    def optional(rate=0.5):
        return rate

    assert [o.value for o in sweep(lambda s: s, 3)] == [0, 1, 2]
    assert [o.value for o in sweep(with_default, 3)] == [0, 1, 2]
    assert [o.value for o in sweep(optional, 3)] == [0.5] * 3

    def second(rate, seed=0):
        return rate * 100 + seed

    def by_name_alone(rate=0.5, *, seed=7):
        return seed

    assert [o.value for o in sweep(functools.partial(pow, 2), 3)] == [1, 2, 4]
    assert [o.value for o in sweep(by_name_alone, 3)] == [0, 1, 2]
    assert [o.value for o in sweep(functools.partial(second, rate=1), 3)] == [100, 101, 102]
    with pytest.raises(TypeError, match=r"or fn\(\): missing a required argument: 'rate'"):
        sweep(second, 3)


def test_values_keep_their_type():
    result = sweep(tensor, [3])
    assert isinstance(result[0].value, torch.Tensor)
    with seeded(3):
        assert torch.equal(result[0].value, tensor(3))


@pytest.mark.parametrize("seeds", [0, [], [1, 1], -1, [-1], [0.5], "12", True, None])
def test_wrong_seeds_are_refused_before_anything_runs(seeds):
    ran = []
    with pytest.raises((TypeError, ValueError)):
        sweep(lambda: ran.append(1), seeds)
    assert not ran


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"fn": 3}, "expected a function, got 3"),
        ({"fn": lambda a, b: 1}, "must be callable as fn(seed) or fn(): "),
        ({"fn": draws, "best": "most"}, 'best must be "min" or "max", got \'most\''),
        ({"fn": draws, "deterministic": "very"}, "deterministic must be"),
        ({"fn": draws, "threads": 0}, "threads must be a positive integer, got 0"),
        ({"fn": lambda: 1, "log": "x.jsonl"}, "the log needs a name for <function"),
    ],
)
def test_wrong_arguments_are_refused(arguments, says):
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        sweep(**arguments)


def test_a_seed_that_raises_keeps_its_traceback_and_others_run():
    with pytest.warns(UserWarning, match="2 of 8 seeds failed, the first is 3:\nTraceback"):
        result = sweep(sometimes_fails, 8, best="max")
    assert [o.seed for o in result.failed] == [3, 7]
    assert "diverged at seed 3" in result.failed[0].error
    assert "sometimes_fails" in result.failed[0].error
    assert result.best == Outcome(5, 5.0, None, result[5].duration)
    assert result.values.tolist() == [0, 1, 4, 5]
    assert "failed     2; seed 3: ValueError: diverged at seed 3" in str(result)
    assert "not finite 2, left out below" in str(result)


def test_a_value_that_is_not_a_number_is_the_seeds_error():
    with pytest.warns(UserWarning, match="must return a number, got '0.5'"):
        result = sweep(not_a_number, 2)
    assert len(result.failed) == 2
    assert result.best is None
    assert "best" not in str(result)


@pytest.mark.parametrize("wrong", [10**400, asyncio.CancelledError(), SystemExit(3), math.inf])
def test_no_seed_costs_the_others_their_results(wrong):
    def run(seed):
        if seed != 1:
            return float(seed)
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sweep(run, 4)
    assert result.values.tolist() == [0, 2, 3]
    assert len(result.failed) == (wrong != math.inf)
    assert np.isfinite([result.mean, *result.interval(), *result.quantiles().values()]).all()
    assert "not finite 1" in str(result) or wrong != math.inf


def test_ctrl_c_keeps_the_finished_seeds_and_leaves_the_scope():
    def stopped(seed):
        if seed == 3:
            raise KeyboardInterrupt
        return seed

    before = snapshot()
    with pytest.raises(SweepInterrupted, match="stopped after 3 seeds") as caught:
        sweep(stopped, 10)
    assert before.changed(snapshot()) == ()
    assert [o.value for o in caught.value.sweep] == [0, 1, 2]
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("kind", [SweepInterrupted, SweepBroken])
def test_an_ended_sweep_travels_between_processes(kind):
    error = kind("stopped after 2 seeds", sweep(lambda seed: float(seed), 2))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "stopped after 2 seeds"
    assert table(again.sweep) == [(0, 0.0, None), (1, 1.0, None)]


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_sweep_needs_no_standard_error(monkeypatch, stream):
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert sweep(lambda seed: float(seed), 3).values.tolist() == [0, 1, 2]


def test_an_error_of_a_users_log_is_not_said_to_be_an_executors(tmp_path):
    class Broken(RunLog):
        def append(self, event, run):
            raise KeyError("my log")

    with pytest.raises(KeyError, match="my log"):
        sweep(draws, 3, log=Broken(tmp_path / "runs.jsonl"))


def test_an_error_without_an_executor_is_raised_as_it_is(monkeypatch):
    def fails(job, seed):
        raise OSError("of this process")

    monkeypatch.setattr(Job, "__call__", fails)
    with pytest.raises(OSError, match="of this process"):
        sweep(draws, 3)


def test_a_sweep_runs_inside_a_scope_and_inside_a_sweep():
    def inner(seed):
        return sweep(lambda: torch.rand(1).item(), [seed, seed + 100]).mean

    with seeded(1):
        expected = torch.rand(1).item()
    with seeded(1):
        first = sweep(inner, 3)
        assert torch.rand(1).item() == expected
    assert table(first) == table(sweep(inner, 3))
