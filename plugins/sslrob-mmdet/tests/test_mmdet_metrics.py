"""COCO metrics from rows, against pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import time

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sslrob_mmdet import metrics
from sslrob_mmdet.objects import Detections, Objects

NAMES = ("mAP", "AP50", "AP75", "APs", "APm", "APl")


def random_rows(n: int, classes: int, seed: int, *, side: float = 300.0, per_image: int = 20, ties: bool = False) -> list[dict]:
    """Objects of all sizes, some of them crowds; detections near objects, doubled, mislabelled or invented."""
    rng = np.random.default_rng(seed)

    def boxes(k: int) -> np.ndarray:
        corner, size = rng.uniform(0, 0.6 * side, (k, 2)), np.exp(rng.uniform(np.log(8), np.log(side), (k, 2)))
        return np.round(np.concatenate([corner, corner + size], axis=1), 2)

    rows = []
    for i in range(n):
        k, j = (int(rng.integers(0, 5)), int(rng.integers(0, 2))) if i else (0, 0)
        true, labels, crowd = boxes(k), rng.integers(0, classes, k), boxes(j)
        crowd_labels = rng.integers(0, classes, j)
        both, both_labels = np.concatenate([true, crowd]), np.concatenate([labels, crowd_labels])
        copies = rng.integers(0, max(len(both), 1), per_image // 2) if len(both) else np.zeros(0, dtype=int)
        near = both[copies] + rng.normal(0, 4, (len(copies), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        near_labels = np.where(rng.random(len(copies)) < 0.8, both_labels[copies], rng.integers(0, classes, len(copies)))
        invented = boxes(per_image - len(copies))
        found = np.round(np.concatenate([near, invented]), 2)
        scores = np.round(rng.random(len(found)), 1 if ties else 5)
        order = np.argsort(-scores, kind="stable")
        found_labels = np.concatenate([near_labels, rng.integers(0, classes, len(invented))])
        prediction = Detections(*(torch.from_numpy(x[order]) for x in (found, scores, found_labels)))
        areas = np.round((true[:, 2:] - true[:, :2]).prod(1) * rng.uniform(0.5, 1, k), 2)
        truth = Objects(*(torch.from_numpy(x) for x in (true, labels, areas, crowd, crowd_labels)))
        rows.append(metrics.row(prediction, truth))
    return json.loads(json.dumps(rows))


def reference(rows: list[dict], classes: int) -> dict[str, float]:
    """What pycocotools makes of the same rows, in percent, without its -1 for sizes of which there are no objects."""
    annotations, results = [], []

    def xywh(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    for i, row in enumerate(rows):
        truth = row["truth"]
        for crowd, boxes, labels, areas in (
            (0, truth["boxes"], truth["labels"], truth["areas"]),
            (1, truth["crowd"], truth["crowd_labels"], [1.0] * len(truth["crowd"])),
        ):
            for box, label, area in zip(boxes, labels, areas, strict=True):
                fields = {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label,
                    "bbox": xywh(box),
                    "area": area,
                    "iscrowd": crowd,
                }
                annotations.append(fields)
        for box, score, label in zip(row["boxes"], row["scores"], row["labels"], strict=True):
            results.append({"image_id": i, "category_id": label, "bbox": xywh(box), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(rows))],
            "annotations": annotations,
            "categories": [{"id": c, "name": str(c)} for c in range(classes)],
        }
        truth.createIndex()
        found = COCO()
        found.dataset = {
            **truth.dataset,
            "annotations": [{**r, "id": k, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0} for k, r in enumerate(results, start=1)],
        }
        found.createIndex()
        judge = COCOeval(truth, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: 100 * value for name, value in zip(NAMES, judge.stats[:6].tolist(), strict=True) if value >= 0}


@pytest.mark.parametrize(("n", "classes", "seed", "ties"), [(40, 3, 0, False), (40, 3, 1, True), (60, 10, 2, False), (40, 1, 3, True)])
def test_equal_to_pycocotools(n, classes, seed, ties):
    rows = random_rows(n, classes, seed, ties=ties)
    assert any(row["truth"]["crowd"] for row in rows)
    ours, theirs = metrics.aggregator(rows)(np.ones(n)), reference(rows, classes)
    assert set(theirs) == set(NAMES)
    assert 5 < theirs["mAP"] < 95
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_more_than_a_hundred_detections_do_not_count():
    rows = random_rows(4, 1, 5, per_image=260)
    assert metrics.aggregator(rows)(np.ones(4)) == pytest.approx(reference(rows, 1), rel=1e-6)


def test_a_weight_is_a_number_of_copies():
    rows = random_rows(12, 3, 4)
    weights = np.random.default_rng(0).integers(0, 4, len(rows))
    copies = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    weighted, copied = metrics.aggregator(rows)(weights.astype(float)), metrics.aggregator(copies)(np.ones(len(copies)))
    assert weighted == pytest.approx(copied, abs=0.5)  # copies have equal scores and are counted one by one
    doubled = metrics.aggregator(rows)(np.full(len(rows), 2.0))
    assert doubled == pytest.approx(metrics.aggregator(rows)(np.ones(len(rows))), rel=1e-9)


def test_a_perfect_detector_and_a_blind_one():
    truth = Objects(*(torch.tensor(x) for x in ([[10.0, 10, 50, 60]], [1], [2000.0])), torch.empty(0, 4), torch.empty(0, dtype=torch.long))
    seen = metrics.row(Detections(truth.boxes, torch.tensor([0.9]), truth.labels), truth)
    missed = metrics.row(Detections(truth.boxes[:0], torch.empty(0), truth.labels[:0]), truth)
    assert metrics.aggregator([seen])(np.ones(1)) == pytest.approx(dict.fromkeys(("mAP", "AP50", "AP75", "APm"), 100.0))
    assert metrics.aggregator([missed])(np.ones(1)) == dict.fromkeys(("mAP", "AP50", "AP75", "APm"), 0.0)
    assert metrics.aggregator([seen, missed])(np.array([1.0, 3.0]))["mAP"] == pytest.approx(100 * 26 / 101)  # recall 0, 0.01, … 0.25


def test_without_objects_there_are_no_metrics():
    nothing = Objects(
        torch.empty(0, 4), torch.empty(0, dtype=torch.long), torch.empty(0), torch.empty(0, 4), torch.empty(0, dtype=torch.long)
    )
    row = metrics.row(Detections(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.5]), torch.tensor([0])), nothing)
    assert metrics.aggregator([row])(np.ones(1)) == {}
    assert metrics.aggregator([])(np.ones(0)) == {}
    rows = random_rows(10, 2, 0)
    without = np.array([float(not row["truth"]["boxes"]) for row in rows])
    assert without.any()
    assert metrics.aggregator(rows)(without) == {}


def test_rows_of_a_resized_image_are_in_annotation_pixels():
    truth = Objects(
        torch.tensor([[20.0, 10, 60, 40]]),
        torch.tensor([0]),
        torch.tensor([300.0]),
        torch.empty(0, 4),
        torch.empty(0, dtype=torch.long),
        scale=(4.0, 2.0),
    )
    row = metrics.row(Detections(torch.tensor([[20.0, 10, 60, 42]]), torch.tensor([0.5]), torch.tensor([0])), truth)
    assert row["truth"]["boxes"] == [[5.0, 5.0, 15.0, 20.0]]
    assert row["boxes"] == [[5.0, 5.0, 15.0, 21.0]]


def test_many_weightings_are_cheap():
    rows = random_rows(300, 10, 6)
    aggregate = metrics.aggregator(rows)
    weights = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), size=20).astype(float)
    start = time.process_time()
    for one in weights:
        aggregate(one)
    assert time.process_time() - start < 0.6  # ten times what it takes on one idle core of 2026
