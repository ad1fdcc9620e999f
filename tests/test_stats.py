"""Intervals against published values, and their coverage."""

import numpy as np
import pytest

from sslrob.stats import bootstrap, holm, mcnemar, paired_bootstrap, paired_shares, replicates, wilson


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
    for n in range(1, 500):  # rounding must leave no share outside its interval
        assert wilson(0, n)[0] == 0.0
        assert wilson(n, n)[1] == 1.0


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


# Whether two of them differ


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 0, 1.0), (0, 5, 2 / 32), (1, 1, 1.0), (0, 1, 1.0), (2, 8, 2 * 56 / 1024)])
def test_mcnemar_in_closed_form(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a) == pytest.approx(p)


def test_mcnemar_is_the_binomial_test_of_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    for only_a, only_b in ((3, 17), (40, 60), (0, 30), (700, 512)):
        assert mcnemar(only_a, only_b) == pytest.approx(scipy_stats.binomtest(only_a, only_a + only_b, 0.5).pvalue, rel=1e-9)


def test_paired_shares_say_which_way_and_are_symmetric():
    a, b = np.arange(50) < 40, np.arange(50) % 2 == 0
    ab, ba = paired_shares(a, b), paired_shares(b, a)
    assert ab.value == pytest.approx(0.3)
    assert (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low))
    assert -1 <= ab.low < ab.value < ab.high <= 1
    assert ab.p == ba.p == mcnemar(20, 5)


def test_paired_shares_of_the_same_and_of_nothing():
    same = np.arange(30) < 12
    found = paired_shares(same, same)
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert found.p == 1
    assert paired_shares([], []) == (0.0, -1.0, 1.0, 1.0)


def test_paired_shares_cover_the_truth_about_95_times_in_100():
    """Two victims of 100 images whose verdicts go together: both follow the image's own difficulty."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        hardness = rng.random(100)
        a, b = (0.3 * rng.random(100) + 0.7 * hardness < limit for limit in (0.65, 0.5))
        found = paired_shares(a, b)
        truth = _below(0.65) - _below(0.5)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 1000 <= 0.985


def _below(limit: float) -> float:
    """How often 0.3 u + 0.7 v < limit for u and v uniform in [0, 1], for limits in [0.3, 0.7]: an area under a trapezium."""
    return (limit - 0.15) / 0.7


def drawn(values, seed=0):
    return replicates(mean_of(values), len(values), draws=2000, seed=seed)["mean"]


def test_paired_bootstrap_sees_a_small_but_steady_difference():
    """What differs by 0.1 on every image does so surely, though the images differ by far more: pairing takes their part away."""
    rng = np.random.default_rng(0)
    b = rng.normal(50, 20, 200)
    a = b + rng.normal(0.1, 0.05, 200)
    found = paired_bootstrap(a.mean(), b.mean(), drawn(a), drawn(b))
    assert found.low > 0
    assert found.p == pytest.approx(2 / 2001)
    assert found.high - found.low == pytest.approx(2 * 1.96 * (a - b).std() / 200**0.5, rel=0.1)
    unpaired = paired_bootstrap(a.mean(), b.mean(), drawn(a), drawn(b, seed=1))
    assert unpaired.low < 0 < unpaired.high


def test_paired_bootstrap_of_no_difference_errs_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(300):
        a, b = rng.normal(0, 1, (2, 60))
        weights = rng.multinomial(60, np.full(60, 1 / 60), size=400) / 60
        false += paired_bootstrap(a.mean(), b.mean(), weights @ a, weights @ b).p < 0.05
    assert 0.02 <= false / 300 <= 0.1


def test_paired_bootstrap_of_the_same():
    same = drawn(np.arange(20.0))
    assert paired_bootstrap(9.5, 9.5, same, same) == (0.0, 0.0, 0.0, 1.0)


def test_holm_by_hand():
    """Sorted, the smallest is taken m times, the next m − 1 times; no adjusted value is below one before it."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.5}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert holm({}) == {}
    assert holm({"alone": 0.04}) == {"alone": 0.04}
