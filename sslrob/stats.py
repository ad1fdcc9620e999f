"""How sure a number is, and whether two of them differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import comb, isfinite, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


class Difference(NamedTuple):
    """A minus B on the same images: its value, its 95 % interval, and the p-value of there being none, two-sided."""

    value: float
    low: float
    high: float
    p: float


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), in [0, 1]; everything where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return centre - half if hits else 0.0, centre + half if hits < n else 1.0  # exactly, where rounding would leave the share outside


def bootstrap(
    aggregate: Callable[[Array], dict[str, float]], n: int, *, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile interval of every metric, by drawing n images with replacement (Efron 1979).

    Args:
        aggregate: row weights (n,) → metrics.  Metrics that a draw does not define (a class without images) are left out of it.
    """
    if n == 0:
        return {}
    return {name: quantiles(values) for name, values in replicates(aggregate, n, draws=draws, seed=seed).items()}


def replicates(aggregate: Callable[[Array], dict[str, float]], n: int, *, draws: int, seed: int = 0) -> dict[str, Array]:
    """(draws,) of every metric, NaN where a draw does not define it.

    The same `n`, `draws` and `seed` draw the same images: the replicates of two methods on the same images are then paired.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for i, weights in enumerate(rng.multinomial(n, np.full(n, 1 / n), size=draws)):
        for name, value in aggregate(weights.astype(np.float64)).items():
            if isfinite(value):
                found.setdefault(name, np.full(draws, np.nan))[i] = value
    return found


def quantiles(values: Array) -> tuple[float, float]:
    """Of replicates: the 2.5 and the 97.5 % point of those that are defined."""
    low, high = np.quantile(values[np.isfinite(values)], (0.025, 0.975))
    return float(low), float(high)


def paired_bootstrap(a: float, b: float, replicates_a: Array, replicates_b: Array) -> Difference:
    """The difference of two pooled metrics, such as mIoU, by paired replicates (Efron & Tibshirani 1993, ch. 13 and 15).

    The interval is the percentile interval; p is found by inverting it: twice the smaller share of the replicated differences on either
    side of zero, those at zero counted on both, one added to count and draws so that it is never zero.
    """
    differences = replicates_a - replicates_b
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return Difference(a - b, float("nan"), float("nan"), 1.0)
    least = min((differences <= 0).sum(), (differences >= 0).sum())
    return Difference(a - b, *quantiles(differences), min(1.0, 2 * (int(least) + 1) / (len(differences) + 1)))


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test (1947): of the pairs that differ, a half would go either way.

    Args:
        only_a: how many images A alone gets right.
        only_b: how many B alone does.
    """
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << n))


def paired_shares(a: Sequence[bool] | NDArray[np.bool_], b: Sequence[bool] | NDArray[np.bool_]) -> Difference:
    """The difference of two shares of the same images, as fractions: Newcombe's interval (1998, Statistics in Medicine 17, method 10)
    and McNemar's exact p-value.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    both, only_a, only_b = int((first & second).sum()), int((first & ~second).sum()), int((~first & second).sum())
    n = len(first)
    neither = n - both - only_a - only_b
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 1.0)
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    (low_a, high_a), (low_b, high_b) = wilson(both + only_a, n), wilson(both + only_b, n)
    phi = _correlation(both, only_a, only_b, neither)
    down, up = (share_a - low_a, high_b - share_b), (high_a - share_a, share_b - low_b)
    value = share_a - share_b
    return Difference(value, value - _norm(*down, phi), value + _norm(*up, phi), mcnemar(only_a, only_b))


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Of two yes-or-no variables, corrected for continuity."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    excess: float = both * neither - only_a * only_b
    n = both + only_a + only_b + neither
    if excess > 0:
        excess = max(0.0, excess - n / 2)
    return excess / sqrt(margins)


def _norm(x: float, y: float, phi: float) -> float:
    return sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values of a family of tests, adjusted so that all of them together err at most as often as one would (Holm 1979)."""
    adjusted: dict[str, float] = {}
    largest, m = 0.0, len(p_values)
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (m - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
