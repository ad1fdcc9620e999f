"""RoIAlign and RoIPool against torchvision, finite differences and worked examples."""

import pytest
import torch
import torchvision
from mmcv.ops import RoIAlign, RoIPool, roi_align, roi_pool
from torch import Tensor


def features_and_regions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 12, 16, generator=generator)
    corner = torch.rand(20, 2, generator=generator) * 40
    sides = 1 + torch.rand(20, 2, generator=generator) * 24
    image = torch.randint(0, 2, (20, 1), generator=generator)
    return features, torch.cat([image, corner, corner + sides], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_is_torchvisions(aligned: bool, sampling_ratio: int) -> None:
    features, regions = features_and_regions()
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    output = roi_align(ours, regions, (5, 7), 0.25, sampling_ratio, "avg", aligned)
    expected = torchvision.ops.roi_align(theirs, regions, (5, 7), 0.25, sampling_ratio, aligned)
    assert torch.equal(output, expected)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    assert ours.grad.abs().sum() > 0


def test_roi_align_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 6, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    regions = torch.tensor([[0, 1.0, 2.0, 9.0, 8.0], [1, 0.0, 0.0, 11.0, 11.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, regions, 2, 0.5, 2, "avg", True), (features,))


def test_roi_align_of_a_constant_is_that_constant() -> None:
    output = RoIAlign(3, spatial_scale=0.5)(torch.full((1, 1, 8, 8), 2.5), torch.tensor([[0, 2.0, 2.0, 12.0, 10.0]]))
    assert torch.allclose(output, torch.full((1, 1, 3, 3), 2.5))


def test_roi_align_by_maximum_is_not_implemented() -> None:
    features, regions = features_and_regions()
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        roi_align(features, regions, 2, 1.0, 0, "max", True)


def test_no_regions_at_all() -> None:
    features, regions = features_and_regions()
    assert roi_align(features, regions[:0], 2, 1.0, 0, "avg", True).shape == (0, 3, 2, 2)
    assert roi_pool(features, regions[:0], 2, 1.0).shape == (0, 3, 2, 2)


def test_roi_pool_is_torchvisions_where_no_corner_needs_rounding() -> None:
    features, regions = features_and_regions()
    regions = (regions / 4).floor()
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    output = RoIPool((2, 3))(ours, regions)
    expected = torchvision.ops.roi_pool(theirs, regions, (2, 3), 1.0)
    assert torch.equal(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad)


def test_roi_pool_by_hand_with_corners_between_pixels() -> None:
    # Scaled by 1/2 the region is [0.5, 3.5) x [1, 3); its halves are columns [0.5, 2) and [2, 3.5), which grow to columns 0-1 and 2-3.
    features = torch.arange(16.0).view(1, 1, 4, 4).requires_grad_()
    output = roi_pool(features, torch.tensor([[0, 1.0, 2.0, 6.0, 5.0]]), (1, 2), 0.5)
    assert output.flatten().tolist() == [9.0, 11.0]
    (output * torch.tensor([2.0, 3.0])).sum().backward()
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 2, 1], expected[0, 0, 2, 3] = 2.0, 3.0
    assert features.grad is not None
    assert torch.equal(features.grad, expected)


def test_roi_pool_outside_the_image_is_zero_and_passes_no_gradient() -> None:
    features = torch.full((1, 1, 4, 4), -1.0, requires_grad=True)
    output = roi_pool(features, torch.tensor([[0, 10.0, 10.0, 12.0, 12.0]]), 2, 1.0)
    output.sum().backward()
    assert output.abs().max() == 0
    assert features.grad is not None
    assert features.grad.abs().max() == 0


def test_roi_pool_gradient() -> None:
    features = torch.randperm(72, generator=torch.Generator().manual_seed(0)).double().view(2, 1, 6, 6).requires_grad_()
    regions = torch.tensor([[0, 1.0, 2.0, 9.0, 8.0], [1, 0.0, 0.0, 11.0, 11.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, regions, 2, 0.5), (features,))
