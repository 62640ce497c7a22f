"""The statistics of a sweep's values, and luck."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from helpers import sweep_of
from seedscope import sweep
from seedscope.sweeps.luck import Luck

pytestmark = pytest.mark.filterwarnings("ignore:the best seed may be only luck")


def test_statistics_are_those_of_the_values():
    values = [0.5, 0.25, 1.0, 0.75, 0.125]
    result = sweep_of(*values)
    assert result.mean == statistics.mean(values)
    assert result.deviation == pytest.approx(statistics.stdev(values))
    assert result.quantiles([0, 0.5, 1]) == {0: 0.125, 0.5: 0.5, 1: 1.0}
    assert result.best.seed == 2
    assert sweep_of(*values, best="min").best.seed == 4
    one = sweep_of(0.5)
    assert one.mean == 0.5
    assert np.isnan(one.deviation)
    assert np.isnan(one.interval()[0])
    assert one.luck() is None
    assert sweep_of(1, 1, 1).luck() is None


def test_the_interval_of_the_mean_is_scipys_bootstrap():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.Generator(np.random.PCG64(5)).normal(3, 2, 60)
    low, high = sweep_of(*values).interval(0.9)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=0.9,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.Generator(np.random.PCG64(6)),
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.03)
    assert high == pytest.approx(theirs.high, abs=0.03)
    assert sweep_of(*values).interval() == sweep_of(*values).interval()


def test_luck_is_measured_against_the_best_of_as_many_draws():
    # The expected best of n draws, by simulation.
    generator = np.random.Generator(np.random.PCG64(5))
    for n in (5, 100):
        values = generator.normal(10, 2, n)
        luck = sweep_of(*values).luck()
        draws = generator.normal(values.mean(), values.std(ddof=1), (20_000, n)).max(axis=1)
        assert luck.expected == pytest.approx(np.median(draws), abs=0.08)
        assert luck.chance == pytest.approx((draws >= values.max()).mean(), abs=0.02)
        assert luck.distance == pytest.approx(
            (values.max() - np.median(draws)) / values.std(ddof=1), abs=0.05
        )
        mirrored = sweep_of(*-values, best="min").luck()
        assert mirrored == Luck(n, -luck.expected, luck.distance, luck.chance, luck.skewness)


def test_luck_is_reported_only_when_it_explains_the_best_seed():
    generator = np.random.Generator(np.random.PCG64(5))
    ordinary = generator.normal(10, 2, 50)
    assert sweep_of(*ordinary).luck().is_all
    assert "nothing says that" in " ".join(str(sweep_of(*ordinary)).split())
    outstanding = sweep_of(*ordinary, 30.0)
    assert not outstanding.luck().is_all
    assert "nothing says" not in " ".join(str(outstanding).split())
    values = iter(ordinary)
    with pytest.warns(UserWarning, match="the best seed may be only luck: the best of 50 draws"):
        sweep(lambda: next(values), 50)


def test_the_comparison_of_skewed_values_is_called_rough():
    generator = np.random.Generator(np.random.PCG64(5))
    assert "so this comparison is a rough guide" in " ".join(
        str(sweep_of(*generator.exponential(1, 200))).split()
    )
    assert "rough guide" not in str(sweep_of(*generator.normal(0, 1, 200)))


def test_ordinary_seeds_rarely_look_like_more_than_luck():
    generator = np.random.Generator(np.random.PCG64(5))
    for n in (3, 5, 10, 100):
        alarms = sum(not sweep_of(*generator.normal(0, 1, n)).luck().is_all for _ in range(300))
        assert alarms <= 24  # 15 would be one time in 20


def test_the_quantiles_of_a_sweep_are_those_of_a_box_with_its_tails():
    result = sweep_of(*range(101))
    shares = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    assert result.quantiles() == pytest.approx({share: 100 * share for share in shares})
