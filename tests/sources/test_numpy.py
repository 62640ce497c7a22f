"""Seeds give what each library gives, and NumPy's generators of every kind come back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedscope import Snapshot, seeded, snapshot


@pytest.fixture(params=["PCG64", "Philox", "SFC64", "MT19937"])
def bit_generator(request):
    original = np.random.get_bit_generator()
    state = np.random.get_state(legacy=False)
    mine = getattr(np.random, request.param)(5)
    np.random.set_bit_generator(mine)
    yield mine
    np.random.set_bit_generator(original)
    np.random.set_state(state)


@given(st.integers(0, 2**64 - 1))
def test_seeds_give_what_each_library_gives(seed):
    with seeded(seed):
        got = random.random(), torch.rand(1).item()
        numpy_got = np.random.rand()
    assert got == (
        random.Random(seed).random(),
        torch.rand(1, generator=torch.Generator().manual_seed(seed)).item(),
    )
    words = seed if seed < 2**32 else [seed % 2**32, seed // 2**32]
    assert numpy_got == np.random.RandomState(words).rand()


def test_seeds_above_32_bits_stay_distinct_for_numpy():
    values = set()
    for seed in (5, 5 + 2**32, 5 + 2**33, 5 + 2**63):
        with seeded(seed):
            values.add(np.random.rand())
    assert len(values) == 4


@pytest.mark.parametrize("draws_before", [0, 1, 2])
@pytest.mark.parametrize("draws_inside", [0, 1, 2])
def test_numpys_cached_gaussian_comes_back(draws_before, draws_inside):
    outer = snapshot()
    for _ in range(draws_before):
        np.random.standard_normal()
    reference = np.random.get_state(legacy=False)
    assert reference["has_gauss"] == draws_before % 2
    with seeded(1029):
        assert np.random.get_state(legacy=False)["has_gauss"] == 0
        for _ in range(draws_inside):
            np.random.standard_normal()
    now = np.random.get_state(legacy=False)
    assert now["gauss"] == reference["gauss"]
    assert now["has_gauss"] == reference["has_gauss"]
    assert now["state"]["pos"] == reference["state"]["pos"]
    assert now["state"]["key"].tolist() == reference["state"]["key"].tolist()
    outer.restore()


@pytest.mark.parametrize("cached", [0, 1])
def test_any_bit_generator_is_seeded_and_restored_in_place(bit_generator, cached):
    for _ in range(cached):
        np.random.standard_normal()
    user = np.random.Generator(bit_generator)
    before, reference = snapshot(), np.random.get_state(legacy=False)
    with seeded(1029):
        first = np.random.rand(), np.random.standard_normal(), user.random()
    with seeded(1029):
        assert (np.random.rand(), np.random.standard_normal(), user.random()) == first
    assert np.random.get_bit_generator() is bit_generator
    assert snapshot() == before
    assert str(np.random.get_state(legacy=False)) == str(reference)


def test_a_bit_generator_that_the_block_replaces_comes_back(bit_generator):
    np.random.standard_normal()
    before = snapshot()
    with seeded(1029):
        np.random.set_bit_generator(np.random.PCG64(3))
        np.random.rand()
    assert np.random.get_bit_generator() is bit_generator
    assert snapshot() == before


def test_a_saved_bit_generator_of_another_kind_is_made_again(bit_generator):
    np.random.standard_normal()
    saved = snapshot().state_dict()
    expected = np.random.standard_normal(), np.random.rand()
    np.random.set_bit_generator(np.random.MT19937(0))
    Snapshot.from_state_dict(saved).restore()
    assert type(np.random.get_bit_generator()) is type(bit_generator)
    assert (np.random.standard_normal(), np.random.rand()) == expected
