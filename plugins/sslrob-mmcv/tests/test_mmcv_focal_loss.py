"""Focal losses against the formula, cross entropy and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmcv.ops import SigmoidFocalLoss, sigmoid_focal_loss, softmax_focal_loss
from torch import Tensor

CLASSES = 5


def logits(dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(12, CLASSES, dtype=dtype, generator=torch.Generator().manual_seed(0))).requires_grad_()


def targets_with_background() -> Tensor:
    return torch.arange(12) % (CLASSES + 1)


def test_sigmoid_loss_by_formula() -> None:
    x, target = logits(), targets_with_background()
    loss = sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")
    for row in range(12):
        for column in range(CLASSES):
            p = 1 / (1 + math.exp(-x[row, column].item()))
            expected = -0.25 * (1 - p) ** 2 * math.log(p) if target[row] == column else -0.75 * p**2 * math.log(1 - p)
            assert loss[row, column].item() == pytest.approx(expected, rel=1e-9)


def test_sigmoid_loss_is_torchvisions() -> None:
    x, target = logits(torch.float32), targets_with_background()
    one_hot = F.one_hot(target, CLASSES + 1)[:, :CLASSES].float()
    expected = torchvision.ops.sigmoid_focal_loss(x, one_hot, alpha=0.25, gamma=2.0, reduction="sum")
    assert torch.allclose(sigmoid_focal_loss(x, target, 2.0, 0.25, None, "sum"), expected)


def test_sigmoid_loss_with_class_weights_leaves_background_alone() -> None:
    x, target = logits(), targets_with_background()
    weight = torch.linspace(0.5, 2, CLASSES, dtype=torch.float64)
    rows = torch.cat([weight, torch.ones(1, dtype=torch.float64)])[target]
    plain = sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")
    assert torch.allclose(sigmoid_focal_loss(x, target, 2.0, 0.25, weight, "none"), plain * rows[:, None])


def test_sigmoid_loss_of_extreme_logits_is_finite() -> None:
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = SigmoidFocalLoss(2.0, 0.25, reduction="sum")(x, torch.tensor([0, 0]))
    loss.backward()
    assert x.grad is not None
    assert loss.isfinite()
    assert x.grad.isfinite().all()


def test_softmax_loss_without_focus_is_cross_entropy() -> None:
    x = logits()
    target = torch.arange(12) % CLASSES
    expected = F.cross_entropy(x, target, reduction="none")
    assert torch.allclose(softmax_focal_loss(x, target, 0.0, 1.0, None, "none"), expected)


def test_softmax_loss_by_formula_ignores_negative_targets() -> None:
    x, target = logits(), targets_with_background() - 1
    weight = torch.linspace(0.5, 2, CLASSES, dtype=torch.float64)
    loss = softmax_focal_loss(x, target, 2.0, 0.25, weight, "none")
    probabilities = x.softmax(dim=1)
    for row in range(12):
        p, label = probabilities[row, target[row]].item(), int(target[row])
        expected = 0.0 if label < 0 else -0.25 * (1 - p) ** 2 * math.log(p) * float(weight[label])
        assert loss[row].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_gradients(reduction: str, weighted: bool) -> None:
    weight = torch.linspace(0.5, 2, CLASSES, dtype=torch.float64) if weighted else None
    with_background, with_ignored = targets_with_background(), targets_with_background() - 1
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, with_background, 2.0, 0.25, weight, reduction), (logits(),))
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, with_ignored, 2.0, 0.25, weight, reduction), (logits(),))


def test_half_precision_is_computed_in_single() -> None:
    x, target = logits(torch.float32).detach(), targets_with_background()
    half = sigmoid_focal_loss(x.half(), target, 2.0, 0.25, None, "none")
    assert half.dtype == torch.float16
    assert torch.allclose(half.float(), sigmoid_focal_loss(x.half().float(), target, 2.0, 0.25, None, "none"), rtol=1e-3, atol=1e-6)
