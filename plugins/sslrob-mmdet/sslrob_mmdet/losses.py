"""Losses on a detector's candidates: what its scores are before overlapping boxes are dropped.

Which candidates stand for which object is settled anew at every look, by the boxes as they are then: a loss that keeps the first matching
goes on pushing candidates that no longer matter.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from sslrob_mmdet.objects import Candidates, Objects

NAMES = "train", "cls", "box", "objectness", "vanish", "fabricate", "mislabel", "dag", "ranking"  # see `MMDetVictim.loss`
STRONGEST = "train", "ranking", "cls"  # of a cascade; measured on the embedded collection
NEAR, SURE = 0.1, log(0.1)  # IoU and logarithm of the score from which a candidate stands for an object in DAG
FOUND = 0.5  # IoU from which a detection finds one
FLOOR = log(1e-4)  # of the scores that matter


def fabricate(found: Candidates) -> Tensor:
    """How much of an object the detector sees everywhere: the mean logarithm of the candidates' best scores (Chow et al., TOG, 2020).

    In two stages it is the first one's, too, over all its places.
    """
    parts = [part.mean() for part in (found.logs.amax(1), found.anything) if len(part)]
    return torch.stack(parts).sum() if parts else found.logs.sum()


def dag(found: Candidates, truth: Objects) -> Tensor:
    """By how much the likeliest wrong class leads, summed over candidates that overlap an object by more than 0.1 (Xie et al., ICCV 2017).

    Its gradient is that of the candidates that are still right and score more than 0.1; where none does, of those that are right; where none
    is, of all.
    """
    there, true = overlaps(found, truth).detach() > NEAR, found.logs[:, truth.labels].T
    best, classes = found.logs.topk(2, dim=1)
    wrong = torch.where(classes[:, 0] == truth.labels[:, None], best[:, 1], best[:, 0])
    lead = torch.where(there, wrong - true, 0)
    right = there & (lead < 0)
    sure = right & (true > SURE)
    pushed = torch.where(sure.any(), sure, torch.where(right.any(), right, there))
    return lead.detach().sum() + (lead * pushed).sum() - (lead * pushed).detach().sum()


def ranking(found: Candidates, truth: Objects) -> Tensor:
    """How far candidates that are wrong outrank those that are right, as average precision will have it.

    The logarithm of the length (the root of the sum of squares, in which high scores decide) of the scores of candidates that find no object
    of their class, less the mean over the objects of that of the candidates that find them (IoU of at least 0.5), each score times the share
    of COCO's thresholds of IoU that the box reaches.  Candidates in regions that do not count are left out.
    """
    overlap, mine = overlaps(found, truth), found.logs[:, truth.labels].T
    finding = overlap.detach() >= FOUND
    precise = ((overlap - 0.45) / 0.5).clamp(0.1, 1)  # the share of 0.5, 0.55, … 0.95 that the IoU reaches, without its stairs
    right = _length((mine + precise.log()).masked_fill(~finding, -torch.inf))
    one_hot = torch.nn.functional.one_hot(truth.labels, found.logs.shape[1]).bool()
    excused = (finding[:, :, None] & one_hot[:, None]).any(0) | (inside(found.boxes.detach(), truth.crowd) >= FOUND)
    wrong = _length(found.logs.masked_fill(excused, -torch.inf).flatten()[None])[0]
    return wrong - right.sum() / max(len(right), 1)


def rivals(found: Candidates, truth: Objects) -> Tensor:
    """(j,) for each object the wrong class of the highest score, among the candidates that find it, else the one that comes nearest."""
    if not len(truth.labels) or not len(found.logs):
        return truth.labels
    overlap = overlaps(found, truth).detach()
    there = overlap >= overlap.amax(1, keepdim=True).clamp_max(FOUND)
    best = found.logs.detach().expand(len(truth.labels), -1, -1).masked_fill(~there[:, :, None], -torch.inf).amax(1)
    return best.scatter(1, truth.labels[:, None], -torch.inf).argmax(1)


def inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """(…) the largest share of each of the boxes (…, 4) that lies in one of the regions (j, 4); 0 where there are none."""
    corner, end = torch.maximum(boxes[..., None, :2], regions[:, :2]), torch.minimum(boxes[..., None, 2:], regions[:, 2:])
    shares = (end - corner).clamp(min=0).prod(-1) / (boxes[..., 2:] - boxes[..., :2]).prod(-1).clamp(min=1e-6)[..., None]
    return torch.cat([shares, shares.new_zeros(*shares.shape[:-1], 1)], -1).amax(-1)


def overlaps(found: Candidates, truth: Objects) -> Tensor:
    """(j, k) IoU of every object with the candidates' boxes for its class."""
    boxes = found.boxes[:, truth.labels].transpose(0, 1)
    corner, end = torch.maximum(boxes[..., :2], truth.boxes[:, None, :2]), torch.minimum(boxes[..., 2:], truth.boxes[:, None, 2:])
    shared = (end - corner).clamp(min=0).prod(-1)
    own, other = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, truth.boxes[:, None]))
    return shared / (own + other - shared).clamp(min=1e-6)


def _length(logs: Tensor) -> Tensor:
    """(j,) the logarithm of the length of the scores whose logarithms are (j, k); never below `FLOOR`."""
    return torch.cat([2 * logs, logs.new_full((len(logs), 1), 2 * FLOOR)], 1).logsumexp(1) / 2
