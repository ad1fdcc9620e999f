"""Non-maximum suppression against torchvision, worked examples and plain loops, through mmcv's own functions."""

import math

import numpy as np
import pytest
import torch
import torchvision
from mmcv.ops import batched_nms, nms, nms_match, soft_nms
from torch import Tensor


def random_boxes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes of 1 to 41 pixels in a 100-pixel square, with distinct scores: they overlap in every degree."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 40], dim=1)
    return boxes, torch.randperm(count, generator=generator) / count


def iou(a: Tensor, b: Tensor, offset: int = 0) -> float:
    """IoU of two boxes in Python floats."""
    ax1, ay1, ax2, ay2 = a.tolist()
    bx1, by1, bx2, by2 = b.tolist()
    shared = max(0.0, min(ax2, bx2) - max(ax1, bx1) + offset) * max(0.0, min(ay2, by2) - max(ay1, by1) + offset)
    areas = (ax2 - ax1 + offset) * (ay2 - ay1 + offset) + (bx2 - bx1 + offset) * (by2 - by1 + offset)
    return shared / (areas - shared)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_nms_is_torchvisions(threshold: float) -> None:
    boxes, scores = random_boxes(200)
    dets, kept = nms(boxes, scores, threshold)
    assert torch.equal(kept, torchvision.ops.nms(boxes, scores, threshold))
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])


def test_nms_with_offset_counts_pixels() -> None:
    # 3 x 3 and 3 x 2 pixels, 6 shared: IoU 6/9; without the offset 2/4.
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.6, offset=1)[1].tolist() == [0]
    assert nms(boxes, scores, 0.6, offset=0)[1].tolist() == [0, 1]
    assert boxes[0, 2] == 2, "the caller's boxes must not change"


def test_nms_keeps_a_box_at_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])  # IoU exactly 1/2
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5)[1].tolist() == [0, 1]


def test_nms_score_threshold_max_num_and_numpy() -> None:
    boxes, scores = random_boxes(50)
    dets, kept = nms(boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.2, max_num=3)
    above = torch.nonzero(scores > 0.2).squeeze(1)
    expected = above[torchvision.ops.nms(boxes[above], scores[above], 0.5)][:3]
    assert isinstance(dets, np.ndarray)
    assert kept.tolist() == expected.tolist()


def test_no_boxes_at_all() -> None:
    none, scores = torch.zeros(0, 4), torch.zeros(0)
    assert [len(part) for part in nms(none, scores, 0.5)] == [0, 0]
    assert [len(part) for part in soft_nms(none, scores)] == [0, 0]
    assert nms_match(torch.zeros(0, 5), 0.5) == []


def test_batched_nms_is_torchvisions() -> None:
    boxes, scores = random_boxes(120)
    classes = torch.arange(120) % 4
    _, kept = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})
    assert torch.equal(kept, torchvision.ops.batched_nms(boxes, scores, classes, 0.5))


def test_soft_nms_by_hand() -> None:
    # The first two overlap by 1/2, the third is apart.
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0], [10.0, 10.0, 12.0, 12.0]])
    scores = torch.tensor([0.9, 0.8, 0.5])
    expected = {
        "linear": ([0, 2, 1], [0.9, 0.5, 0.8 * (1 - 0.5)]),
        "gaussian": ([0, 2, 1], [0.9, 0.5, 0.8 * math.exp(-(0.5**2) / 0.5)]),
        "naive": ([0, 2], [0.9, 0.5]),
    }
    for method, (order, values) in expected.items():
        dets, kept = soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, method=method)
        assert kept.tolist() == order, method
        assert torch.allclose(dets[:, 4], torch.tensor(values)), method
        assert torch.equal(dets[:, :4], boxes[kept]), method


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
def test_soft_nms_is_the_plain_loop(method: str, offset: int) -> None:
    boxes, scores = random_boxes(40, seed=1)
    left = dict(enumerate(scores.tolist()))
    order, values = [], []
    while left:
        best = max(left, key=left.__getitem__)
        order.append(best)
        values.append(left.pop(best))
        for other in list(left):
            overlap = iou(boxes[best], boxes[other], offset)
            if method == "gaussian":
                left[other] *= math.exp(-(overlap**2) / 0.5)
            elif overlap >= 0.3:
                left[other] *= 1 - overlap if method == "linear" else 0
            if left[other] < 0.05:
                del left[other]
    dets, kept = soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=offset)
    assert kept.tolist() == order
    assert torch.allclose(dets[:, 4], torch.tensor(values), atol=1e-6)


def test_soft_nms_without_a_floor_keeps_every_box() -> None:
    boxes, scores = random_boxes(30, seed=2)
    _, kept = soft_nms(boxes, scores, iou_threshold=0.3, min_score=0.0, method="naive")
    assert sorted(kept.tolist()) == list(range(30))


def test_nms_match_is_the_plain_loop() -> None:
    boxes, scores = random_boxes(60, seed=3)
    waiting = sorted(range(60), key=lambda index: -float(scores[index]))
    expected = []
    while waiting:
        best, *rest = waiting
        suppressed = [other for other in rest if iou(boxes[best], boxes[other]) >= 0.4]
        expected.append([best, *suppressed])
        waiting = [other for other in rest if other not in suppressed]
    groups = nms_match(torch.cat([boxes, scores[:, None]], dim=1), 0.4)
    assert [group.tolist() for group in groups] == expected
    assert any(len(group) > 1 for group in groups)


def test_nms_match_suppresses_at_the_threshold() -> None:
    dets = torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.8], [0.0, 0.0, 2.0, 1.0, 0.9]])  # IoU exactly 1/2
    assert [group.tolist() for group in nms_match(dets, 0.5)] == [[1, 0]]
