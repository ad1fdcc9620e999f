"""What a detector weighs before it drops overlapping boxes: every place that it looks at, with a score for each class, differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads import StandardRoIHead
from torch import Tensor, nn

from sslrob_mmdet.objects import Candidates

TINY = 1e-30  # a score: its logarithm is finite


def offered(detector: nn.Module) -> bool:
    """Whether the candidates of such a detector can be told: one stage over whole maps or Faster R-CNN's two, as mmdet has them."""
    if getattr(detector, "rpn_head", None) is not None:
        rpn = detector.rpn_head
        return type(rpn) is RPNHead and rpn.use_sigmoid_cls and type(getattr(detector, "roi_head", None)) is StandardRoIHead
    head = getattr(detector, "bbox_head", None)
    usual = ("predict", "predict_by_feat", "_predict_by_feat_single")
    return isinstance(head, BaseDenseHead) and all(getattr(type(head), name) is getattr(BaseDenseHead, name) for name in usual)


def classes_of(detector: nn.Module) -> int:
    """How many classes its last head tells apart; 0 for a detector that does not say."""
    head = getattr(detector, "bbox_head", None) or getattr(getattr(detector, "roi_head", None), "bbox_head", None)
    last = head[-1] if isinstance(head, nn.ModuleList) else head
    return int(getattr(last, "num_classes", 0))


def candidates(detector: nn.Module, maps: Sequence[Tensor], samples: Sequence[Any]) -> list[Candidates]:
    """Those of every image.

    Args:
        maps: the feature pyramid of the batch.
        samples: mmdet's, one an image.
    """
    if getattr(detector, "rpn_head", None) is not None:
        return _of_regions(detector, maps, samples)
    return _of_points(detector.bbox_head, maps, samples)


def _of_points(head: Any, maps: Sequence[Tensor], samples: Sequence[Any]) -> list[Candidates]:
    scores, moves, *factors = head(tuple(maps))
    priors = head.prior_generator.grid_priors([s.shape[-2:] for s in scores], dtype=scores[0].dtype, device=scores[0].device)
    logits, moves = _listed(scores, head.cls_out_channels), _listed(moves, head.bbox_coder.encode_size)
    logs = nn.functional.logsigmoid(logits) if head.use_sigmoid_cls else logits.log_softmax(2)[..., :-1]
    if factors:
        logs = logs + nn.functional.logsigmoid(_listed(factors[0], 1))
    found = []
    for one, move, sample in zip(logs, moves, samples, strict=True):
        boxes = head.bbox_coder.decode(torch.cat(priors), move, max_shape=sample.img_shape)
        found.append(Candidates(boxes[:, None].expand(-1, one.shape[1], -1), one, one.new_empty(0)))
    return found


def _of_regions(detector: Any, maps: Sequence[Tensor], samples: Sequence[Any]) -> list[Candidates]:
    """The regions of the first stage are taken as they are, without gradient; the second stage's scores and boxes follow the image."""
    anything = nn.functional.logsigmoid(_listed(detector.rpn_head(tuple(maps))[0], 1))[..., 0]
    regions = detector.rpn_head.predict(maps, samples, rescale=False)
    answers = detector.roi_head.predict_bbox(maps, [s.metainfo for s in samples], regions, None)
    found = []
    for answer, places in zip(answers, anything, strict=True):
        logs = answer.scores[:, :-1].clamp_min(TINY).log()
        boxes = answer.bboxes.view(len(logs), answer.bboxes.shape[1] // 4, 4)
        found.append(Candidates(boxes.expand(-1, logs.shape[1], -1), logs, places))
    return found


def _listed(maps: Sequence[Tensor], channels: int) -> Tensor:
    """(n, places, channels) of maps (n, places × channels, h, w)."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, channels) for m in maps], 1)
