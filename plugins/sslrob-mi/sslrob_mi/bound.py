"""InfoNCE between clean and adversarial images (van den Oord et al. 2018): what training raises and the attack inside it lowers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sslrob import Backbone, Feedback, Objective
from sslrob.objective import Access, Cost


def scores(asked: Tensor, known: Tensor, temperature: float) -> Tensor:
    """(n, m) how well embeddings (n, width) and (m, width) go together: their cosine over the temperature."""
    return F.normalize(asked, dim=1) @ F.normalize(known, dim=1).T / temperature


def info_nce(pairs: Tensor) -> Tensor:
    """(n,) what is lost, in nats, when each image is sought among the n: log n less this is a lower bound of the mutual information.

    Both ways are averaged: the clean image sought by the adversarial one, and the adversarial one by the clean image.

    Args:
        pairs: (n, n) scores; row i and column i belong to one image.
    """
    own = pairs.diagonal()
    return (pairs.logsumexp(1) + pairs.logsumexp(0)) / 2 - own


@dataclass(frozen=True)
class BoundObjective(Objective):
    """Raise an image's share of `info_nce`, so that its embedding says no more which image it was.

    The negatives are the clean images of the batch in both ways, so that no image's loss depends on another's move.  It knows no labels:
    nothing is ever fooled.
    """

    backbone: Backbone
    temperature: float
    known: Tensor  # (m, width) embeddings of all clean images of the batch
    own: Tensor  # (n,) which of them is each image's

    def _look(self, images: Tensor, progress: float) -> Feedback:
        del progress
        pairs = scores(self.backbone(images).pooled, self.known, self.temperature)
        column = self.own[:, None]
        right = pairs.gather(1, column)[:, 0]
        others = scores(self.known[self.own], self.known, self.temperature).scatter(1, column, -torch.inf)
        loss = (pairs.logsumexp(1) + torch.logaddexp(right, others.logsumexp(1))) / 2 - right
        return Feedback(loss, lambda: torch.zeros_like(loss, dtype=torch.bool), lambda: -loss)

    def _subset(self, keep: Tensor) -> Objective:
        return replace(self, own=self.own[keep])


def bound_objective(backbone: Backbone, known: Tensor, temperature: float, access: Access) -> BoundObjective:
    """The objective on the images whose clean embeddings are `known`, (n, width)."""
    n, device = len(known), known.device
    index = torch.arange(n, device=device)
    return BoundObjective(access, Cost(n, device), index, backbone, temperature, known.detach(), index)
