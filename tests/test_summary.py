"""What a run's rows come to."""

from __future__ import annotations

import numpy as np
import pytest

from sslrob.summary import summarise


class Shares:
    """A task whose images are right to some share; its headline is the mean share, in percent."""

    graded, headline = True, "mean"

    def aggregator(self, rows):
        return lambda weights: {"mean": 100 * float(np.average([row["share"] for row in rows], weights=weights))}

    def aggregate(self, rows):
        return self.aggregator(rows)(np.ones(len(rows)))

    def intervals(self, rows):
        return {"mean": (0.0, 100.0)}


def rows(clean, robust):
    """One row an image: fooled only where nothing is right."""

    def verdict(share):
        return {"fooled": share == 0, "quality": share, "measure": {"share": share}}

    more = {"distance": 0.1, "forwards": 3, "backwards": 2}
    return [{"clean": verdict(c), "robust": verdict(r), "rounded": verdict(r), **more} for c, r in zip(clean, robust, strict=True)]


def test_what_is_lost_is_told_where_fooling_is_rare():
    """Every image is ruined to a tenth, and none is fooled."""
    results = summarise(Shares(), rows([0.8] * 20, [0.08] * 20))
    assert results["attack_success_rate"]["value"] == 0
    assert results["lost"] == {"value": pytest.approx(90), "low": pytest.approx(90), "high": pytest.approx(90)}


def test_the_interval_of_what_is_lost_draws_clean_and_robust_together():
    """Images differ far more than what each loses: unpaired draws would give an interval ten times as wide."""
    clean = np.linspace(0.1, 1, 40)
    lost = summarise(Shares(), rows(clean, clean * np.linspace(0.45, 0.55, 40)))["lost"]
    assert lost["low"] < lost["value"] < lost["high"]
    assert lost["high"] - lost["low"] < 5


def test_what_is_lost_is_left_out_where_it_says_nothing():
    assert summarise(Shares(), rows([0.0] * 3, [0.0] * 3))["lost"] is None

    class Ungraded(Shares):
        graded = False

    assert summarise(Ungraded(), rows([1.0] * 3, [0.0] * 3))["lost"] is None  # the attack success rate says it
