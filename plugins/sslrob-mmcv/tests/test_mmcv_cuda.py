"""Every operator gives on a CUDA device what it gives on the CPU, gradients included."""

from collections.abc import Callable

import pytest
import torch
from mmcv.ops import (
    bbox_overlaps,
    deform_conv2d,
    modulated_deform_conv2d,
    nms,
    nms_match,
    roi_align,
    roi_pool,
    sigmoid_focal_loss,
    soft_nms,
    softmax_focal_loss,
)
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def boxes() -> Tensor:
    corner = 30 * normal(80, 2).abs()
    return torch.cat([corner, corner + 5 + 20 * normal(80, 2, seed=1).abs()], dim=1)


SCORES = torch.randperm(80, generator=torch.Generator().manual_seed(2)) / 80
REGIONS = torch.cat([torch.arange(80.0)[:, None] % 2, boxes()], dim=1)
LEVELS = torch.tensor([[4, 5], [3, 2]])
STARTS = torch.tensor([0, 20])

DIFFERENTIABLE: dict[str, tuple[Callable[..., Tensor], list[Tensor], list[Tensor]]] = {
    "roi_align": (lambda x, regions: roi_align(x, regions, 5, 0.25, 2, "avg", True), [normal(2, 3, 30, 30)], [REGIONS]),
    "roi_pool": (lambda x, regions: roi_pool(x, regions, 3, 0.25), [normal(2, 3, 30, 30)], [REGIONS]),
    "deform_conv": (lambda *t: deform_conv2d(*t, 1, 1), [normal(2, 4, 6, 6), normal(2, 18, 6, 6), normal(4, 4, 3, 3)], []),
    "modulated_deform_conv": (
        lambda *t: modulated_deform_conv2d(*t, 1, 1),
        [normal(2, 4, 6, 6), normal(2, 18, 6, 6), normal(2, 9, 6, 6), normal(4, 4, 3, 3), normal(4)],
        [],
    ),
    "ms_deform_attn": (
        lambda value, locations, weights, levels, starts: MultiScaleDeformableAttnFunction.apply(
            value, levels, starts, locations, weights, 64
        ),
        [normal(2, 26, 2, 4), normal(2, 5, 2, 2, 3, 2).sigmoid(), normal(2, 5, 2, 2, 3)],
        [LEVELS, STARTS],
    ),
    "sigmoid_focal_loss": (lambda x, target: sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none"), [normal(7, 4)], [torch.arange(7) % 5]),
    "softmax_focal_loss": (lambda x, target: softmax_focal_loss(x, target, 2.0, 0.25, None, "sum"), [normal(7, 4)], [torch.arange(7) % 4]),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_values_and_gradients(name: str) -> None:
    function, leaves, others = DIFFERENTIABLE[name]
    results = []
    for device in ("cpu", "cuda"):
        inputs = [leaf.to(device, copy=True).requires_grad_() for leaf in leaves]
        output = function(*inputs, *(other.to(device) for other in others))
        assert output.device.type == device
        results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("offset", [0, 1])
def test_boxes(offset: int) -> None:
    here = boxes()
    there, scores = here.cuda(), SCORES.cuda()
    for suppress in (nms, soft_nms):
        dets, kept = suppress(there, scores, 0.5, offset=offset)
        wanted, indices = suppress(here, SCORES, 0.5, offset=offset)
        assert kept.device.type == "cuda"
        assert kept.tolist() == indices.tolist()
        torch.testing.assert_close(dets.cpu(), wanted)
    torch.testing.assert_close(bbox_overlaps(there, there, offset=offset).cpu(), bbox_overlaps(here, here, offset=offset))


def test_nms_match() -> None:
    dets = torch.cat([boxes(), SCORES[:, None]], dim=1)
    assert [group.tolist() for group in nms_match(dets.cuda(), 0.4)] == [group.tolist() for group in nms_match(dets, 0.4)]


def test_soft_nms_itself_on_the_device() -> None:
    from mmcv import _ext

    results = []
    for device in ("cpu", "cuda"):
        dets = torch.empty(80, 5, device=device)
        kept = _ext.softnms(boxes().to(device), SCORES.to(device), dets, 0.3, 0.5, 0.05, 1, 0)
        results.append((kept.tolist(), dets[: len(kept)].cpu()))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[1][1], results[0][1])
