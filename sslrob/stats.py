"""How sure a number is."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), in [0, 1]; everything where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    aggregate: Callable[[NDArray[np.float64]], dict[str, float]], n: int, *, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile interval of every metric, by drawing n images with replacement (Efron 1979).

    Args:
        aggregate: row weights (n,) → metrics.  Metrics that a draw does not define (a class without images) are left out of it.
    """
    if n == 0:
        return {}
    rng = np.random.default_rng(seed)
    seen: dict[str, list[float]] = {}
    for weights in rng.multinomial(n, np.full(n, 1 / n), size=draws):
        for name, value in aggregate(weights.astype(np.float64)).items():
            if np.isfinite(value):
                seen.setdefault(name, []).append(value)
    return {name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) for name, values in seen.items()}
