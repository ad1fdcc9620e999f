"""Overlaps of boxes, worked by hand."""

import pytest
import torch
from mmcv.ops import bbox_overlaps

FIRST = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 10.0, 20.0, 20.0], [32.0, 32.0, 38.0, 42.0]])
SECOND = torch.tensor([[0.0, 0.0, 10.0, 20.0], [0.0, 10.0, 10.0, 19.0], [10.0, 10.0, 20.0, 20.0]])


def test_union() -> None:
    expected = torch.tensor([[100 / 200, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert torch.allclose(bbox_overlaps(FIRST, SECOND), expected)


def test_over_the_first_box() -> None:
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert torch.allclose(bbox_overlaps(FIRST, SECOND, mode="iof"), expected)


def test_with_offset_touching_boxes_share_pixels() -> None:
    # 11 x 11 against 11 x 21, 11 x 10 and 11 x 11 pixels; they share 121, 11 and 1.
    expected = torch.tensor([121 / 231, 11 / (121 + 110 - 11), 1 / (121 + 121 - 1)])
    assert torch.allclose(bbox_overlaps(FIRST[:1], SECOND, offset=1)[0], expected)


@pytest.mark.parametrize(("mode", "expected"), [("iou", [0.5, 0.0, 0.0]), ("iof", [1.0, 0.0, 0.0])])
def test_aligned_pairs_rows(mode: str, expected: list[float]) -> None:
    assert bbox_overlaps(FIRST, SECOND, mode=mode, aligned=True).tolist() == expected


def test_aligned_with_offset() -> None:
    assert bbox_overlaps(FIRST[1:2], SECOND[2:3], aligned=True, offset=1).tolist() == [1.0]


def test_no_boxes_at_all() -> None:
    assert bbox_overlaps(FIRST[:0], SECOND).shape == (0, 3)
    assert bbox_overlaps(FIRST, SECOND[:0]).shape == (3, 0)


def test_no_area_is_not_a_number() -> None:
    point = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert bbox_overlaps(point, point).isnan().all()
