"""The task `detection`: where objects are and what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from PIL import ImageDraw

from sslrob.backbone import Backbone
from sslrob.data import Sample
from sslrob.errors import SslrobError
from sslrob.task import Aggregator, Row, Task
from sslrob_mmdet import HINT, SCHEME, broken, dataset, losses, metrics
from sslrob_mmdet.dataset import DetectionDataset
from sslrob_mmdet.objects import Detections, Objects, mirrored

if TYPE_CHECKING:
    from sslrob.zoo import Weights
    from sslrob_mmdet.victim import MMDetVictim

COLOURS = "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#469990"
SHOWN = 0.3  # detections with a lower score are not drawn, unless they reach half of the image's best


class Detection(Task):
    """Boxes with classes, judged by COCO's average precision."""

    headline = "mAP"
    judged_by = "score of the boxes that find objects, less the squares of the others'"
    heads = ("fcos", "faster-rcnn")

    def dataset(self, root: Path, *, format: str, classes: Sequence[str], settings: Mapping[str, Any]) -> DetectionDataset:
        """`format`: "coco" (`dataset.CocoSettings`) or "voc" (`dataset.VocSettings`)."""
        return dataset.read(root, format=format, classes=classes, settings=settings)

    def victim(self, backbone: Backbone, *, kind: str, classes: Sequence[str], settings: Mapping[str, Any]) -> MMDetVictim:
        """`kind`: "fcos" (`heads.FCOS`) or "faster-rcnn" (`heads.FasterRCNN`); initial weights are drawn from torch's generator."""
        victim: MMDetVictim = _compose().victim(backbone, kind=kind, classes=classes, settings=settings)
        return victim

    @staticmethod
    def losses(kind: str) -> tuple[str, ...]:
        return losses.NAMES if kind in Detection.heads else ()

    @staticmethod
    def described(reference: str) -> str:
        from sslrob_mmcv import bridge

        try:
            return bridge.describe(reference.removeprefix(SCHEME), "mmdet")
        except bridge.ConfigError as error:
            raise SslrobError(str(error), hint=HINT) from error

    def whole(self, reference: str, *, weights: Weights | None, settings: Mapping[str, Any], classes: Sequence[str]) -> MMDetVictim:
        """A detector of mmdet as its config describes it.

        Without weights it has initial ones, which is good for trying things only.

        Args:
            reference: "mmdet:" and a file, or the name of a config shipped with mmdet.
        """
        if settings:
            raise SslrobError(f"a whole detector has no setting {next(iter(settings))!r}", hint="change the config instead")
        victim: MMDetVictim = _compose().whole(reference.removeprefix(SCHEME), weights=weights, classes=classes)
        return victim

    def measure(self, prediction: Detections, target: Objects) -> Row:
        """Scored boxes against truth, and under `broken` what went wrong; rows of older runs lack it."""
        row = metrics.row(prediction, target)
        return {**row, "broken": broken.count(row)}

    def aggregator(self, rows: Sequence[Row]) -> Aggregator:
        precision, errors = metrics.aggregator(rows), broken.aggregator(rows)
        return lambda weights: {**precision(weights), **errors(weights)}

    def mirrored(self, sample: Sample) -> Sample:
        return sample._replace(image=sample.image.flip(-1), target=mirrored(sample.target, sample.image.shape[-1]))

    def draw(self, canvas: ImageDraw.ImageDraw, prediction: Detections, *, classes: Sequence[str], scale: int) -> None:
        """Boxes with class and score, the best on top."""
        best = float(prediction.scores.max()) if len(prediction.scores) else 0.0
        for box, score, label in reversed(list(zip(*(part.tolist() for part in prediction), strict=True))):
            if score < min(SHOWN, best / 2):
                continue
            x1, y1, x2, y2 = (scale * value for value in box)
            colour = COLOURS[label % len(COLOURS)]
            canvas.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=max(1, scale // 2))
            name = classes[label] if label < len(classes) else str(label)
            canvas.text((x1 + scale, y1), f"{name} {score:.2f}", fill="white", stroke_width=1, stroke_fill=colour)


def _compose() -> ModuleType:
    """`sslrob_mmdet.compose`, which imports mmdet, once mmdet can be imported."""
    from sslrob_mmcv import bridge

    bridge.models("mmdet")
    from sslrob_mmdet import compose

    return compose
