"""Losses of victims that give every class a score, (n, classes) each; labels and aims are (n,) columns."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TARGETED = ("dlr-targeted", "ce-targeted", "margin-targeted")  # of `pull`
TINY = 1e-12


def lead(scores: Tensor, labels: Tensor) -> Tensor:
    """(n,) by how much the true class's score exceeds the best wrong one's."""
    return _of(scores, labels) - scores.scatter(1, labels[:, None], -torch.inf).amax(1)


def margins(scores: Tensor, labels: Tensor) -> Tensor:
    """See `sslrob.task.Victim.margins`."""
    return (_of(scores, labels)[:, None] - scores).scatter(1, labels[:, None], torch.inf)


def dlr(scores: Tensor, labels: Tensor) -> Tensor:
    """(n,) minus the lead, in units of the distance from the best score to the third: the difference of logits ratio (Croce & Hein, ICML 2020).

    No scale or shift of the scores changes it.  With two classes there is no third: then minus the lead.
    """
    return _in_units(-lead(scores, labels), scores, (2,))


def pull(scores: Tensor, labels: Tensor, aims: Tensor, name: str) -> Tensor:
    """See `sslrob.task.Victim.pull`.

    `dlr-targeted`: the aim's score less the true one's, in units of the distance from the best to the mean of the third and the fourth, as
    far as there are so many classes (Croce & Hein, ICML 2020).  `ce-targeted`: the aim's log-probability.  `margin-targeted`: the aim's
    score less the true one's.
    """
    if name == "ce-targeted":
        return -F.cross_entropy(scores, aims, reduction="none")
    behind = _of(scores, aims) - _of(scores, labels)
    return behind if name == "margin-targeted" else _in_units(behind, scores, (2, 3))


def _of(scores: Tensor, columns: Tensor) -> Tensor:
    return scores.gather(1, columns[:, None])[:, 0]


def _in_units(values: Tensor, scores: Tensor, ranks: tuple[int, ...]) -> Tensor:
    """Values in units of the distance from the best score to the mean of those at `ranks`, counted from 0, that there are."""
    first, last = ranks[0], min(ranks[-1], scores.shape[1] - 1)
    if last < first:
        return values
    ordered = scores.topk(last + 1, dim=1).values
    return values / (ordered[:, 0] - ordered[:, first : last + 1].mean(1) + TINY)
