"""Blocks: what they repeat, what they refuse, and the order in which they are left."""

from __future__ import annotations

import gc
import random
import weakref

import numpy as np
import pytest
import torch

from helpers import Lottery, draw, run_python
from seedscope import (
    RestoreError,
    ScopeConflictError,
    Source,
    Stream,
    register_source,
    seeded,
    snapshot,
)


def test_a_block_repeats_and_leaves_nothing_behind():
    before = snapshot()
    with seeded(1029) as scope:
        first = draw()
        assert scope.seed == 1029
    assert snapshot().changed(before) == ("fake",), "only the device that the block started differs"
    with seeded(1029):
        assert draw() == first


def test_each_entry_restarts_the_stream_even_inside_itself():
    scope = seeded(1029)
    with scope:
        first = draw()
        with scope:
            assert draw() == first
        continued = draw()
    with scope:
        assert (draw(), draw()) == (first, continued)


@pytest.mark.parametrize("make", [seeded, Stream])
def test_a_scope_without_a_log_has_no_run(make):
    with make(1029) as scope:
        assert scope.run_id is None
        assert scope.recorder is None
        scope.note(loss=0.5)
    assert scope.run_id is None


def test_each_entry_without_a_seed_draws_a_seed_that_replays():
    scope = seeded()
    with scope as a:
        drawn = draw()
    with scope as b:
        assert draw() != drawn
    assert a.seed != b.seed
    with seeded(a.seed):
        assert draw() == drawn


def test_the_outer_state_comes_back_when_the_block_raises():
    def draw_and_set_and_raise(error):
        random.random(), np.random.rand(), torch.rand(1)
        torch.backends.cudnn.benchmark = True
        raise error

    before = snapshot()
    for error in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration):
        with pytest.raises(error), seeded(1029):
            draw_and_set_and_raise(error)
        assert snapshot() == before


@pytest.mark.skipif(
    not hasattr(torch._C._dynamo.eval_frame, "set_code_exec_strategy"),
    reason="before torch 2.7 the compiler has to be imported to be kept out",
)
def test_entry_imports_no_compiler_and_starts_no_device():
    run_python(
        """
import sys, torch, numpy
from seedscope import seeded, snapshot
with seeded(1029) as scope:
    scope.used(), snapshot()
heavy = {"torch._inductor.config", "torch._dynamo", "matplotlib", "rich", "sklearn"}
assert not heavy & set(sys.modules)
assert not torch.cuda.is_initialized()
"""
    )


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"deterministic": "yes"}, ValueError, 'True, "warn", "cudnn" or False, got \'yes\''),
        ({"deterministic": 1}, ValueError, "got 1"),
        ({"deterministic": None}, ValueError, "got None"),
        ({"deterministic": []}, ValueError, r"got \[\]"),
        ({"fill_uninitialized_memory": "no"}, ValueError, "got 'no'"),
        ({"fill_uninitialized_memory": 1}, ValueError, "got 1"),
        ({"threads": "run"}, ValueError, '"raise" or "wait", got \'run\''),
        ({"sources": ["torch", "jax"]}, ValueError, r"unknown sources \['jax'\]; registered"),
        ({"sources": "torch"}, TypeError, r'such as \["torch"\], got \'torch\''),
        ({"sources": 3}, TypeError, "got 3"),
        ({"determinstic": True}, TypeError, "determinstic"),
    ],
)
@pytest.mark.parametrize("make", [seeded, Stream])
def test_wrong_options_are_refused_before_anything_is_touched(make, options, error, says):
    before = snapshot()
    with pytest.raises(error, match=says):
        make(1029, **options)
    assert snapshot() == before


def test_leaving_without_having_entered_is_an_error():
    before = snapshot()
    with pytest.raises(RuntimeError, match="without having been entered"):
        seeded(1029).__exit__(None, None, None)
    with seeded(1) as scope:
        pass
    with pytest.raises(RuntimeError, match="without having been entered"):
        scope.__exit__(None, None, None)
    assert snapshot() == before


def test_one_opened_scope_cannot_be_entered_again():
    with seeded(1) as scope, pytest.raises(ScopeConflictError, match="already open"):
        scope.__enter__()


def test_scopes_left_out_of_order_lose_nothing_and_say_so():
    before = snapshot()
    first, second = seeded(1), seeded(2)
    first.__enter__()
    random.random()
    second.__enter__()
    with pytest.raises(ScopeConflictError, match="was left while"):
        first.__exit__(None, None, None)
    with seeded(2):
        expected = random.random()
    assert random.random() == expected, "the scope that is still open continues undisturbed"
    second.__exit__(None, None, None)
    assert snapshot() == before


def test_scopes_of_other_sources_left_out_of_order_lose_nothing():
    before = snapshot()
    outer = seeded(1, sources=["python", "torch"])
    inner = seeded(2, sources=["torch", "numpy"], deterministic=False)
    outer.__enter__()
    inner.__enter__()
    random.random(), np.random.rand(), torch.rand(1)
    with pytest.raises(ScopeConflictError):
        outer.__exit__(None, None, None)
    assert set(before.changed(snapshot())) >= {"numpy", "torch"}
    assert "python" not in before.changed(snapshot())
    inner.__exit__(None, None, None)
    assert snapshot() == before


def test_restore_errors_carry_all_failures_and_the_blocks_error(monkeypatch):
    from seedscope.sources.registry import select_sources

    [python] = select_sources(["python"])
    before = snapshot()

    def break_and_raise(patch):
        patch.setattr(python, "restore", lambda state: 1 / 0)
        raise ValueError("mine")

    with pytest.raises(RestoreError) as raised, monkeypatch.context() as patch, seeded(1029):
        break_and_raise(patch)
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]
    assert isinstance(raised.value.__context__, ValueError)
    assert before.changed(snapshot()) == ("python",), "all other sources came back"
    before.restore()


class Failing(Lottery, Source):
    name = "failing"

    def __init__(self, failures):
        super().__init__()
        self.failures = failures

    def restore(self, state):
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("no such device")


def run_in_a_with():
    with seeded(1029):
        pass


@seeded(1029)
def run_a_generator():
    yield


@pytest.mark.parametrize("run", [run_in_a_with, seeded(1029)(draw), lambda: [*run_a_generator()]])
@pytest.mark.parametrize("failures", [1, 3])
def test_an_error_of_an_exit_keeps_nothing_of_its_caller_alive(run, failures):
    """It would keep the tensors of the caller until the next garbage collection."""

    def caller():
        big = torch.empty(1)
        with pytest.raises((OSError, RestoreError)):
            run()
        return weakref.ref(big)

    unregister = register_source(Failing(failures))
    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
        unregister()
