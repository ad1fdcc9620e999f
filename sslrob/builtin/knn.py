"""Nearest neighbours as a classifier: no weights but a memory of embeddings, whose classes vote; and three ways to follow its gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sslrob.backbone import Backbone
from sslrob.builtin import scores
from sslrob.data import Batch
from sslrob.evaluate import at_rest
from sslrob.task import Remembering

NOWHERE = -1e4  # similarity to the empty places of the memory, which a class with fewer images than another has
SOFTNESS = 0.1  # of the border between who votes and who does not, as a share of the neighbours' range; chosen on 200 crops of mini-crops
SMALLEST = 1e-6  # range, below which two neighbours are as near as each other


@dataclass(frozen=True)
class Neighbours:
    """Who is near, and how the near ones vote: by default as in Wu et al., CVPR 2018, and in most of self-supervised learning since.

    `cosine` is that of the angle between two embeddings, as the backbone gives them: nothing is subtracted first.  `l2` is minus half the
    squared Euclidean distance, in units of the memory's mean squared distance from its centre: for unit vectors about the origin the two
    differ by a constant, so that a temperature means the same with both.  The classifier of Chen et al., ICASSP 2020, is
    `{neighbours: 75, temperature: null, distance: l2}`.
    """

    neighbours: Annotated[int, Field(ge=1, description="how many vote; those as near as the last of them vote too")] = 20
    temperature: Annotated[
        float | None, Field(gt=0, description="a vote counts exp(similarity / temperature); null: every vote counts one")
    ] = 0.07
    distance: Annotated[Literal["cosine", "l2"], Field(description="between embeddings")] = "cosine"


class NearestNeighbours(Remembering):
    """The nearest of the remembered embeddings vote with their classes.

    Outputs: similarities (n, classes, places), `NOWHERE` where a place is empty.  Fooled: the true class does not have the most votes
    alone.  Quality: the true class's share of the votes less the best wrong one's, in [-1, 1].

    Args:
        classes: how many.
    """

    losses = ("margin", "vote", "guide")
    targeted = scores.TARGETED

    def __init__(self, backbone: Backbone, classes: int, settings: Neighbours | None = None) -> None:
        super().__init__()
        self.body, self.classes, self.settings, self.remembered = backbone, classes, settings or Neighbours(), 0
        self.register_buffer("memory", torch.zeros(classes, 0, backbone.width))
        self.register_buffer("empty", torch.ones(classes, 0, dtype=torch.bool))
        self.register_buffer("centre", torch.zeros(backbone.width))  # of the memory, for l2, which it changes in its rounding alone
        self.register_buffer("spread", torch.ones(()))  # mean squared distance from it
        self.memory: Tensor
        self.empty: Tensor
        self.centre: Tensor
        self.spread: Tensor

    @property
    def backbone(self) -> Backbone:
        return self.body

    @torch.no_grad()
    def remember(self, batches: Iterable[Batch]) -> None:
        """See `Remembering.remember`.  A class of which there is no image is never voted for."""
        device, embeddings = self.centre.device, []
        labels: list[int] = []
        with at_rest(self):
            for batch in batches:
                embeddings.append(self.body(batch.images.to(device)).pooled)
                labels += batch.targets
        known, classes = torch.cat(embeddings), torch.tensor(labels, device=device)
        centre = known.mean(0)
        self.spread = (known - centre).square().sum(1).mean().clamp_min(torch.finfo(known.dtype).tiny)
        if self.settings.distance == "l2":
            self.centre = centre
        known = self._placed(known)
        members = [(classes == label).nonzero()[:, 0] for label in range(self.classes)]
        self.memory = known.new_zeros(self.classes, max(len(own) for own in members), known.shape[1])
        self.empty = torch.ones(self.memory.shape[:2], dtype=torch.bool, device=device)
        for label, own in enumerate(members):
            self.memory[label, : len(own)] = known[own]
            self.empty[label, : len(own)] = False
        self.remembered = len(known)

    def forward(self, images: Tensor) -> Tensor:
        if not self.remembered:
            raise ValueError("nothing is remembered yet: call remember() first")
        asked, known = self._placed(self.body(images).pooled), self.memory.flatten(0, 1)
        near: Tensor = asked @ known.T
        if self.settings.distance == "l2":
            near = (near - (asked.square().sum(1, keepdim=True) + known.square().sum(1)) / 2) / self.spread
        return near.view(-1, *self.empty.shape).masked_fill(self.empty, NOWHERE)

    def loss(self, outputs: Tensor, targets: Sequence[int], name: str, progress: float) -> Tensor:
        """How near the vote is to being lost.

        `margin`: the best wrong class's soft votes against the true one's, as a log ratio.  `vote`: cross-entropy of the soft votes.
        `guide`: the mean similarity to the nearest embeddings of the nearest wrong class, less that to the true class's; half as many of
        each as vote (after Sitawarin & Wagner, SPW 2019).  Which ones are near is decided anew for every image that is looked at.
        """
        del progress
        votes = self._guides(outputs) if name == "guide" else self.soft_votes(outputs)
        labels = self._labels(outputs, targets)
        return F.cross_entropy(votes, labels, reduction="none") if name == "vote" else -scores.lead(votes, labels)

    def prepared(self, targets: Sequence[int]) -> Any:
        return torch.as_tensor(targets, device=self.centre.device)

    def margins(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        """Of the soft votes: where one is lost the vote is all but lost, not exactly."""
        return scores.margins(self.soft_votes(outputs), self._labels(outputs, targets))

    def pull(self, outputs: Tensor, targets: Sequence[int], aims: Tensor, name: str) -> Tensor:
        return scores.pull(self.soft_votes(outputs), self._labels(outputs, targets), aims, name)

    def soft_votes(self, outputs: Tensor) -> Tensor:
        """(n, classes) logarithms of the votes, with a soft border between who votes and who does not.

        A neighbour's vote is multiplied by sigmoid((similarity - border) / softness), where the border lies midway between the last that
        votes and the first that does not, and moves with the image; the softness is `SOFTNESS` of the way from there to the nearest
        (after Sitawarin & Wagner, SPW 2020).  All that is remembered has a gradient, but what decides has most of it.
        """
        nearest = outputs.flatten(1).topk(min(self.settings.neighbours + 1, self.remembered), dim=1).values
        border = nearest[:, -2:].mean(1)[:, None, None]
        reach = (nearest[:, 0] - nearest[:, -1]).detach().clamp_min(SMALLEST)[:, None, None]
        votes = F.logsigmoid((outputs - border) / (SOFTNESS * reach))
        if self.settings.temperature is not None:
            votes = votes + outputs / self.settings.temperature
        return votes.logsumexp(2)

    def votes(self, outputs: Tensor) -> Tensor:
        """(n, classes) shares of the votes.  The order of the memory decides nothing: whoever is as near as the last that votes, votes."""
        nearest = outputs.flatten(1).topk(min(self.settings.neighbours, self.remembered), dim=1).values
        votes = (outputs >= nearest[:, -1, None, None]).to(outputs)
        if self.settings.temperature is not None:
            votes = votes * torch.exp((outputs - nearest[:, 0, None, None]) / self.settings.temperature)
        of_class = votes.sum(2)
        return of_class / of_class.sum(1, keepdim=True)

    def fooled(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return ~(self.quality(outputs, targets) > 0)

    def quality(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return scores.lead(self.votes(outputs), self._labels(outputs, targets))

    def predict(self, outputs: Tensor) -> list[Tensor]:
        """Logarithms of the shares of the votes, (classes,) each; minus infinity for a class without votes."""
        return list(self.votes(outputs).log().cpu())

    def _placed(self, embeddings: Tensor) -> Tensor:
        """Where embeddings lie, as neighbours are measured."""
        return F.normalize(embeddings, dim=1) if self.settings.distance == "cosine" else embeddings - self.centre

    def _guides(self, outputs: Tensor) -> Tensor:
        """(n, classes) mean similarity to the nearest of each class."""
        nearest = outputs.topk(min((self.settings.neighbours + 1) // 2, outputs.shape[2]), dim=2).values
        there = nearest > NOWHERE  # a class may remember fewer
        return torch.where(there, nearest, 0).sum(2) / there.sum(2).clamp_min(1) + torch.where(there.any(2), 0, NOWHERE)

    def _labels(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return torch.as_tensor(targets, device=outputs.device)
