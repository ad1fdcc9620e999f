"""Losses on candidates, by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from sslrob_mmdet.losses import FLOOR, dag, fabricate, inside, ranking, rivals
from sslrob_mmdet.objects import Candidates, objects

TINY = 1e-30
BOX, FAR = [10.0, 10, 50, 50], [60.0, 60, 90, 90]
HALF, TENTH = [10.0, 10, 50, 30], [10.0, 10, 50, 16]  # IoU 0.5 and 0.15 with BOX


def candidates(boxes, scores, anything=()):
    """Each box with its scores for three classes."""
    logs = torch.tensor(scores).log().requires_grad_()
    return Candidates(torch.tensor(boxes)[:, None].expand(-1, 3, -1), logs, torch.tensor(anything).log())


def nothing():
    return objects(torch.empty(0, 4), torch.empty(0, dtype=torch.long))


def one(label=1, **regions):
    return objects(torch.tensor([BOX]), torch.tensor([label]), **regions)


def gradient(loss, found):
    (values,) = torch.autograd.grad(loss, found.logs)
    return values


def test_fabrication_is_the_mean_of_the_best_scores_of_both_stages():
    found = candidates([BOX, FAR], [[0.1, 0.5, 0.2], [0.3, 0.1, 0.1]])
    assert fabricate(found).item() == pytest.approx((log(0.5) + log(0.3)) / 2)
    two_stages = candidates([BOX, FAR], [[0.1, 0.5, 0.2], [0.3, 0.1, 0.1]], [0.5, 0.5, 0.25, 0.25])
    assert fabricate(two_stages).item() == pytest.approx((log(0.5) + log(0.3)) / 2 + (log(0.5) + log(0.25)) / 2)
    assert gradient(fabricate(found), found).tolist() == [[0, 0.5, 0], [0.5, 0, 0]]


def test_dag_pushes_the_candidates_that_are_right():
    found = candidates([BOX, TENTH, HALF, FAR], [[0.1, 0.8, 0.2], [0.1, 0.3, 0.2], [0.4, 0.3, 0.1], [0.1, 0.9, 0.1]])
    loss = dag(found, one())
    assert loss.item() == pytest.approx(log(0.2 / 0.8) + log(0.2 / 0.3) + log(0.4 / 0.3))
    assert gradient(loss, found).tolist() == [[0, -1, 1], [0, -1, 1], [0, 0, 0], [0, 0, 0]]
    unsure = candidates([BOX, HALF], [[0.02, 0.05, 0.01], [0.1, 0.6, 0.2]])
    assert gradient(dag(unsure, one()), unsure).tolist() == [[0, 0, 0], [0, -1, 1]]
    assert gradient(dag(unsure, one(0)), unsure).tolist() == [[-1, 1, 0], [-1, 1, 0]]
    low = candidates([BOX, HALF], [[0.02, 0.05, 0.01], [0.02, 0.01, 0.01]])
    assert gradient(dag(low, one()), low).tolist() == [[1, -1, 0], [0, 0, 0]]


def test_dag_pushes_all_once_none_is_right():
    found = candidates([BOX, HALF, FAR], [[0.3, 0.2, 0.1], [0.1, 0.2, 0.3], [0.1, 0.9, 0.1]])
    assert gradient(dag(found, one()), found).tolist() == [[1, -1, 0], [0, -1, 1], [0, 0, 0]]


def test_ranking_is_the_wrong_scores_over_the_right_ones():
    found = candidates([BOX, HALF, TENTH, FAR], [[0.1, 0.8, 0.2], [TINY, 0.4, TINY], [TINY, 0.6, TINY], [0.3, TINY, TINY]])
    wrong, right = 0.1**2 + 0.2**2 + 0.6**2 + 0.3**2, 0.8**2 + (0.1 * 0.4) ** 2  # an IoU of 0.5 is a tenth of precision
    loss = ranking(found, one())
    assert loss.item() == pytest.approx((log(wrong) - log(right)) / 2, abs=1e-5)
    pulled = gradient(loss, found)
    assert pulled[0].tolist() == pytest.approx([0.01 / wrong, -0.64 / right, 0.04 / wrong], abs=1e-5)
    assert pulled[:, 1].tolist() == pytest.approx([-0.64 / right, -0.0016 / right, 0.36 / wrong, 0], abs=1e-5)


def test_ranking_is_the_mean_over_the_objects():
    found = candidates([BOX, FAR], [[TINY, 0.8, TINY], [TINY, 0.2, TINY]])
    both = objects(torch.tensor([BOX, FAR]), torch.tensor([1, 1]))
    assert ranking(found, both).item() == pytest.approx(FLOOR - (log(0.8) + log(0.2)) / 2, abs=1e-5)


def test_ranking_follows_the_boxes_and_moves_them_off():
    near = [10.0, 10, 50, 40]  # IoU 0.75
    boxes = torch.tensor([near]).requires_grad_()
    found = candidates([near], [[TINY, 0.4, TINY]])._replace(boxes=boxes[:, None].expand(-1, 3, -1))
    (move,) = torch.autograd.grad(ranking(found, one()), boxes)
    assert move[0, 3] < 0  # higher, to overlap less
    lost = candidates([TENTH], [[TINY, 0.4, TINY]])
    assert ranking(lost, one()).item() == pytest.approx(log(0.4) - FLOOR, abs=1e-5)


def test_ranking_leaves_out_regions_that_do_not_count():
    found = candidates([BOX, FAR], [[TINY, 0.8, TINY], [0.3, TINY, TINY]])
    excused = one(crowd=torch.tensor([[55.0, 55, 95, 95]]))
    assert ranking(found, excused).item() == pytest.approx(FLOOR - log(0.8), abs=1e-5)


def test_without_objects_only_inventions_are_left():
    found = candidates([BOX, FAR], [[0.1, 0.5, 0.2], [0.3, 0.1, 0.1]])
    assert ranking(found, nothing()).item() == pytest.approx(log(0.41) / 2, abs=1e-5)
    loss = dag(found, nothing())
    assert loss.item() == 0
    assert not gradient(loss, found).any()
    assert rivals(found, nothing()).shape == (0,)


def test_without_candidates_there_is_no_signal():
    found = Candidates(torch.empty(0, 3, 4), torch.empty(0, 3).requires_grad_(), torch.empty(0))
    assert fabricate(found).item() == dag(found, one()).item() == ranking(found, one()).item() == 0
    assert rivals(found, one()).tolist() == [1]


def test_rivals_are_the_likeliest_wrong_classes_of_what_finds_the_object():
    scores = [[0.1, 0.8, 0.2], [0.3, 0.3, 0.1], [0.9, 0.1, 0.1]]
    found = candidates([BOX, HALF, FAR], scores)
    assert rivals(found, one()).tolist() == [0]  # 0.3 of the second; the third is elsewhere
    assert rivals(found, one(0)).tolist() == [1]
    nearest = candidates([TENTH, FAR], [[0.1, 0.8, 0.2], [0.9, 0.1, 0.1]])
    assert rivals(nearest, one()).tolist() == [2]


def test_a_share_inside_regions():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    assert inside(boxes, torch.tensor([[0.0, 0, 10, 5], [0, 0, 2, 10]])).tolist() == pytest.approx([0.5, 0])
    assert inside(boxes, torch.empty(0, 4)).tolist() == [0, 0]
