"""The boxes of one image: what is true of it, what a detector weighs, and what it finds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Objects(NamedTuple):
    """The true objects of one image, and regions where detections do not count.

    Boxes are x1 y1 x2 y2 in the image's pixels; x2 and y2 are where the pixels end, so that a box's width is x2 - x1.

    Attributes:
        boxes, labels: (k, 4) and (k,) of the objects.
        areas: (k,) of the objects in pixels of the annotations, by which they count as small, medium or large.
        crowd, crowd_labels: (j, 4) and (j,) of the regions.
        scale: image pixels per pixel of the annotations, along x and y; other than one where the image was resized.
    """

    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowd: Tensor
    crowd_labels: Tensor
    scale: tuple[float, float] = (1.0, 1.0)


class Detections(NamedTuple):
    """What a detector found in one image, best first: boxes (k, 4) as in `Objects`, scores (k,) in [0, 1] and labels (k,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Candidates(NamedTuple):
    """The k candidates of one image.

    Attributes:
        boxes: (k, classes, 4) in the image's pixels.
        logs: (k, classes) logarithms of the scores in (0, 1] that detections are ranked by.
        anything: (a,) logarithms of the scores of the places from which they were chosen, for being an object of any class; none in one-stage
            detectors, where every place is a candidate.
    """

    boxes: Tensor
    logs: Tensor
    anything: Tensor


def objects(
    boxes: Tensor, labels: Tensor, *, areas: Tensor | None = None, crowd: Tensor | None = None, crowd_labels: Tensor | None = None
) -> Objects:
    """Objects whose areas are by default those of their boxes."""
    boxes = boxes.reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    crowd = boxes.new_empty(0, 4) if crowd is None else crowd.reshape(-1, 4)
    return Objects(
        boxes,
        labels,
        sides[:, 0] * sides[:, 1] if areas is None else areas,
        crowd,
        torch.zeros(len(crowd), dtype=torch.long) if crowd_labels is None else crowd_labels,
    )


def mirrored(objects: Objects, width: int) -> Objects:
    """The objects of an image `width` pixels wide as a mirror shows them."""
    boxes, crowd = (torch.stack([width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]], 1) for b in (objects.boxes, objects.crowd))
    return objects._replace(boxes=boxes, crowd=crowd)
