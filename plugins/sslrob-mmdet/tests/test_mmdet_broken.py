"""What went wrong in an image, on cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sslrob_mmdet import broken, metrics
from sslrob_mmdet.objects import Detections, objects
from sslrob_mmdet.task import Detection

BOX, FAR = [10.0, 10, 50, 50], [60.0, 60, 90, 90]


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float).reshape(-1, 4)


def counted(found, truth, crowd=()):
    """`found`: (box, score, label) each; `truth`, `crowd`: (box, label) each."""
    seen = Detections(boxes(*(f[0] for f in found)), torch.tensor([float(f[1]) for f in found]), torch.tensor([int(f[2]) for f in found]))
    regions = {"crowd": boxes(*(c[0] for c in crowd)), "crowd_labels": torch.tensor([int(c[1]) for c in crowd])}
    real = objects(boxes(*(t[0] for t in truth)), torch.tensor([int(t[1]) for t in truth], dtype=torch.long), **regions)
    told = broken.count(metrics.row(seen, real))
    assert told.pop("objects") == len(truth)
    return {kind: n for kind, n in told.items() if n}


def lowered(box, share):
    """A box whose IoU with `box` is `share`: a part of its height."""
    return [box[0], box[1], box[2], box[1] + share * (box[3] - box[1])]


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([(BOX, 0.9, 1)], {}),
        ([(lowered(BOX, 0.5), 0.9, 1)], {}),
        ([(BOX, 0.9, 2)], {"misclassified": 1}),
        ([(BOX, 0.9, 2), (BOX, 0.8, 1)], {}),  # found all the same
        ([(lowered(BOX, 0.45), 0.9, 1)], {"mislocalised": 1}),
        ([(lowered(BOX, 0.45), 0.9, 2)], {"missed": 1}),  # both wrong: no other kind
        ([(lowered(BOX, 0.45), 0.9, 1), (BOX, 0.8, 2)], {"misclassified": 1}),
        ([(lowered(BOX, 0.08), 0.9, 1)], {"missed": 1, "invented": 1}),
        ([(FAR, 0.9, 1)], {"missed": 1, "invented": 1}),
        ([(FAR, 0.9, 2), (BOX, 0.8, 1)], {"invented": 1}),
        ([(BOX, 0.9, 1), (BOX, 0.8, 1)], {}),  # a second detection of one object is none of the kinds
        ([], {"missed": 1}),
    ],
)
def test_one_object(found, wrong):
    assert counted(found, [(BOX, 1)]) == wrong


def test_a_detection_finds_one_object_and_a_used_one_spoils_none():
    near = [12.0, 10, 52, 50]  # IoU 0.9
    assert counted([(BOX, 0.9, 1)], [(BOX, 1), (near, 1)]) == {"missed": 1}
    assert counted([(BOX, 0.9, 1)], [(BOX, 1), (near, 2)]) == {"missed": 1}
    assert counted([(BOX, 0.9, 1), (near, 0.8, 1)], [(BOX, 1), (near, 1)]) == {}


def test_the_detections_that_are_meant():
    """Those above 0.3, and in any case as many of the best as there are objects."""
    assert counted([(BOX, 0.1, 1)], [(BOX, 1)]) == {}
    assert counted([(FAR, 0.2, 1), (BOX, 0.1, 1)], [(BOX, 1)]) == {"missed": 1, "invented": 1}
    assert counted([(FAR, 0.4, 1), (BOX, 0.3, 1)], [(BOX, 1)]) == {"invented": 1}
    assert counted([(FAR, 0.29, 1)], []) == {}
    assert counted([(FAR, 0.3, 1), (BOX, 0.9, 1)], []) == {"invented": 2}


def test_nothing_is_invented_in_a_region_of_its_class_that_does_not_count():
    assert counted([(FAR, 0.9, 1), (BOX, 0.9, 1)], [(BOX, 1)], crowd=[([55, 55, 95, 95], 1)]) == {}
    assert counted([(FAR, 0.9, 1), (BOX, 0.9, 1)], [(BOX, 1)], crowd=[([55, 55, 95, 95], 2)]) == {"invented": 1}


def test_metrics_are_per_100_objects_and_left_out_of_older_rows():
    task, truth = Detection(), objects(boxes(BOX, FAR), torch.tensor([1, 1]))
    right = task.measure(Detections(truth.boxes, torch.tensor([0.9, 0.8]), truth.labels), truth)
    wrong = task.measure(
        Detections(boxes(BOX, [0, 60, 20, 90], [60, 0, 90, 9]), torch.tensor([0.9, 0.8, 0.7]), torch.tensor([2, 1, 1])), truth
    )
    assert right["broken"] == {"objects": 2, "missed": 0, "misclassified": 0, "mislocalised": 0, "invented": 0}
    assert wrong["broken"] == {"objects": 2, "missed": 1, "misclassified": 1, "mislocalised": 0, "invented": 2}
    aggregate = task.aggregator([right, wrong])
    told = aggregate(np.ones(2))
    assert {kind: told[kind] for kind in broken.KINDS} == {"missed": 25, "misclassified": 25, "mislocalised": 0, "invented": 50}
    assert aggregate(np.array([0.0, 3.0]))["invented"] == 100
    assert set(task.intervals([right, wrong])) >= {"mAP", *broken.KINDS}
    older = [{key: value for key, value in row.items() if key != "broken"} for row in (right, wrong)]
    for rows in (older, [right, older[1]]):
        assert set(task.aggregate(rows)) == {"mAP", "AP50", "AP75", "APs", "APm"}
    assert task.aggregate([]) == {}


def test_without_objects_there_is_nothing_to_compare_with():
    row = Detection().measure(
        Detections(boxes(BOX), torch.tensor([0.9]), torch.tensor([0])), objects(boxes(), torch.tensor([], dtype=torch.long))
    )
    assert row["broken"]["invented"] == 1
    assert Detection().aggregate([row]) == {}
