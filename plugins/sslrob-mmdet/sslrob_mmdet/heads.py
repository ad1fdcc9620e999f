"""The detectors that are built on a backbone: settings, and mmdet's configs made from them.

The defaults suit images of about 128 pixels with objects of 30 to 70; each class says what large images want.
Head layers are normalised by groups, never by batches: a loss of one image then depends on that image alone, in training too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

from sslrob.backbone import Backbone
from sslrob.errors import SslrobError, unknown
from sslrob.settings import checked

GROUPS = 8  # of channels that are normalised together
FINEST = 8  # stride of the usual pyramid
Config = dict[str, Any]


@dataclass(frozen=True)
class _Detector:
    """What all detectors have in common.

    Args:
        width: channels of the pyramid's maps and of the head, a multiple of 8.
        finest: stride in pixels of the pyramid's finest map; one of the backbone's.  0: 8, or the next that it has, as a ViT's 16.
        levels: of the pyramid, each with twice the stride of the one before; as many as the backbone has maps from `finest` on, or more.
        score: detections with a lower score are dropped.
        overlap: of two detections of one class that overlap more (IoU), the worse one is dropped.
        keep: detections an image.
    """

    width: int = 64
    finest: int = 0
    levels: int = 3
    score: float = 0.05
    overlap: float = 0.6
    keep: int = 100

    def strides(self) -> list[int]:
        return [self.finest * 2**level for level in range(self.levels)]

    def pyramid(self, backbone: Backbone) -> Config:
        """A feature pyramid network; Lin et al., CVPR 2017."""
        start = backbone.strides.index(self.finest)
        return {
            "type": "FPN",
            "in_channels": list(backbone.channels),
            "out_channels": self.width,
            "start_level": start,
            "num_outs": self.levels,
            "add_extra_convs": "on_output" if self.levels > len(backbone.channels) - start else False,
            "relu_before_extra_convs": True,
        }

    def found(self) -> Config:
        return {"score_thr": self.score, "nms": {"type": "nms", "iou_threshold": self.overlap}, "max_per_img": self.keep}


@dataclass(frozen=True)
class FCOS(_Detector):
    """Points on feature maps that predict a class, a box and how central they are; Tian et al., ICCV 2019, with centre sampling and GIoU.

    Large images: `levels=5, reach=8, width=256, convs=4`, as in the paper.

    Args:
        convs: layers before each prediction.
        reach: level i takes objects whose farther sides are up to `reach` strides away, the last level all that are farther.
        radius: points within this many strides of an object's centre belong to it.
    """

    convs: int = 2
    reach: float = 4.0
    radius: float = 1.5

    def config(self, backbone: Backbone, classes: int) -> Config:
        strides = self.strides()
        ends = [self.reach * stride for stride in strides[:-1]]
        start = {"type": "Normal", "name": "conv_reg", "std": 0.01, "bias": log(self.reach * self.finest / 2)}  # of distances, by exp()
        return {
            "type": "FCOS",
            "neck": self.pyramid(backbone),
            "bbox_head": {
                "type": "FCOSHead",
                "num_classes": classes,
                "in_channels": self.width,
                "feat_channels": self.width,
                "stacked_convs": self.convs,
                "strides": strides,
                "regress_ranges": tuple(zip([-1, *ends], [*ends, 1e8], strict=True)),
                "center_sampling": True,
                "center_sample_radius": self.radius,
                "centerness_on_reg": True,
                "norm_cfg": {"type": "GN", "num_groups": GROUPS, "requires_grad": True},
                "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0},
                "init_cfg": {
                    "type": "Normal",
                    "layer": "Conv2d",
                    "std": 0.01,
                    "override": [{"type": "Normal", "name": "conv_cls", "std": 0.01, "bias_prob": 0.01}, start],
                },
            },
            "test_cfg": {"nms_pre": 1000, "min_bbox_size": 0, **self.found()},
        }


@dataclass(frozen=True)
class FasterRCNN(_Detector):
    """Proposals from anchors, then a class and a box for each; Ren et al., NeurIPS 2015.

    Large images: `finest=4, levels=5, anchor=8, width=256, proposals=1000, anchors=256, regions=512, samples=0, hidden=1024`, as in
    mmdet.

    Args:
        anchor: side of a level's square anchor, in strides.
        proposals: regions an image that the second stage looks at.
        anchors, regions: how many of an image are in the losses of the first and of the second stage.
        samples: of a map along each side of a region's 7 × 7 cells; 0: as many as its size asks for.
        hidden: width of the second stage's two layers.
    """

    anchor: float = 4.0
    proposals: int = 100
    anchors: int = 128
    regions: int = 64
    samples: int = 1
    hidden: int = 256

    def config(self, backbone: Backbone, classes: int) -> Config:
        strides = self.strides()
        coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4}
        cross_entropy, l1 = {"type": "CrossEntropyLoss", "loss_weight": 1.0}, {"type": "L1Loss", "loss_weight": 1.0}
        proposals = {
            "nms_pre": 3 * self.proposals,
            "max_per_img": self.proposals,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        }
        assigner, rest = {"type": "MaxIoUAssigner", "ignore_iof_thr": 0.5}, {"pos_weight": -1, "debug": False}
        sampler = {"type": "StableSampler", "neg_pos_ub": -1}
        return {
            "type": "FasterRCNN",
            "neck": self.pyramid(backbone),
            "rpn_head": {
                "type": "RPNHead",
                "in_channels": self.width,
                "feat_channels": self.width,
                "anchor_generator": {"type": "AnchorGenerator", "scales": [self.anchor], "ratios": [0.5, 1.0, 2.0], "strides": strides},
                "bbox_coder": {**coder, "target_stds": [1.0] * 4},
                "loss_cls": {**cross_entropy, "use_sigmoid": True},
                "loss_bbox": l1,
            },
            "roi_head": {
                "type": "StandardRoIHead",
                "bbox_roi_extractor": {
                    "type": "SingleRoIExtractor",
                    "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": self.samples},
                    "out_channels": self.width,
                    "featmap_strides": strides[:4],
                    "finest_scale": 14 * self.finest,
                },
                "bbox_head": {
                    "type": "Shared2FCBBoxHead",
                    "in_channels": self.width,
                    "fc_out_channels": self.hidden,
                    "roi_feat_size": 7,
                    "num_classes": classes,
                    "bbox_coder": {**coder, "target_stds": [0.1, 0.1, 0.2, 0.2]},
                    "reg_class_agnostic": False,
                    "loss_cls": {**cross_entropy, "use_sigmoid": False},
                    "loss_bbox": l1,
                },
            },
            "train_cfg": {
                "rpn": {
                    "assigner": {**assigner, "pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3},
                    "sampler": {**sampler, "num": self.anchors, "pos_fraction": 0.5, "add_gt_as_proposals": False},
                    "allowed_border": -1,
                    **rest,
                },
                "rpn_proposal": proposals,
                "rcnn": {
                    "assigner": {**assigner, "pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0.5, "match_low_quality": False},
                    "sampler": {**sampler, "num": self.regions, "pos_fraction": 0.25, "add_gt_as_proposals": True},
                    **rest,
                },
            },
            "test_cfg": {"rpn": proposals, "rcnn": self.found()},
        }


KINDS: dict[str, type[FCOS] | type[FasterRCNN]] = {"fcos": FCOS, "faster-rcnn": FasterRCNN}


def config(backbone: Backbone, *, kind: str, classes: int, settings: Mapping[str, Any]) -> Config:
    """mmdet's config of a detector, all but its backbone.

    Raises:
        SslrobError: there is no such kind or setting, or the backbone does not fit it.
    """
    if kind not in KINDS:
        raise unknown("detection head", kind, KINDS)
    head: FCOS | FasterRCNN = checked(KINDS[kind], settings, f"head {kind!r}")
    for name, allowed in (("width", head.width > 0 and head.width % GROUPS == 0), ("levels", head.levels > 0)):
        if not allowed:
            raise SslrobError(
                f"setting {name!r} of head {kind!r} cannot be {getattr(head, name)}",
                hint=f"give a multiple of {GROUPS}" if name == "width" else "give a positive number",
            )
    if head.finest == 0:
        head = replace(head, finest=min((stride for stride in backbone.strides if stride >= FINEST), default=max(backbone.strides)))
    if head.finest not in backbone.strides:
        raise SslrobError(
            f"setting 'finest' of head {kind!r} is {head.finest}, but the backbone's maps have strides {_list(backbone.strides)}",
            hint="give one of these strides",
        )
    maps = len(backbone.strides) - backbone.strides.index(head.finest)
    if head.levels < maps or list(backbone.strides[-maps:]) != head.strides()[:maps]:
        raise SslrobError(
            f"a pyramid with strides {_list(head.strides())} does not fit a backbone whose maps have strides {_list(backbone.strides)}",
            hint=f"set levels to at least {maps}, over maps whose strides double",
        )
    return head.config(backbone, classes)


def _list(strides: Sequence[int]) -> str:
    return ", ".join(map(str, strides))
