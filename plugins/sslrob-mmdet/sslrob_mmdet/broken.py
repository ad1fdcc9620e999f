"""What went wrong in an image: objects that were missed, misclassified or mislocalised, and invented ones.

After TIDE (Bolya et al., A General Toolbox for Identifying Object Detection Errors, ECCV 2020), with its thresholds of IoU: 0.5 finds an
object, 0.1 or less is background.  TIDE weighs each kind of error by the average precision it costs in a whole data set; here objects are
counted, so that an image has its own numbers.  Counting needs to know which detections are meant: those with a score of at least 0.3, and in
any case as many of the best as the image has objects, since detectors are not equally sure of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslrob.task import Aggregator, Row
from sslrob_mmdet.metrics import Array, boxes_of, overlaps

FOUND, BACKGROUND = 0.5, 0.1  # of IoU
MEANT = 0.3  # detections with this score count in any case
KINDS = "missed", "misclassified", "mislocalised", "invented"


def count(row: Row) -> dict[str, int]:
    """How many objects there are, and of each of `KINDS`.

    An object is *found* by a detection of its class (IoU of at least 0.5), each of which finds one, the best first.  One that is not is
    *misclassified* where another class's detection is on it (at least 0.5), else *mislocalised* where its class's is near (at least 0.1),
    else *missed*.  A detection is *invented* where no object is (at most 0.1 of IoU with any), nor a region of its class that does not count.
    Second detections of one object, and those near an object of another class, are none of these.

    Args:
        row: as `metrics.row()` makes it.
    """
    truth = row["truth"]
    objects, true = boxes_of(truth["boxes"]), np.array(truth["labels"], dtype=np.int64)
    scores = np.array(row["scores"], dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    order = order[: max(len(objects), int((scores >= MEANT).sum()))]
    boxes, labels = boxes_of(row["boxes"])[order], np.array(row["labels"], dtype=np.int64)[order]
    overlap, same = overlaps(boxes, objects, np.zeros(len(objects), dtype=bool)), labels[:, None] == true
    found, spent = np.zeros(len(objects), dtype=bool), np.zeros(len(boxes), dtype=bool)
    for k, able in enumerate(np.where(same, overlap, 0)):
        able = np.where(found, 0, able)
        if len(objects) and able.max() >= FOUND:
            found[able.argmax()] = spent[k] = True
    left = overlap * ~spent[:, None]
    other = (left * ~same).max(0, initial=0) >= FOUND
    near = (left * same).max(0, initial=0) >= BACKGROUND
    regions, theirs = boxes_of(truth["crowd"]), np.array(truth["crowd_labels"], dtype=np.int64)
    inside = overlaps(boxes, regions, np.ones(len(regions), dtype=bool)) * (labels[:, None] == theirs)
    nothing = (overlap.max(1, initial=0) <= BACKGROUND) & (inside.max(1, initial=0) < FOUND)
    told = (~found & ~other & ~near, ~found & other, ~found & ~other & near, nothing)
    return {"objects": len(objects), **{kind: int(which.sum()) for kind, which in zip(KINDS, told, strict=True)}}


def aggregator(rows: Sequence[Row]) -> Aggregator:
    """From (n,) weights of the rows to the number of each of `KINDS` per 100 objects: in percent of the objects, but for the invented.

    None of them where there are no objects, or a row was written before they were counted.
    """
    counted = [row["broken"] for row in rows if "broken" in row]
    if len(counted) < len(rows) or not counted:
        return lambda weights: {}
    table = np.array([[one[key] for key in ("objects", *KINDS)] for one in counted], dtype=np.float64)

    def aggregate(weights: Array) -> dict[str, float]:
        objects, *sums = (weights @ table).tolist()
        return {kind: 100 * total / objects for kind, total in zip(KINDS, sums, strict=True)} if objects else {}

    return aggregate
