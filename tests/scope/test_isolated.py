"""`isolated` seeds nothing and restores everything; `current_scope` is the innermost scope."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from helpers import draw, run_in_thread
from seedscope import ScopeConflictError, current_scope, isolated, seeded, snapshot


def code_that_seeds(seed=42):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = True
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.fixture
def outer():
    """A seeded block around the test, so that its draws are known."""
    with seeded(1029, deterministic=False):
        yield


def test_code_that_seeds_leaves_no_trace(outer):
    before = snapshot()
    with isolated() as nothing:
        assert nothing is None
        values = code_that_seeds()
        assert torch.are_deterministic_algorithms_enabled()
    assert snapshot() == before
    assert values == code_that_seeds()
    before.restore()


def test_the_block_begins_with_the_callers_numbers(outer):
    before = snapshot()
    expected = draw()
    before.restore()
    with isolated():
        assert draw() == expected
    assert draw() == expected


@pytest.mark.parametrize("make", [isolated, lambda: isolated(sources=["python"])])
def test_it_changes_no_setting(make, the_outer_state_is_intact):
    before = snapshot()
    with make():
        assert snapshot() == before


def test_it_needs_no_scope_around(the_outer_state_is_intact):
    with isolated():
        code_that_seeds()
        assert current_scope() is None
    with pytest.raises(ZeroDivisionError), isolated():
        code_that_seeds(1 // 0)


def test_it_decorates_functions_and_generators(outer):
    before = snapshot()

    @isolated
    def function(x, *, y=1):
        return code_that_seeds()[0] + 0 * x * y

    @isolated(sources=["python"])
    def of_python():
        random.random()
        return torch.rand(1).item()

    @isolated()
    def generator():
        random.seed(42)
        torch.backends.cudnn.benchmark = True
        while True:
            yield random.random(), torch.backends.cudnn.benchmark

    assert function(2, y=3) == random.Random(42).random()
    running, expected = generator(), random.Random(42)
    for _ in range(3):  # goes on where it stopped, as in a `with` around the body
        assert next(running) == (expected.random(), True)
        assert snapshot() == before
    of_python()
    assert before.changed(snapshot()) == ("torch",)
    before.restore()


def test_it_governs_only_its_sources(outer):
    before = snapshot()
    with isolated(sources=["torch"]):
        draw()
    assert "python" in before.changed(snapshot())
    assert "torch" not in before.changed(snapshot())
    before.restore()
    with pytest.raises(ValueError, match="dice"):
        isolated(sources=["dice"])


def test_a_second_thread_is_refused_or_waits():
    def enter(**options):
        with isolated(**options):
            return True

    with isolated(), pytest.raises(ScopeConflictError, match="isolated block"):
        run_in_thread(enter)
    assert run_in_thread(lambda: enter(threads="wait"))


def test_a_seed_is_refused():
    with pytest.raises(TypeError, match="takes no seed"):
        isolated(1029)
    with pytest.raises(TypeError):
        isolated(seed=1029)


def test_it_can_be_entered_inside_itself(outer):
    before, block = snapshot(), isolated()
    with block:
        random.random()
        inside = snapshot()
        with block:
            random.random()
        assert snapshot() == inside
    assert snapshot() == before
    with pytest.raises(RuntimeError, match="without having been entered"):
        block.__exit__(None, None, None)


def test_code_that_seeds_in_isolation_has_not_reseeded_the_scope():
    with seeded(1029) as scope:
        with isolated():
            code_that_seeds()
        assert scope.reseeded == ()
    assert scope.reseeded == ()


def test_fresh_scopes_in_isolation_are_those_of_the_scope_around():
    with seeded(1029):
        with isolated(), seeded() as first:
            pass
        with seeded() as second:
            assert first.seed == second.seed


def test_current_scope_is_the_innermost_one(tmp_path):
    assert current_scope() is None
    with seeded(1) as outer:
        assert current_scope() is outer
        with seeded(2) as inner:
            assert current_scope() is inner
            assert current_scope().derive("fold", 3) == inner.derive("fold", 3)
            with isolated():
                assert current_scope() is inner
        assert current_scope() is outer
        seeded(3)(lambda: current_scope().seed == 3 or pytest.fail("another scope"))()
    assert current_scope() is None
