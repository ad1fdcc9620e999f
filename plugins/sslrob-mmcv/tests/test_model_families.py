"""The model families of mmdet and mmseg on this package's operators, from the configs they ship, with random weights and small images.

Each must give a finite gradient that is not zero from its loss to the image, and a prediction. The main families run by default, shrunk
where that costs nothing of their structure; the others are marked slow.
"""

import importlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

SIDE = 96
"""Height and width of the detectors' image, in pixels."""

SEGMENTORS_SIDE = 64

RESNET18 = {"backbone.depth": 18}
RESNET18_WITH_NECK = {**RESNET18, "neck.in_channels": [64, 128, 256, 512]}
RESNET18_DILATED = {**RESNET18, "decode_head.in_channels": 512, "auxiliary_head.in_channels": 256}
SHALLOW_TRANSFORMER = {"encoder.num_layers": 1, "decoder.num_layers": 2, "num_queries": 10, "test_cfg.max_per_img": 10}


@dataclass(frozen=True)
class Family:
    """A config under a package's ``.mim/configs``, and what is changed in its model to make it small.

    ``training`` names the modules that are in training mode while the loss is computed, alone, without their parts; "" is the model.
    ``masks`` says that it learns from masks too.
    """

    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    training: tuple[str, ...] = ()
    masks: bool = False


DETECTORS = {
    "faster-rcnn-fpn": Family("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", RESNET18_WITH_NECK),
    "fcos": Family("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", RESNET18_WITH_NECK),
    "retinanet": Family("retinanet/retinanet_r50_fpn_1x_coco.py", RESNET18_WITH_NECK),
    "mask-rcnn": Family("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", RESNET18_WITH_NECK, masks=True),
    "detr": Family("detr/detr_r50_8xb2-150e_coco.py", {**RESNET18, "neck.in_channels": [512], **SHALLOW_TRANSFORMER}),
}

SLOW_DETECTORS = {
    "atss": Family("atss/atss_r50_fpn_1x_coco.py"),
    "cascade-mask-rcnn": Family("cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", masks=True),
    "cascade-rcnn": Family("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"),
    "centernet": Family("centernet/centernet_r18_8xb16-crop512-140e_coco.py"),
    "centernet-dcn-v2": Family("centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py"),
    "conditional-detr": Family("conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"),
    "dab-detr": Family("dab_detr/dab-detr_r50_8xb2-50e_coco.py"),
    "deformable-detr": Family("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", training=("",)),
    # Two stages pick the queries among 193 places of a 96-pixel image.
    "deformable-detr-two-stage": Family(
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py", {"num_queries": 50}, training=("",)
    ),
    "dino": Family("dino/dino-4scale_r50_8xb2-12e_coco.py", {"num_queries": 50}, training=("",)),
    "faster-rcnn-c4": Family("faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py"),
    "faster-rcnn-dc5": Family("faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py"),
    "faster-rcnn-soft-nms": Family("faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco.py"),
    "fcos-dcn": Family("fcos/fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py"),
    "gfl": Family("gfl/gfl_r50_fpn_1x_coco.py"),
    "grid-rcnn": Family("grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py"),
    "libra-rcnn": Family("libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py"),
    "mask2former": Family("mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", masks=True),
    "reppoints": Family("reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py", training=("bbox_head",)),
    "rtmdet": Family("rtmdet/rtmdet_tiny_8xb32-300e_coco.py"),
    "sparse-rcnn": Family("sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py"),
    "yolov3": Family("yolo/yolov3_d53_8xb8-320-273e_coco.py"),
    "yolox": Family("yolox/yolox_tiny_8xb8-300e_coco.py"),
}

SEGMENTORS = {
    "fcn": Family("fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py", RESNET18_DILATED),
    "upernet": Family(
        "upernet/upernet_r50_4xb4-160k_ade20k-512x512.py",
        {**RESNET18, "decode_head.in_channels": [64, 128, 256, 512], "decode_head.channels": 64, "auxiliary_head.in_channels": 256},
    ),
    "deeplabv3plus": Family(
        "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py",
        {**RESNET18_DILATED, "decode_head.c1_in_channels": 64, "decode_head.channels": 128},
    ),
    "segformer": Family("segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py"),
}

SLOW_SEGMENTORS = {
    "beit-upernet": Family("beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py", {"backbone.img_size": (SEGMENTORS_SIDE, SEGMENTORS_SIDE)}),
    "bisenetv2": Family("bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py"),
    "ccnet": Family("ccnet/ccnet_r50-d8_4xb4-160k_ade20k-512x512.py"),
    "deeplabv3": Family("deeplabv3/deeplabv3_r50-d8_4xb4-160k_ade20k-512x512.py"),
    "dpt": Family("dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py"),
    "mask2former": Family("mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"),
    "maskformer": Family("maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py"),
    "ocrnet": Family("ocrnet/ocrnet_hr18_4xb4-160k_ade20k-512x512.py"),
    "pspnet": Family("pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py"),
    "segmenter": Family("segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py"),
    "segnext": Family("segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py"),
    "setr-naive": Family("setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py"),
    "swin-upernet": Family("swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"),
    "unet": Family("unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py"),
    "vit-upernet": Family("vit/vit_deit-s16_upernet_8xb2-160k_ade20k-512x512.py"),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the two libraries warn of what they do themselves, and not report every initialised weight; start from the same random state."""
    torch.manual_seed(0)
    monkeypatch.setattr("mmengine.model.base_module.BaseModule._dump_init_info", lambda *args: None)
    np.random.seed(0)  # mmdet's instance balanced sampler uses it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def build(package: str, family: Family) -> Any:
    """The family's model with random weights, in inference mode."""
    module = importlib.import_module(package)
    importlib.import_module(f"{package}.utils").register_all_modules(init_default_scope=False)
    config = Config.fromfile(Path(module.__file__).parent / ".mim" / "configs" / family.config)
    config.merge_from_dict({f"model.{key}": value for key, value in family.changes.items()})
    with MODELS.switch_scope_and_registry(package) as registry:
        model = registry.build(without_pretraining(config.model))
        model.init_weights()
    return model.eval()


def without_pretraining(config: Any) -> Any:
    """``config`` without weights to download, and without normalisation across processes."""
    if isinstance(config, Mapping):
        kept = {key: value for key, value in config.items() if key != "pretrained"}
        if isinstance(kept.get("init_cfg"), Mapping) and kept["init_cfg"]["type"] == "Pretrained":
            del kept["init_cfg"]
        return ConfigDict({key: "BN" if value == "SyncBN" else without_pretraining(value) for key, value in kept.items()})
    if isinstance(config, (list, tuple)):
        return type(config)(without_pretraining(part) for part in config)
    return config


def gradient_of_loss(model: Any, family: Family, images: torch.Tensor, samples: list[Any]) -> torch.Tensor:
    """The gradient of the model's total loss with respect to ``images``."""
    for name in family.training:
        model.get_submodule(name).training = True
    images = images.clone().requires_grad_()
    total, _ = model.parse_losses(model.loss(images, samples))
    model.eval()
    (gradient,) = torch.autograd.grad(total, images)
    return gradient


def some_image(side: int) -> torch.Tensor:
    """Smooth noise (1, 3, side, side) of unit variance, as a normalised picture has."""
    coarse = torch.randn(1, 3, side // 8, side // 8)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") + 0.1 * torch.randn(1, 3, side, side)


def metainfo(side: int) -> dict[str, Any]:
    """What the heads read of an image that was neither resized nor padded; ``border`` is CenterNet's."""
    shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (side, side))
    return {**shapes, "scale_factor": (1.0, 1.0), "border": [0.0] * 4}


def check_detector(family: Family) -> None:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    model = build("mmdet", family)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 56.0], [30.0, 20.0, 88.0, 70.0]])
    sample = DetDataSample(metainfo=metainfo(SIDE))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    if family.masks:
        filled = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(filled, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances.masks = BitmapMasks(filled, SIDE, SIDE)
    images = some_image(SIDE)

    gradient = gradient_of_loss(model, family, images, [sample])
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    with torch.no_grad():
        (prediction,) = model.predict(images, [sample])
    found = prediction.pred_instances
    assert found.bboxes.shape == (len(found.scores), 4)
    assert found.scores.isfinite().all()
    assert not found.bboxes.isnan().any()  # random weights may well give boxes of infinite size


def check_segmentor(family: Family) -> None:
    from mmseg.structures import SegDataSample

    model = build("mmseg", family)
    labels = torch.zeros(1, SEGMENTORS_SIDE, SEGMENTORS_SIDE, dtype=torch.long)
    labels[:, 16:40, 8:50] = 1
    labels[:, :4] = 255
    sample = SegDataSample(metainfo=metainfo(SEGMENTORS_SIDE), gt_sem_seg=PixelData(data=labels))
    images = some_image(SEGMENTORS_SIDE)

    gradient = gradient_of_loss(model, family, images, [sample])
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    with torch.no_grad():
        (prediction,) = model.predict(images, [sample])
    assert prediction.pred_sem_seg.data.shape == (1, SEGMENTORS_SIDE, SEGMENTORS_SIDE)
    assert prediction.seg_logits.data.isfinite().all()


@pytest.mark.parametrize("name", DETECTORS)
def test_detector(name: str) -> None:
    check_detector(DETECTORS[name])


@pytest.mark.parametrize("name", SEGMENTORS)
def test_segmentor(name: str) -> None:
    check_segmentor(SEGMENTORS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_DETECTORS)
def test_slow_detector(name: str) -> None:
    check_detector(SLOW_DETECTORS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_SEGMENTORS)
def test_slow_segmentor(name: str) -> None:
    check_segmentor(SLOW_SEGMENTORS[name])
