"""Non-maximum suppression: greedy, soft and with the suppressed boxes kept as groups.

Boxes are (n, 4) float tensors ``(x1, y1, x2, y2)`` in pixels, scores (n,). ``offset`` is 1 where a box's width is ``x2 - x1 + 1``
(coordinates name pixels), else 0.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

__all__ = ["nms", "nms_match", "softnms"]

NAIVE, LINEAR = 0, 1  # mmcv's codes of soft-NMS's methods; 2 is Gaussian


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, best first: a box goes when its IoU with a better kept one exceeds ``iou_threshold``."""
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    kept: Tensor = torchvision.ops.nms(boxes, scores, iou_threshold)
    return kept


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int, offset: int
) -> Tensor:
    """Indices of the boxes kept, in the order they were picked; boxes and decayed scores go to the first rows of ``dets`` (n, 5).

    After each pick the scores of the rest are multiplied, by IoU with the picked box: ``naive`` by 0 and ``linear`` by 1 - IoU, both from
    ``iou_threshold`` on; ``gaussian`` by exp(-IoU² / sigma). Boxes whose score falls below ``min_score`` are dropped.
    Bodla et al., Soft-NMS, ICCV 2017.
    """
    rows = dets.view(-1, 5)
    scores = scores.clone()
    alive = torch.arange(len(boxes), device=boxes.device)
    kept: list[Tensor] = []
    while alive.numel():
        best = int(scores[alive].argmax())
        picked = alive[best]
        rows[len(kept), :4] = boxes[picked]
        rows[len(kept), 4] = scores[picked]
        kept.append(picked)
        alive = torch.cat([alive[:best], alive[best + 1 :]])
        iou = _iou(boxes[picked], boxes[alive], offset)
        if method == NAIVE:
            factor = (iou < iou_threshold).to(iou)
        elif method == LINEAR:
            factor = torch.where(iou < iou_threshold, 1, 1 - iou)
        else:
            factor = torch.exp(-(iou**2) / sigma)
        scores[alive] *= factor
        alive = alive[~(scores[alive] < min_score)]
    return torch.stack(kept) if kept else alive


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of indices into ``dets`` (n, 5; boxes and scores): each kept box followed by those it suppresses, best first.

    Unlike :func:`nms`, an IoU equal to the threshold suppresses.
    """
    boxes = dets[:, :4]
    waiting = dets[:, 4].argsort(descending=True)
    groups: list[list[int]] = []
    while waiting.numel():
        best, rest = waiting[0], waiting[1:]
        suppressed = _iou(boxes[best], boxes[rest], offset=0) >= iou_threshold
        groups.append([int(best), *rest[suppressed].tolist()])
        waiting = rest[~suppressed]
    return groups


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """IoU of ``box`` (4,) with each of ``boxes`` (n, 4), in the order of operations of mmcv's kernel."""
    area = (box[2] - box[0] + offset) * (box[3] - box[1] + offset)
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    sides = (torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2]) + offset).clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    return intersection / (area + areas - intersection)
