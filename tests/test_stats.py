"""Intervals against published values, and their coverage."""

import numpy as np
import pytest

from sslrob.stats import bootstrap, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_as_published(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(20, 20)
    assert high == 1.0
    assert low == pytest.approx(1 - wilson(0, 20)[1])
    assert wilson(0, 5)[0] == 0.0


def mean_of(values):
    return lambda weights: {"mean": float(weights @ values / weights.sum())}


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    """A little less by theory: percentile intervals of 100 values and 300 draws are a few percent too narrow."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = bootstrap(mean_of(rng.normal(3.0, 2.0, size=100)), 100)["mean"]
        hits += low <= 3.0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_bootstrap_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(0.0, 1.0, size=400)
    low, high = bootstrap(mean_of(values), 400, draws=2000)["mean"]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    assert low < values.mean() < high


def test_bootstrap_repeats():
    values = np.arange(30.0)
    assert bootstrap(mean_of(values), 30) == bootstrap(mean_of(values), 30) != bootstrap(mean_of(values), 30, seed=1)


def test_bootstrap_leaves_out_draws_that_a_metric_does_not_define():
    """A class that only the first image shows is missing from a third of the draws."""

    def aggregate(weights):
        return {"all": float(weights.mean()), "rare": 50.0 if weights[0] else float("nan"), "never": float("nan")}

    intervals = bootstrap(aggregate, 10)
    assert intervals["rare"] == (50.0, 50.0)
    assert set(intervals) == {"all", "rare"}


def test_bootstrap_of_nothing():
    assert bootstrap(mean_of(np.zeros(0)), 0) == {}
