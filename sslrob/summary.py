"""Rows → results: metrics with 95 % intervals, attack success rate, cost."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from sslrob.stats import Array, bootstrap, wilson

if TYPE_CHECKING:
    from sslrob.task import Task

Row = dict[str, Any]
DRAWS = 300  # of images, for the interval of what is lost: each takes two metrics
VERDICTS = ("clean", "robust", "rounded")


def summarise(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    """What run.json keeps under `results`.

    Returns:
        `images`: how many; `clean`, `robust`, `rounded` (robust, as 8-bit files): {metric: {value, low, high}} in percent;
        `attack_success_rate`: {value, low, high, n} in percent, of the n images that were not fooled when clean;
        `lost`: {value, low, high}, the share of the clean headline metric that is lost, in percent, where images are more or less right
        (`Task.graded`): there, fooled means that nothing right is left, and an attack that ruins every image may fool none;
        `declined`: for how many images the adversary showed the clean one, which was worse for the victim than whatever it found;
        `cost`: mean forwards and backwards an attacked image; `searched_again`: how many images fooled only the copy that was searched, and
        were attacked again through the victim; `distance`: mean and max over the attacked images.
    """
    attacked = [row for row in rows if not row["clean"]["fooled"]]
    fooled, n = attack_success_rate(rows)
    low, high = wilson(fooled, n)
    return {
        "images": len(rows),
        **{verdict: _metrics(task, [row[verdict]["measure"] for row in rows]) for verdict in VERDICTS},
        "attack_success_rate": {
            "value": 100 * fooled / n if n else None,
            "low": 100 * low,
            "high": 100 * high,
            "n": n,
        },
        "lost": _lost(task, rows),
        "cost": {key: _mean([row[key] for row in attacked]) for key in ("forwards", "backwards")},
        "declined": sum(row.get("declined", False) for row in attacked),
        "searched_again": sum(row.get("searched_again", False) for row in rows),
        "distance": {"mean": _mean([row["distance"] for row in attacked]), "max": max((row["distance"] for row in attacked), default=0.0)},
    }


def attack_success_rate(rows: Sequence[Row]) -> tuple[int, int]:
    """(fooled, n): of the n images that were not fooled when clean, how many are."""
    right = [row for row in rows if not row["clean"]["fooled"]]
    return sum(row["robust"]["fooled"] for row in right), len(right)


def _lost(task: Task, rows: Sequence[Row]) -> dict[str, float] | None:
    """100 (1 - robust / clean) of the headline metric, with the percentile interval of paired draws of the images.

    None where the attack success rate says it, or nothing is right when clean.
    """
    if not task.graded or not rows:
        return None
    aggregators = [task.aggregator([row[verdict]["measure"] for row in rows]) for verdict in ("clean", "robust")]

    def share(weights: Array) -> dict[str, float]:
        clean, robust = (aggregate(weights).get(task.headline, nan) for aggregate in aggregators)
        return {"lost": 100 * (1 - robust / clean) if clean > 0 else nan}

    value = share(np.ones(len(rows)))["lost"]
    if not isfinite(value):
        return None
    low, high = bootstrap(share, len(rows), draws=DRAWS).get("lost", (value, value))
    return {"value": value, "low": low, "high": high}


def _metrics(task: Task, measures: Sequence[Row]) -> dict[str, dict[str, float]]:
    intervals = task.intervals(measures)
    return {
        name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]}
        for name, value in task.aggregate(measures).items()
        if isfinite(value) and name in intervals
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
