"""Whole detectors from mmdet's configs, against what mmdet itself computes."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sslrob_mmcv import bridge
from sslrob_mmdet import resolve_reference
from sslrob_mmdet.objects import objects
from sslrob_mmdet.task import Detection

from sslrob.errors import SslrobError
from sslrob.zoo import Weights

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
    victim = whole(configs[name], tmp_path / "weights.pth").eval()
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


def whole(config, weights=None, *, classes=(), **entry):
    """A detector, with the checkpoint of a zoo entry."""
    found = None if weights is None else Weights(file=weights, **entry)
    return Detection().whole(f"mmdet:{config}", weights=found, settings={}, classes=classes)


@pytest.fixture(scope="module")
def tensors(configs):
    return whole(configs["fcos"]).detector.state_dict()


def test_weights_that_do_not_fit(configs, tensors, tmp_path):
    file = tmp_path / "weights.pth"
    first = next(iter(tensors))
    torch.save({k: v for k, v in tensors.items() if k != first}, file)
    with pytest.raises(SslrobError, match=f"1 missing: {first}"):
        whole(configs["fcos"], file)
    torch.save({**tensors, first: torch.zeros(3)}, file)
    with pytest.raises(SslrobError, match=rf"fcos.py' do not fit: 1 of another shape: {first} \(3,\) for"):
        whole(configs["fcos"], file)
    torch.save({**tensors, first: tensors[first] * torch.nan}, file)
    with pytest.raises(SslrobError, match=f"'{first}' of .* holds NaN"):
        whole(configs["fcos"], file)
    file.write_bytes(b"nothing")
    with pytest.raises(SslrobError, match="cannot read"):
        whole(configs["fcos"], file)
    with pytest.raises(SslrobError, match="no weights"):
        whole(configs["fcos"], tmp_path / "nowhere.pth")


def test_every_word_of_a_weights_entry_counts(configs, tensors, tmp_path):
    mine = {f"student.{name}": tensor + 0.5 for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    more = {"teacher.x": torch.zeros(2), "student.ema.x": torch.zeros(2)}
    torch.save({"state_dict": {**mine, **more}}, tmp_path / "weights.pth")
    save_file({**mine, **more}, tmp_path / "weights.bin")
    first = next(iter(tensors))
    for file, entry in (("weights.pth", {}), ("weights.bin", {"format": "safetensors"})):
        victim = whole(configs["fcos"], tmp_path / file, drop_prefix="student.", ignore=("ema.",), **entry)
        assert torch.equal(victim.detector.state_dict()[first], tensors[first] + 0.5)
    with pytest.raises(SslrobError, match=r"1 unexpected: ema\.x"):
        whole(configs["fcos"], tmp_path / "weights.pth", drop_prefix="student.")


@pytest.mark.parametrize("name", list(BASES))
def test_another_number_of_classes_is_refused(configs, name):
    own = {"faster": 20, "fcos": 80}[name]
    assert whole(configs[name], classes=[f"class {i}" for i in range(own)])
    with pytest.raises(SslrobError, match=f"{name}.py' has {own} classes, but the data set has 3") as caught:
        whole(configs[name], classes=("a", "b", "c"))
    assert "data set" in caught.value.hint


def test_the_classes_that_a_checkpoint_names_must_be_the_data_sets(configs, tensors, tmp_path):
    names = [f"Thing {i}" for i in range(80)]
    torch.save({"state_dict": tensors, "meta": {"dataset_meta": {"classes": tuple(names)}}}, tmp_path / "weights.pth")
    assert whole(configs["fcos"], tmp_path / "weights.pth", classes=[name.replace("Thing ", "thing_") for name in names])
    with pytest.raises(SslrobError, match=r"class 0 of .* is 'Thing 0', but 'Thing 1' in the data set") as caught:
        whole(configs["fcos"], tmp_path / "weights.pth", classes=[names[1], names[0], *names[2:]])
    assert "another order" in caught.value.note
    with pytest.raises(SslrobError, match=r"class 79 of .* is 'Thing 79', but 'kite' in the data set") as caught:
        whole(configs["fcos"], tmp_path / "weights.pth", classes=[*names[:-1], "kite"])
    assert not caught.value.note


def test_configs_that_are_missing_or_wrong(tmp_path):
    with pytest.raises(SslrobError, match="'nowhere'"):
        whole("nowhere")
    (tmp_path / "broken.py").write_text("model = dict(\n")
    with warnings.catch_warnings(), pytest.raises(SslrobError, match="does not run"):
        whole(tmp_path / "broken.py")
    with pytest.raises(SslrobError, match="'scale'"):
        Detection().whole("mmdet:nowhere", weights=None, settings={"scale": 1}, classes=())


def test_a_description_is_of_the_model_and_not_of_its_file(configs, tmp_path):
    text = Detection.described(f"mmdet:{configs['fcos']}")
    assert text == Detection.described(f"mmdet:{configs['fcos']}")
    elsewhere = tmp_path / "other.py"
    elsewhere.write_text(f"# a copy\n{configs['fcos'].read_text()}")
    assert Detection.described(f"mmdet:{elsewhere}") == text
    elsewhere.write_text(configs["fcos"].read_text().replace("score_thr=0.001", "score_thr=0.002"))
    assert Detection.described(f"mmdet:{elsewhere}") != text
    with pytest.raises(SslrobError, match="'nowhere'") as caught:
        Detection.described("mmdet:nowhere")
    assert "mmdet:FILE.py" in caught.value.hint


def test_references():
    record = resolve_reference("victim", "mmdet:retinanet/retinanet_r50_fpn_1x_coco.py")
    assert (record.task, record.reference) == ("detection", "mmdet:retinanet/retinanet_r50_fpn_1x_coco.py")
    assert resolve_reference("victim", "mmseg:fcn") is None
    assert resolve_reference("backbone", "mmdet:retinanet/retinanet_r50_fpn_1x_coco.py") is None
