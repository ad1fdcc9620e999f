"""Every family of detectors, whole and untrained: losses of one image, without chance."""

from __future__ import annotations

import pytest
import torch
from sslrob_mmdet.objects import objects
from sslrob_mmdet.task import Detection

FAMILIES = {  # and the side of images that they need
    "retinanet/retinanet_r50_fpn_1x_coco.py": 96,
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py": 96,
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": 96,
    "atss/atss_r50_fpn_1x_coco.py": 96,
    "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py": 96,
    "detr/detr_r50_8xb2-150e_coco.py": 96,
    "dino/dino-4scale_r50_8xb2-12e_coco.py": 256,
    "yolox/yolox_s_8xb8-300e_coco.py": 96,
    "libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py": 96,
    "reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py": 128,
}
CANDIDATES = ("fabricate", "mislabel", "dag", "ranking")
MORE = {  # losses than those that every detector has
    "retinanet": CANDIDATES,
    "cascade_rcnn": ("objectness",),
    "mask_rcnn": ("objectness", *CANDIDATES),
    "atss": ("objectness", *CANDIDATES),
    "yolox": ("objectness",),
    "libra_rcnn": ("objectness", *CANDIDATES),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:To copy construct")  # of mmcv and mmdet
@pytest.mark.parametrize(("config", "side"), FAMILIES.items())
def test_a_loss_is_of_one_image_and_the_same_each_time(config, side):
    torch.manual_seed(0)
    victim = Detection().whole(f"mmdet:{config}", weights=None, settings={}, classes=()).eval().requires_grad_(False)
    images = torch.rand(2, 3, side, side + 20, generator=torch.Generator().manual_seed(1))
    truths = [objects(torch.tensor([[10.0, 20, 70, 80]]), torch.tensor([3])), objects(torch.tensor([[30.0, 5, 90, 60]]), torch.tensor([7]))]

    def look(images, truths):
        x = images.clone().requires_grad_()
        outputs = victim(x)
        loss = victim.loss(outputs, truths, "train", 1.0)
        return loss.detach(), torch.autograd.grad(loss.sum(), x)[0], outputs

    loss, gradient, outputs = look(images, truths)
    again, gradient_again, _ = look(images, truths)
    assert torch.equal(loss, again)
    assert torch.equal(gradient, gradient_again)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    alone, _, _ = look(images[1:], truths[1:])
    torch.testing.assert_close(alone[0], loss[1], rtol=1e-4, atol=1e-4)
    for name in victim.losses:
        assert victim.loss(outputs, truths, name, 1.0).isfinite().all(), name
    assert {"train", "cls", "box", "vanish", *MORE.get(config.partition("/")[0], ())} == {*victim.losses}
    assert victim.fooled(outputs, truths).shape == (2,)
    assert victim.quality(outputs, truths).isfinite().all()
    assert len(victim.predict(outputs)) == 2
