"""A victim around any mmdet detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from sslrob_mmcv.bridge import Maps, Prepare
from torch import Tensor, nn
from torchvision.ops import box_iou

from sslrob.backbone import Backbone
from sslrob.task import Victim
from sslrob_mmdet.candidates import candidates, classes_of, offered
from sslrob_mmdet.losses import NAMES, STRONGEST, dag, fabricate, inside, ranking, rivals
from sslrob_mmdet.objects import Candidates, Detections, Objects
from sslrob_mmdet.sampling import same_draws

BOX_PARTS = "bbox", "iou", "centerness", "dfl"  # of the names of mmdet's losses about where, not what
OBJECTNESS_PARTS = "rpn_cls", "rpn_loss_cls", "centerness", "obj", "conf"  # about whether there is anything at all


@dataclass
class Pyramid:
    """A detector's outputs: the feature maps of a batch, and the image sizes (height, width) that its heads ask for."""

    maps: tuple[Tensor, ...]
    size: tuple[int, int]
    padded: tuple[int, int]
    found: list[Detections] | None = field(default=None, repr=False)  # kept, as verdict and quality both read it

    def __len__(self) -> int:
        return len(self.maps[0])


class MMDetVictim(Victim):
    """An mmdet detector.  Outputs: its feature pyramid, on which heads, losses and predictions start.

    The backbone and the dense heads see a whole batch; what mmdet averages over a batch, the losses, is taken one image at a time.

    Fooled: no true object is found, that is overlapped (IoU >= `iou`) by a detection of its class, however low its score: average precision
    counts those too, and an adversary has them to gain.  An image without objects: there is a detection with a score of at least `score`.

    Quality, a smooth relative of the average precision of one image: a true object counts the highest score among detections of its class,
    each times the share of COCO's thresholds 0.5, 0.55, … 0.95 that its IoU reaches; from their mean over the true objects goes, for every
    detection that overlaps no object of its class, the square of its score, over the number of objects (at least one).  Detections in
    regions that do not count (crowds) are never held against it.
    """

    read_every = 5

    def __init__(self, detector: nn.Module, prepare: Prepare, *, score: float = 0.3, iou: float = 0.5) -> None:
        super().__init__()
        self.detector, self.prepare, self.score, self.iou = detector, prepare, score, iou
        # loss() and predict() of every detector begin with extract_feat(): given features, they start right after it.
        self._extract = type(detector).extract_feat
        detector.extract_feat = _as_they_are
        self._heads = _mmdet_modules(detector)
        self._draws = hasattr(detector, "dn_query_generator")  # DINO's denoising queries

    @property
    def backbone(self) -> Backbone | None:
        maps = self.detector.backbone
        return maps.backbone if isinstance(maps, Maps) else None

    @property
    def _dense(self) -> nn.Module | None:
        """No attribute of its own: the head's tensors would stand twice in the state dict."""
        return _dense_head(self.detector)

    def forward(self, images: Tensor) -> Pyramid:
        x = self.prepare(images)
        return Pyramid(tuple(self._extract(self.detector, x)), _size(images), _size(x))

    @property
    def losses(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those that this detector has: `objectness` asks for a branch of that kind, the last four for known candidates, and two of
        these for a second class.
        """
        return tuple(name for name in NAMES if self._offers(name))

    @property
    def strongest(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(name for name in STRONGEST if self._offers(name))

    def loss(self, outputs: Pyramid, targets: Sequence[Objects], name: str, progress: float) -> Tensor:
        """Of the training loss, as the detector was trained with it:

        `train`: all of it.  `cls`, `box`, `objectness`: its parts about what and where objects are, and whether there is any (the first
        stage's classes, centerness).
        `vanish`: minus that of an image without objects (Xie et al. 2017; Chow et al. 2020).
        `mislabel`: minus that of the same objects, each of the wrong class that is likeliest now (Chow et al. 2020).

        Of the candidates, before overlapping boxes are dropped; see `sslrob_mmdet.losses`:

        `fabricate`: objects everywhere (Chow et al. 2020).  `dag`: candidates that are right turn wrong (Xie et al. 2017).
        `ranking`: candidates that are wrong outrank those that are right.
        """
        del progress
        if name in ("fabricate", "mislabel", "dag", "ranking"):
            pairs = [(f, _on(t, outputs.maps[0])) for f, t in zip(self._candidates(outputs), targets, strict=True)]
            if name == "mislabel":
                return -self._losses(outputs, [t._replace(labels=rivals(f, t)) for f, t in pairs], "train")
            return torch.stack([fabricate(f) if name == "fabricate" else (dag if name == "dag" else ranking)(f, t) for f, t in pairs])
        if name == "vanish":
            return -self._losses(outputs, [_nothing(t) for t in targets], "train")
        return self._losses(outputs, targets, name)

    def _offers(self, name: str) -> bool:
        if name == "objectness":
            head = self.detector.rpn_head if hasattr(self.detector, "rpn_head") else getattr(self.detector, "bbox_head", None)
            return type(head) is RPNHead or any(hasattr(head, f"loss_{part}") for part in OBJECTNESS_PARTS)
        if name in ("mislabel", "dag"):
            return offered(self.detector) and classes_of(self.detector) > 1
        return name not in ("fabricate", "ranking") or offered(self.detector)

    def _candidates(self, outputs: Pyramid) -> list[Candidates]:
        return candidates(self.detector, outputs.maps, [_sample(outputs) for _ in range(len(outputs))])

    def fooled(self, outputs: Pyramid, targets: Sequence[Objects]) -> Tensor:
        return torch.stack([self._missed(found, t) for found, t in zip(self._found(outputs), targets, strict=True)])

    def quality(self, outputs: Pyramid, targets: Sequence[Objects]) -> Tensor:
        return torch.stack([_quality(found, t) for found, t in zip(self._found(outputs), targets, strict=True)])

    def predict(self, outputs: Pyramid) -> list[Detections]:
        return [Detections(*(t.cpu() for t in found)) for found in self._found(outputs)]

    def _losses(self, outputs: Pyramid, targets: Sequence[Objects], name: str) -> Tensor:
        with _flagged(self._heads):
            batched = None if self._dense is None else self._dense(outputs.maps)
            return torch.stack([self._loss(outputs, i, batched, t, name) for i, t in enumerate(targets)])

    def _loss(self, outputs: Pyramid, i: int, batched: Any, target: Objects, name: str) -> Tensor:
        maps = tuple(m[i : i + 1] for m in outputs.maps)
        draws = same_draws(maps[0].device) if self._draws else nullcontext()
        with draws, nullcontext() if batched is None else _answering(self._dense, _part(batched, i)):
            parts = self.detector.loss(maps, [_sample(outputs, target)])
        terms = [
            t.mean() for key, part in parts.items() if _counts(key, name) for t in (part if isinstance(part, list | tuple) else [part])
        ]
        return torch.stack(terms).sum() if terms else maps[0].sum() * 0.0

    @torch.no_grad()
    def _found(self, outputs: Pyramid) -> list[Detections]:
        if outputs.found is None:
            samples = [_sample(outputs) for _ in range(len(outputs))]
            answers = [s.pred_instances for s in self.detector.predict(outputs.maps, samples, rescale=False)]
            outputs.found = [Detections(a.bboxes, a.scores, a.labels) for a in answers]
        return outputs.found

    def _missed(self, found: Detections, target: Objects) -> Tensor:
        truth, labels = target.boxes.to(found.boxes), target.labels.to(found.labels)
        if not len(truth):
            return (found.scores >= self.score).any()
        return ~((box_iou(truth, found.boxes) >= self.iou) & (labels[:, None] == found.labels)).any()


def _quality(found: Detections, target: Objects) -> Tensor:
    """A scalar in (-inf, 1]; see `MMDetVictim`."""
    truth, crowd = target.boxes.to(found.boxes), target.crowd.to(found.boxes)
    if not len(found.boxes):
        return found.scores.new_zeros(())
    overlap = box_iou(truth, found.boxes) * (target.labels.to(found.labels)[:, None] == found.labels)
    precise = ((overlap - 0.45) / 0.05 + 1e-4).floor().clamp(0, 10) / 10  # the share of 0.5, 0.55, … 0.95
    objects = max(len(truth), 1)
    right = (precise * found.scores).amax(1).sum() / objects
    excused = (overlap >= 0.5).any(0) | (inside(found.boxes, crowd) >= 0.5)
    return right - (found.scores.square() * ~excused).sum() / objects


@contextmanager
def _flagged(modules: Sequence[nn.Module]) -> Iterator[None]:
    """`training` on, for these modules themselves and not for what they contain."""
    was = [m.training for m in modules]
    for m in modules:
        m.training = True
    try:
        yield
    finally:
        for m, flag in zip(modules, was, strict=True):
            m.training = flag


@contextmanager
def _answering(module: nn.Module, answer: Any) -> Iterator[None]:
    """The module gives a known answer, whatever it is asked."""
    module.forward = lambda *_, **__: answer
    try:
        yield
    finally:
        del module.forward


def _part(answer: Any, i: int) -> Any:
    """What a dense head said about image i."""
    return answer[i : i + 1] if isinstance(answer, Tensor) else type(answer)(_part(a, i) for a in answer)


def _mmdet_modules(detector: nn.Module) -> tuple[nn.Module, ...]:
    """mmdet's own modules after the features.

    Many ask `self.training` whether a loss or a prediction is wanted (FCOS scales its boxes, RepPoints decodes them, DINO adds queries).
    Normalisation and dropout are torch's and mmcv's modules and keep their mode.
    """
    features = {id(m) for part in (detector.backbone, getattr(detector, "neck", None)) if part is not None for m in part.modules()}
    return tuple(m for m in detector.modules() if type(m).__module__.startswith("mmdet.") and id(m) not in features)


def _dense_head(detector: nn.Module) -> nn.Module | None:
    """The head over whole maps, if all it does with features is `self(maps)`: it may then see a batch at once."""
    for name, method in (("bbox_head", "loss"), ("rpn_head", "loss_and_predict")):
        head = getattr(detector, name, None)
        if isinstance(head, BaseDenseHead) and getattr(type(head), method) is getattr(BaseDenseHead, method):
            return head
    return None


def _sample(outputs: Pyramid, target: Objects | None = None) -> DetDataSample:
    sample = DetDataSample(
        metainfo={
            "img_shape": outputs.size,
            "ori_shape": outputs.size,
            "pad_shape": outputs.padded,
            "batch_input_shape": outputs.padded,
            "scale_factor": (1.0, 1.0),
            "img_id": 0,
        }
    )
    if target is not None:
        like = outputs.maps[0]
        sample.gt_instances = InstanceData(bboxes=target.boxes.to(like), labels=target.labels.to(like.device))
        sample.ignored_instances = InstanceData(bboxes=target.crowd.to(like))
    return sample


def _nothing(target: Objects) -> Objects:
    return target._replace(boxes=target.boxes[:0], labels=target.labels[:0], areas=target.areas[:0])


def _on(target: Objects, like: Tensor) -> Objects:
    boxes, labels, areas, crowd, crowd_labels, scale = target
    return Objects(boxes.to(like), labels.to(like.device), areas, crowd.to(like), crowd_labels, scale)


def _counts(key: str, name: str) -> bool:
    """Whether part `key` of mmdet's losses belongs to our loss `name`."""
    if name == "objectness":
        return "loss" in key and any(word in key for word in OBJECTNESS_PARTS)
    return "loss" in key and (name == "train" or any(word in key for word in BOX_PARTS) == (name == "box"))


def _as_they_are(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return features


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width
