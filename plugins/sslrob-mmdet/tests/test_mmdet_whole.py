"""Whole detectors from mmdet's configs, against what mmdet itself computes."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from sslrob_mmcv import bridge
from sslrob_mmdet import resolve_reference
from sslrob_mmdet.objects import objects
from sslrob_mmdet.task import Detection

from sslrob.errors import SslrobError

SMALL = "backbone=dict(depth=18, base_channels=16, init_cfg=None), neck=dict(in_channels=[16, 32, 64, 128], out_channels=32), "
BASES = {  # and what makes them small, and lets untrained heads find something
    "faster": (
        "pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
        "rpn_head=dict(in_channels=32, feat_channels=32), test_cfg=dict(rcnn=dict(score_thr=0.01)), "
        "roi_head=dict(bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32, fc_out_channels=32))",
    ),
    "fcos": (
        "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
        "bbox_head=dict(in_channels=32, feat_channels=32), test_cfg=dict(score_thr=0.001)",
    ),
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> dict[str, Path]:
    """mmdet's own configs with a smaller backbone."""
    shipped = Path(find_spec("mmdet").origin).parent / ".mim" / "configs"
    folder = tmp_path_factory.mktemp("configs")
    written = {}
    for name, (base, more) in BASES.items():
        written[name] = folder / f"{name}.py"
        written[name].write_text(f"_base_ = {str(shipped / base)!r}\nmodel = dict({SMALL}{more})\n")
    return written


def scene():
    image = torch.rand(3, 75, 150, generator=torch.Generator().manual_seed(0))
    return image, objects(torch.tensor([[5.0, 10, 45, 60], [30, 30, 85, 70]]), torch.tensor([3, 7]))


def theirs(path: Path):
    """Loss, gradient and predictions by mmdet's own way: an image as OpenCV reads it, the data_preprocessor, the model."""
    models = bridge.models("mmdet")
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from sslrob_mmdet.sampling import stable

    torch.manual_seed(0)
    model = bridge.build(models, stable(bridge.read_config(str(path), "mmdet"))).train()  # its config freezes BatchNorm
    image, truth = scene()
    size = tuple(image.shape[1:])
    sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0), "img_id": 0})
    sample.gt_instances = InstanceData(bboxes=truth.boxes, labels=truth.labels)
    sample.ignored_instances = InstanceData(bboxes=truth.crowd)
    x = image.clone().requires_grad_()
    data = model.data_preprocessor({"inputs": [x.flip(0) * 255], "data_samples": [sample]}, training=True)
    loss, _ = model.parse_losses(model.loss(*data.values()))
    (gradient,) = torch.autograd.grad(loss, x)
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor({"inputs": [image.flip(0) * 255], "data_samples": [sample]}, training=False)
        found = model.predict(*data.values(), rescale=False)[0].pred_instances
    return loss.detach(), gradient, found, model.state_dict()


@pytest.mark.parametrize("name", list(BASES))
def test_equal_to_mmdet(configs, name, tmp_path):
    loss, gradient, found, weights = theirs(configs[name])
    torch.save({"state_dict": weights, "meta": {"epoch": 12}}, tmp_path / "weights.pth")
    victim = Detection().whole(f"mmdet:{configs[name]}", weights=tmp_path / "weights.pth", settings={}).eval()
    image, truth = scene()
    x = image[None].clone().requires_grad_()
    outputs = victim(x)
    ours = victim.loss(outputs, [truth], "train", 1.0)
    (our_gradient,) = torch.autograd.grad(ours.sum(), x)
    torch.testing.assert_close(ours[0].detach(), loss, rtol=1e-4, atol=1e-5)
    assert (our_gradient[0] - gradient).norm() <= 1e-2 * gradient.norm()
    assert len(found.scores) > 0
    prediction = victim.predict(outputs)[0]
    torch.testing.assert_close(prediction.boxes, found.bboxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(prediction.scores, found.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(prediction.labels, found.labels)
    assert victim.backbone is None


def test_weights_that_do_not_fit(configs, tmp_path):
    task, reference = Detection(), f"mmdet:{configs['fcos']}"
    weights = task.whole(reference, weights=None, settings={}).detector.state_dict()
    file = tmp_path / "weights.pth"
    first = next(iter(weights))
    torch.save({k: v for k, v in weights.items() if k != first}, file)
    with pytest.raises(SslrobError, match=f"1 missing, such as '{first}'"):
        task.whole(reference, weights=file, settings={})
    torch.save({**weights, first: torch.zeros(3)}, file)
    with pytest.raises(SslrobError, match="does not fit"):
        task.whole(reference, weights=file, settings={})
    file.write_bytes(b"nothing")
    with pytest.raises(SslrobError, match="cannot read"):
        task.whole(reference, weights=file, settings={})
    with pytest.raises(SslrobError, match="no weights"):
        task.whole(reference, weights=tmp_path / "nowhere.pth", settings={})


def test_configs_that_are_missing_or_wrong(tmp_path):
    task = Detection()
    with pytest.raises(SslrobError, match="'nowhere'"):
        task.whole("mmdet:nowhere", weights=None, settings={})
    (tmp_path / "broken.py").write_text("model = dict(\n")
    with warnings.catch_warnings(), pytest.raises(SslrobError, match="does not run"):
        task.whole(f"mmdet:{tmp_path / 'broken.py'}", weights=None, settings={})
    with pytest.raises(SslrobError, match="'scale'"):
        task.whole("mmdet:nowhere", weights=None, settings={"scale": 1})


def test_references():
    record = resolve_reference("mmdet:retinanet/retinanet_r50_fpn_1x_coco.py")
    assert (record.task, record.reference) == ("detection", "mmdet:retinanet/retinanet_r50_fpn_1x_coco.py")
    assert resolve_reference("mmseg:fcn") is None
