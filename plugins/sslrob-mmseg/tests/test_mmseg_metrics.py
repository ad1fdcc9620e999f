"""mIoU and accuracies against mmseg's own metric."""

import json
import warnings

import numpy as np
import pytest
import torch
from sslrob_mmseg.dataset import IGNORED
from sslrob_mmseg.task import Segmentation

CLASSES = 6


@pytest.fixture(scope="module")
def pairs():
    """Predictions and masks of different sizes; class 4 is only predicted, class 5 is nowhere, one mask has no labels."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for size in ((7, 9), (12, 5), (1, 1), (20, 20), (3, 3)):
        truth = torch.randint(4, size, generator=draw, dtype=torch.uint8)
        guess = torch.where(torch.rand(size, generator=draw) < 0.6, truth, torch.randint(5, size, generator=draw, dtype=torch.uint8))
        truth[torch.rand(size, generator=draw) < 0.2] = IGNORED
        made.append((guess, truth))
    made[-1][1][:] = IGNORED
    return made


def mmsegs(pairs):
    """The same metrics by mmseg's own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what their imports warn of
        from mmseg.evaluation import IoUMetric
    areas = [
        sum(areas) for areas in zip(*(IoUMetric.intersect_and_union(g.long(), t.long(), CLASSES, IGNORED) for g, t in pairs), strict=True)
    ]
    found = IoUMetric.total_area_to_metrics(*areas)
    return {"mIoU": 100 * np.nanmean(found["IoU"]), "mAcc": 100 * np.nanmean(found["Acc"]), "aAcc": 100 * float(found["aAcc"])}


@pytest.fixture(scope="module")
def rows(pairs):
    return [json.loads(json.dumps(Segmentation().measure(guess, truth))) for guess, truth in pairs]


def test_metrics_are_mmsegs(pairs, rows):
    assert Segmentation().aggregate(rows) == pytest.approx(mmsegs(pairs), rel=1e-5)


@pytest.mark.parametrize("weights", [[2, 0, 1, 3, 0], [0, 1, 0, 0, 4]])
def test_weights_say_how_often_an_image_counts(pairs, rows, weights):
    repeated = [pair for pair, times in zip(pairs, weights, strict=True) for _ in range(times)]
    assert Segmentation().aggregator(rows)(np.array(weights, float)) == pytest.approx(mmsegs(repeated), rel=1e-5)


def test_rows_hold_the_present_classes_only():
    guess, truth = (torch.tensor(values, dtype=torch.uint8) for values in ([[9, 2, 2]], [[IGNORED, 2, 7]]))
    assert Segmentation().measure(guess, truth) == {"labelled": 2, "classes": [[2, 1, 2, 1], [7, 0, 1, 1]]}


def test_perfect_predictions_score_a_hundred():
    mask = torch.tensor([[0, 3], [3, IGNORED]], dtype=torch.uint8)
    rows = [Segmentation().measure(mask.clamp_max(3), mask)]
    assert Segmentation().aggregate(rows) == {"mIoU": 100, "mAcc": 100, "aAcc": 100}


def test_nothing_labelled_is_not_a_number():
    mask = torch.full((2, 2), IGNORED, dtype=torch.uint8)
    assert all(np.isnan(value) for value in Segmentation().aggregate([Segmentation().measure(torch.zeros_like(mask), mask)]).values())


def test_the_headline_is_among_the_metrics(rows):
    assert Segmentation.headline in Segmentation().aggregate(rows)
