"""Sources with seeds of their own: `seeded(seed, independent=True)`."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from helpers import lines
from seedscope import RunLog, current_scope, derive_seed, seeded, snapshot
from seedscope.replay import _options

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


def draw():
    """One value from each source of this machine."""
    values = random.random(), np.random.rand(), torch.rand(1).item()
    return *values, np.random.default_rng().random(), random.Random().random()


def flips(number=64):
    """Coins of NumPy and of torch, drawn alike."""
    return np.random.randint(2, size=number).tolist(), torch.randint(2, (number,)).tolist()


def test_numpy_and_torch_flip_the_same_coins_only_under_one_seed():
    with seeded(1029):
        ours, theirs = flips()
        assert ours == theirs
    with seeded(1029, independent=True):
        ours, theirs = flips()
        assert ours != theirs
    agreed = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert 16 < agreed < 48


def test_python_and_numpy_differ_also_under_a_large_seed():
    large = derive_seed(1029, "fold", 3)
    with seeded(large):
        assert random.random() == np.random.rand()
    with seeded(large, independent=True):
        assert random.random() != np.random.rand()


def test_independent_sources_repeat_and_leave_nothing_outside():
    before = snapshot()
    results = []
    for _ in range(2):
        with seeded(1029, independent=True) as scope:
            results.append(draw())
            assert scope.reseeded == ()
            assert {"python", "numpy", "torch", "unseeded"} <= {*scope.used()}
        assert before.changed(snapshot()) == ()
    assert results[0] == results[1]
    with seeded(1029) as scope:
        plain = draw()
    assert not set(plain) & set(results[0])


def test_a_block_that_draws_nothing_has_used_nothing():
    with seeded(1029, independent=True) as scope:
        assert scope.used() == ()
    assert scope.used() == ()


def test_a_source_has_the_same_seed_whichever_others_are_governed():
    with seeded(1029, independent=True):
        expected = torch.rand(3)
    with seeded(1029, independent=True, sources=["torch"]):
        assert torch.equal(torch.rand(3), expected)


def test_a_decorated_generator_resumes_with_its_own_sources():
    @seeded(1029, independent=True)
    def coins():
        while True:
            yield flips(8)

    one, other = coins(), coins()
    pairs = [(next(one), next(other)) for _ in range(3)]
    assert all(a == b for a, b in pairs)
    assert pairs[0] != pairs[1]


def test_other_codes_seed_is_told_and_the_scopes_own_is_not():
    with seeded(1029, independent=True) as scope:
        torch.manual_seed(scope.seed)
        assert scope.reseeded == ()
        torch.manual_seed(42)
        assert scope.reseeded == ("torch",)
        assert current_scope() is scope


def test_a_seed_that_the_scope_gave_a_source_is_its_own():
    with seeded(5, independent=True) as scope:
        np.random.seed(torch.initial_seed() % 2**32)
        assert scope.reseeded == ()
        np.random.seed(7)
        assert scope.reseeded == ("numpy",)


def test_the_log_keeps_the_option_and_a_replay_honours_it(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    with seeded(1029, independent=True, log=log):
        torch.rand(1)
    with seeded(1029, log=log):
        torch.rand(1)
    independent, plain = log
    assert independent.options["independent"] is True
    assert _options(independent).independent is True
    assert "independent" not in plain.options, "as in the logs of earlier versions"
    assert _options(plain).independent is False
    assert lines(log)[0]["options"]["independent"] is True


@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_independent_is_true_or_false(value):
    with pytest.raises(ValueError, match="independent must be True or False"):
        seeded(1029, independent=value)
