"""COCO's average precision from one row an image, fast enough to be bootstrapped.

Rows keep the boxes, so that other metrics can be computed later.  Matching depends on one image alone and is done once;
a weighting of the images then costs a few cumulative sums a class.  Equal to pycocotools' `COCOeval` where all weights are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sslrob.task import Aggregator, Row
from sslrob_mmdet.objects import Detections, Objects

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)  # at which precision is read
AREAS = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}  # pixels; the bounds belong to both sides
AT_MOST = 100  # detections of an image and class that count


def row(found: Detections, truth: Objects) -> Row:
    """Scored boxes against truth, in pixels of the annotations: boxes to 0.01 pixels, scores to 0.00001."""
    x, y = truth.scale

    def rounded(boxes: object) -> list[list[float]]:
        return np.round(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / (x, y, x, y), 2).tolist()

    return {
        "boxes": rounded(found.boxes),
        "scores": np.round(np.asarray(found.scores, dtype=np.float64), 5).tolist(),
        "labels": found.labels.tolist(),
        "truth": {
            "boxes": rounded(truth.boxes),
            "labels": truth.labels.tolist(),
            "areas": np.round(np.asarray(truth.areas, dtype=np.float64), 2).tolist(),
            "crowd": rounded(truth.crowd),
            "crowd_labels": truth.crowd_labels.tolist(),
        },
    }


class Match(NamedTuple):
    """The k detections of one class in one image, best first, and what they hit, by area range a and IoU threshold t."""

    scores: Array  # (k,)
    areas: Array  # (k,)
    hit: Mask  # (a, t, k) an object or a region
    ignored: Mask  # (a, t, k) and it does not count
    objects: Array  # (a,) that count


def overlaps(boxes: Array, others: Array, crowd: Mask) -> Array:
    """(k, j) intersection over union; with regions, `crowd` (j,), over the area of the first box."""
    corner, end = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (end - corner).clip(0).prod(2)
    own = area(boxes)[:, None]
    return shared / np.maximum(np.where(crowd, own, own + area(others) - shared), np.finfo(float).tiny)


def area(boxes: Array) -> Array:
    """(k,) of boxes (k, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def match(boxes: Array, scores: Array, others: Array, sizes: Array, crowd: Mask) -> Match:
    """COCO's greedy matching of one image and class.

    The best detection chooses first: of the objects left to it that it overlaps enough the one it overlaps most, else one that does not count.
    A region may be hit many times.

    Args:
        others, sizes, crowd: (j, 4) boxes of objects and regions, their areas (j,), and which of them are regions (j,).
    """
    order = np.argsort(-scores, kind="stable")[:AT_MOST]
    boxes, scores = boxes[order], scores[order]
    low, high = np.array(list(AREAS.values())).T[:, :, None]
    aside = crowd | (sizes < low) | (sizes > high)  # (a, j)
    shape = len(AREAS), len(THRESHOLDS)
    hit, ignored = np.zeros((2, *shape, len(boxes)), dtype=bool)
    taken = np.zeros((*shape, len(others)), dtype=bool)
    found = overlaps(boxes, others, crowd)
    a, t = np.ogrid[: shape[0], : shape[1]]
    for k in np.flatnonzero((found >= THRESHOLDS[0]).any(1)):
        able = (found[k] >= THRESHOLDS[:, None]) & (~taken | crowd)  # (a, t, j)
        counting = able & ~aside[:, None]
        able = np.where(counting.any(2, keepdims=True), counting, able)
        choice = len(others) - 1 - np.where(able, found[k], -1)[:, :, ::-1].argmax(2)  # the last of equals, as COCO does
        success = able.any(2)
        taken[a, t, choice] |= success
        hit[:, :, k] = success
        ignored[:, :, k] = success & aside[a, choice]
    return Match(scores, area(boxes), hit, ignored, (~aside).sum(1).astype(np.float64))


class Ranking:
    """The detections of one class in all images, best first, ready to be summed under any weighting of the images.

    Precision has its peaks where an object is found, so only detections that hit something are looked at one by one.
    """

    def __init__(self, matches: Sequence[Match], images: Sequence[int]) -> None:
        """Args:
        images: whose the matches are.
        """
        self.images, self.objects = np.array(images), np.stack([m.objects for m in matches], axis=1)
        order = np.argsort(-np.concatenate([m.scores for m in matches]), kind="stable")
        self.owner = np.repeat(self.images, [len(m.scores) for m in matches])[order]
        areas = np.concatenate([m.areas for m in matches])[order]
        low, high = np.array(list(AREAS.values())).T[:, :, None]
        self.inside = (areas >= low) & (areas <= high)  # (a, k): counts if it hits nothing
        hit, ignored = (np.concatenate([getattr(m, name) for m in matches], axis=2)[:, :, order] for name in ("hit", "ignored"))
        self.hits = np.flatnonzero(hit.any((0, 1)))
        hit, ignored = hit[:, :, self.hits], ignored[:, :, self.hits]
        self.right = hit & ~ignored
        self.change = np.where(hit, ~ignored, self.inside[:, None, self.hits]).astype(np.int8) - self.inside[:, None, self.hits]

    def precision(self, weights: Array) -> tuple[Array, Mask]:
        """Average precision (a, t), and for which areas there are objects (a,)."""
        objects = self.objects @ weights[self.images]
        if not len(self.hits):
            return np.zeros((len(AREAS), len(THRESHOLDS))), objects > 0
        weight = weights[self.owner]
        before = np.cumsum(self.inside * weight, axis=1)[:, None, self.hits]
        weight = weight[self.hits]
        right = np.cumsum(self.right * weight, axis=2)
        counted = before + np.cumsum(self.change * weight, axis=2)
        precision = right / (counted + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
        recall = right / np.where(objects > 0, objects, 1)[:, None, None]
        reached = np.searchsorted(RECALLS, recall, side="right")  # how many of the recalls; at those never reached, precision is 0
        return (precision * np.diff(reached, axis=2, prepend=0)).sum(2) / len(RECALLS), objects > 0


def aggregator(rows: Sequence[Row]) -> Aggregator:
    """From (n,) weights of the rows to mAP, AP50, AP75, APs, APm and APl in percent, without those of which there are no objects."""
    matches: dict[int, list[tuple[int, Match]]] = {}
    for i, one in enumerate(rows):
        for label, result in _by_class(one).items():
            matches.setdefault(label, []).append((i, result))
    rankings = [Ranking([m for _, m in of], [i for i, _ in of]) for _, of in sorted(matches.items()) if any(m.objects[0] for _, m in of)]

    def aggregate(weights: Array) -> dict[str, float]:
        if not rankings:
            return {}
        precision, there = (np.stack(part) for part in zip(*(r.precision(weights) for r in rankings), strict=True))
        sums, classes = (precision * there[:, :, None]).sum(0), there.sum(0)
        mean = {name: 100 * sums[a] / classes[a] for a, name in enumerate(AREAS) if classes[a]}  # (t,) of each
        if "" not in mean:
            return {}
        overall = mean.pop("")
        metrics = {"mAP": overall.mean(), "AP50": overall[0], "AP75": overall[5], **{f"AP{name}": ap.mean() for name, ap in mean.items()}}
        return {name: float(value) for name, value in metrics.items()}

    return aggregate


def _by_class(one: Row) -> dict[int, Match]:
    """The matches of one image, by label."""
    truth = one["truth"]
    boxes, scores, labels = boxes_of(one["boxes"]), np.array(one["scores"], dtype=np.float64), np.array(one["labels"], dtype=np.int64)
    others = np.concatenate([boxes_of(truth["boxes"]), boxes_of(truth["crowd"])])
    other_labels = np.array([*truth["labels"], *truth["crowd_labels"]], dtype=np.int64)
    sizes = np.array([*truth["areas"], *[0.0] * len(truth["crowd"])])
    crowd = np.arange(len(others)) >= len(truth["boxes"])
    found = {}
    for label in {*labels.tolist(), *other_labels.tolist()}:
        mine, theirs = labels == label, other_labels == label
        found[label] = match(boxes[mine], scores[mine], others[theirs], sizes[theirs], crowd[theirs])
    return found


def boxes_of(rows: Sequence[Sequence[float]]) -> Array:
    """(k, 4), also of none."""
    return np.array(rows, dtype=np.float64).reshape(-1, 4)
