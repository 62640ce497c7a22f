"""Resampling: its size, its values, and that it repeats."""

from __future__ import annotations

import numpy as np
import pytest

from seedscope.support import bootstrap
from seedscope.support.bootstrap import Bootstrap, interval


def test_each_call_gives_the_same_statistics_even_in_pieces(monkeypatch):
    values = np.arange(7.0)
    whole = Bootstrap().statistics(values, np.mean, 10)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 21)  # three resamples at a time, then the last
    assert Bootstrap().statistics(values, np.mean, 10).tolist() == whole.tolist()
    assert len(whole) == 10


def test_a_resample_holds_only_the_values_and_as_many():
    seen = []
    Bootstrap().statistics(
        np.array([3.0, 5.0]), lambda drawn, axis: seen.append(drawn) or drawn, 50
    )
    (drawn,) = seen
    assert drawn.shape == (50, 2)
    assert set(drawn.flat) == {3.0, 5.0}


def test_the_global_generator_does_not_move():
    before = np.random.get_state()[1].tolist()
    Bootstrap().statistics(np.arange(3.0), np.median, 5)
    assert np.random.get_state()[1].tolist() == before


def test_an_interval_encloses_the_share():
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
