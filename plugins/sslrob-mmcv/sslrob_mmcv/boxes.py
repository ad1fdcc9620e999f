"""Overlaps between two sets of boxes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bbox_overlaps"]

UNION = 0  # mmcv's code of mode "iou"; 1 is "iof", over the area of the first box


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write intersection over union, or over the first box, of ``bboxes1`` (m, 4) with ``bboxes2`` (n, 4) to ``ious``.

    ``ious`` is (m, n), or (m,) where ``aligned`` pairs the rows. Boxes are ``(x1, y1, x2, y2)``, their widths ``x2 - x1 + offset``. The
    overlap of two boxes without area is NaN, as mmcv computes it.
    """
    first, second = (bboxes1, bboxes2) if aligned else (bboxes1[:, None], bboxes2[None])
    sides = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + offset).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    area = _area(first, offset)
    ious.copy_(intersection / (area + _area(second, offset) - intersection if mode == UNION else area))


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)
