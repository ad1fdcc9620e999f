"""Rows → results: metrics with 95 % intervals, attack success rate, cost."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from sslrob.stats import wilson

if TYPE_CHECKING:
    from sslrob.task import Task

Row = dict[str, Any]
VERDICTS = ("clean", "robust", "rounded")


def summarise(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    """What run.json keeps under `results`.

    Returns:
        `images`: how many; `clean`, `robust`, `rounded` (robust, as 8-bit files): {metric: {value, low, high}} in percent;
        `attack_success_rate`: {value, low, high, n} in percent, of the n images that were not fooled when clean;
        `cost`: mean forwards and backwards an attacked image; `distance`: mean and max over the attacked images.
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
        "cost": {key: _mean([row[key] for row in attacked]) for key in ("forwards", "backwards")},
        "distance": {"mean": _mean([row["distance"] for row in attacked]), "max": max((row["distance"] for row in attacked), default=0.0)},
    }


def attack_success_rate(rows: Sequence[Row]) -> tuple[int, int]:
    """(fooled, n): of the n images that were not fooled when clean, how many are."""
    right = [row for row in rows if not row["clean"]["fooled"]]
    return sum(row["robust"]["fooled"] for row in right), len(right)


def _metrics(task: Task, measures: Sequence[Row]) -> dict[str, dict[str, float]]:
    intervals = task.intervals(measures)
    return {
        name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]}
        for name, value in task.aggregate(measures).items()
        if isfinite(value) and name in intervals
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
