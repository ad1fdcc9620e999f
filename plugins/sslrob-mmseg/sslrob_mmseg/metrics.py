"""Mean intersection over union and accuracies, from what single images contribute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sslrob.task import Aggregator, Row
from sslrob_mmseg.dataset import IGNORED


def count(prediction: NDArray[np.uint8], target: NDArray[np.uint8]) -> Row:
    """What one image contributes: how many pixels are labelled, and `[class, intersection, union, truth]` in pixels for every class
    that is in the mask or in the prediction on it.

    Args:
        prediction: (h, w) classes.
        target: (h, w) classes, or `IGNORED` where nothing counts.
    """
    labelled = target != IGNORED
    truth, guess = target[labelled].astype(np.int64), prediction[labelled].astype(np.int64)
    present = np.union1d(truth, guess)
    side = int(present.max(initial=-1)) + 1
    both, true, guessed = (np.bincount(labels, minlength=side) for labels in (truth[truth == guess], truth, guess))
    union = true + guessed - both
    return {"labelled": len(truth), "classes": [[int(c), int(both[c]), int(union[c]), int(true[c])] for c in present]}


def aggregator(rows: Sequence[Row]) -> Aggregator:
    """A function from (n,) row weights to metrics in percent, all pooled over the pixels of the data set.

    `mIoU` is the mean of the intersection over union of the classes in any mask or any prediction; `mAcc` the mean share of right pixels of
    the classes in any mask; `aAcc` the share of right pixels.  They are NaN where no pixel is labelled.
    """
    side = 1 + max((one[0] for row in rows for one in row["classes"]), default=0)
    counts = np.zeros((len(rows), 3, side))
    for i, row in enumerate(rows):
        for index, *numbers in row["classes"]:
            counts[i, :, index] = numbers
    flat = counts.reshape(len(rows), -1)

    def aggregate(weights: NDArray[np.float64]) -> dict[str, float]:
        both, union, true = (weights @ flat).reshape(3, side)
        return {
            "mIoU": _mean_share(both, union),
            "mAcc": _mean_share(both, true),
            "aAcc": _mean_share(both.sum(keepdims=True), true.sum(keepdims=True)),
        }

    return aggregate


def _mean_share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    """In percent, over the classes that have pixels."""
    there = whole > 0
    return float(100 * np.mean(part[there] / whole[there])) if there.any() else float("nan")
