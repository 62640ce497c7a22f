from __future__ import annotations

import enum
import secrets

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import run_python
from seedscope import Stream, derive_seed, fresh_seed, seeded, snapshot

SEEDS = st.integers(0, 2**64 - 1)


class Fixed(enum.IntEnum):
    BEST = 1029


@pytest.mark.parametrize(
    "seed",
    [
        1029,
        np.int64(1029),
        np.uint8(5),
        np.array(1029),
        torch.tensor(1029),
        torch.tensor(5, dtype=torch.uint8),
        Fixed.BEST,
        0,
        2**64 - 1,
        np.uint64(2**64 - 1),
    ],
)
def test_integers_of_every_type_are_seeds(seed):
    with seeded(seed) as scope:
        assert scope.seed == int(seed)
        assert type(scope.seed) is int


@pytest.mark.parametrize(
    ("seed", "error", "says"),
    [
        (True, TypeError, "got True (bool)"),
        (np.bool_(True), TypeError, "bool"),
        (torch.tensor(True), TypeError, "tensor(True)"),
        (1029.0, TypeError, "got 1029.0 (float)"),
        (np.float64(3), TypeError, "float64"),
        ("1029", TypeError, "got '1029' (str)"),
        ([1029], TypeError, "got [1029] (list)"),
        (np.array([1029]), TypeError, "ndarray"),
        (torch.tensor([1029]), TypeError, "Tensor"),
        (torch.tensor(1.5), TypeError, "Tensor"),
        (-1, ValueError, "[0, 2**64), got -1; seedscope.fresh_seed() draws one"),
        (2**64, ValueError, f"got {2**64}"),
        pytest.param(10**5000, ValueError, "got <integer of 16610 bits>", id="5000 digits"),
    ],
)
@pytest.mark.parametrize("takes_a_seed", [seeded, Stream, derive_seed])
def test_other_seeds_are_refused_before_anything_is_touched(takes_a_seed, seed, error, says):
    before = snapshot()
    with pytest.raises(error) as raised:
        takes_a_seed(seed)
    assert says in str(raised.value)
    assert snapshot() == before


def test_fresh_seeds_differ_and_move_no_generator():
    before = snapshot()
    with seeded(1):
        seeds = {fresh_seed() for _ in range(1000)}
    with seeded(1):
        again = {fresh_seed() for _ in range(1000)}
    assert len(seeds | again) > 1990
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert snapshot() == before


def test_fresh_seeds_come_from_secrets(monkeypatch):
    monkeypatch.setattr(secrets, "randbits", lambda bits: 2**bits - 1)
    assert fresh_seed() == 2**32 - 1


# These values must never change: a change breaks every result that people have saved.
GOLDEN = {
    (0,): 16890959929428562739,
    (1029,): 17791585791823816743,
    (1029, 1): 15727657140576454435,
    (1029, "1"): 13332739309577064452,
    (1029, "ab"): 16271018350487113418,
    (1029, "a", "b"): 13103203904057692502,
    (1029, -1): 14955910360535400465,
    (1029, 2**70): 13459041122522746812,
    (2**64 - 1, "größe", 0): 9087369653308472168,
    (1029, ""): 12789599935945516460,
}


@pytest.mark.parametrize(("arguments", "seed"), GOLDEN.items(), ids=str)
def test_derived_seeds_are_the_golden_values(arguments, seed):
    assert derive_seed(*arguments) == seed


def test_derived_seeds_are_the_same_in_another_process():
    code = "from seedscope import derive_seed; print(derive_seed(1029, 'fold', 3))"
    assert int(run_python(code)) == derive_seed(1029, "fold", 3)


def test_a_million_keys_give_a_million_seeds():
    assert len({derive_seed(1029, key) for key in range(1_000_000)}) == 1_000_000


@given(SEEDS, st.lists(st.one_of(st.integers(), st.text()), max_size=4))
def test_derived_seeds_depend_on_the_type_and_grouping_of_keys(seed, keys):
    derived = derive_seed(seed, *keys)
    assert 0 <= derived < 2**64
    assert derive_seed(derived) != derived
    others = [
        [*keys, 0],
        [*keys, ""],
        [0, *keys],
        [str(key) for key in keys],
        ["".join(map(str, keys))],
    ]
    for other in others:
        if other != keys:
            assert derive_seed(seed, *other) != derived


@pytest.mark.parametrize("key", [1.5, None, True, b"bytes", (1, 2)])
def test_keys_are_integers_and_strings(key):
    with pytest.raises(TypeError, match="key must be an integer"):
        derive_seed(1029, key)


def test_a_scope_derives_from_its_own_seed():
    with seeded(1029) as scope:
        assert scope.derive("fold", 3) == derive_seed(1029, "fold", 3)
