"""Semantic segmentation: masks, decode heads, mIoU."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sslrob_mmcv.bridge import Prepare, build, models
from torch import Tensor

from sslrob.backbone import Backbone
from sslrob.data import Sample
from sslrob.errors import SslrobError, unknown
from sslrob.settings import checked
from sslrob.task import Aggregator, Row, Task
from sslrob.zoo import Weights
from sslrob_mmseg import metrics
from sslrob_mmseg.dataset import Masks, MaskSettings
from sslrob_mmseg.heads import KINDS, head_config
from sslrob_mmseg.losses import NAMES
from sslrob_mmseg.victim import Segmentor
from sslrob_mmseg.whole import described, whole

OPACITY = 110  # of a drawn mask, of 255
GOLDEN = 0.618034  # of the colour circle between the hues of neighbouring classes, so that they differ


class Segmentation(Task):
    """Which of k classes each pixel shows."""

    headline = "mIoU"
    judged_by = "share of labelled pixels that are right"
    heads = tuple(KINDS)

    def dataset(self, root: Path, *, format: str, classes: Sequence[str], settings: Mapping[str, Any]) -> Masks:
        if format != "masks":
            raise unknown("segmentation format", format, ["masks"])
        return Masks(root, classes, checked(MaskSettings, settings, "data set format 'masks'"))

    def victim(self, backbone: Backbone, *, kind: str, classes: Sequence[str], settings: Mapping[str, Any]) -> Segmentor:
        head = head_config(kind, settings, backbone, len(classes))
        model = {
            "type": "EncoderDecoder",
            "backbone": {"type": "sslrob", "backbone": backbone},
            "decode_head": head,
            "test_cfg": {"mode": "whole"},
        }
        return Segmentor(build(models("mmseg"), model), Prepare.before(backbone, max(backbone.strides)))

    @staticmethod
    def losses(kind: str) -> tuple[str, ...]:
        return NAMES if kind in KINDS else ()

    @staticmethod
    def described(reference: str) -> str:
        return described(reference)

    def whole(self, reference: str, *, weights: Weights | None, settings: Mapping[str, Any], classes: Sequence[str]) -> Segmentor:
        if settings:
            raise SslrobError(f"a whole segmentor has no setting {next(iter(settings))!r}", hint="write it into the model's config")
        return whole(reference, weights, classes)

    def measure(self, prediction: Tensor, target: Tensor) -> Row:
        return metrics.count(prediction.numpy(), target.numpy())

    def aggregator(self, rows: Sequence[Row]) -> Aggregator:
        return metrics.aggregator(rows)

    def mirrored(self, sample: Sample) -> Sample:
        return sample._replace(image=sample.image.flip(-1), target=sample.target.flip(-1))

    def draw(self, canvas: ImageDraw.ImageDraw, prediction: Tensor, *, classes: Sequence[str], scale: int) -> None:
        """Tint every class, and name those in the picture, the largest first."""
        labels = prediction.numpy()
        present, areas = np.unique(labels, return_counts=True)
        for line, index in enumerate(present[np.argsort(-areas, kind="stable")]):
            colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(index * GOLDEN % 1, 0.9, 1.0))
            tint = Image.fromarray(np.where(labels == index, OPACITY, 0).astype(np.uint8))
            canvas.bitmap((0, 0), tint.resize((tint.width * scale, tint.height * scale), Image.Resampling.NEAREST), fill=colour)
            name = classes[index] if index < len(classes) else str(index)
            canvas.text((3, 3 + 12 * line), name, fill=colour, stroke_width=1, stroke_fill="black")
