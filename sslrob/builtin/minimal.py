"""Searches for the smallest move that fools: DDN and FMN, and what they share with Carlini & Wagner's and DeepFool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, overwrite
from sslrob.errors import SslrobError
from sslrob.objective import Feedback, Objective
from sslrob.streams import Streams
from sslrob.threat_model import L1, L2, TINY, Linf, ThreatModel, per_image

ORDERS: dict[type[ThreatModel], tuple[float, float]] = {Linf: (math.inf, 1), L2: (2, 2), L1: (1, math.inf)}  # of a move, and of its dual
ROUNDING = 1e-6  # relative, of a norm
LAST_RATE = 0.001  # FMN's


class Smallest:
    """The smallest allowed move seen that fools, for each image; where none does, the allowed image of the lowest quality.

    Where another victim judges, see `Feedback.done`, that is the one of the lowest quality throughout.

    Attributes:
        distance: (n,) how far the fooling image is; infinite where there is none, or another victim judges.
        nearest: (n,) how far the nearest image that fools is, allowed or not; infinite where there is none.
    """

    def __init__(self, images: Tensor, threat_model: ThreatModel) -> None:
        self.origin, self.threat_model = images, threat_model
        self.distance = images.new_full((len(images),), math.inf)
        self.nearest, self._quality, self._images = self.distance.clone(), self.distance.clone(), images.clone()
        self._order, _ = ORDERS[type(threat_model)]

    def update(self, images: Tensor, feedback: Feedback, where: Tensor | None = None) -> Tensor:
        """Take the candidates that are better; returns how far each lies from its image, (n,).

        Args:
            images: in [0, 1]; candidates for all images, or for those whose indices are `where`.
        """
        index = slice(None) if where is None else where
        images, fooled = images.detach(), feedback.fooled
        distance = length(images - self.origin[index], self._order)
        self._take(images, feedback.quality, distance.masked_fill(~feedback.done, math.inf), distance, where)
        self.nearest[index] = self.nearest[index].minimum(distance.masked_fill(~fooled, math.inf))
        return distance

    def merge(self, other: Smallest, where: Tensor) -> None:
        """Take what another search found, for the images at `where`, (n,) bool or their indices, if it is better."""
        self._take(other._images, other._quality, other.distance, torch.zeros_like(other.distance), where)
        self.nearest[where] = self.nearest[where].minimum(other.nearest)

    def _take(self, images: Tensor, quality: Tensor, done: Tensor, distance: Tensor, where: Tensor | None) -> None:
        """Args:
        done: (n,) how far those are that fool, others infinite.
        distance: (n,) how far all are, to be allowed.
        """
        index = slice(None) if where is None else where
        quality, known = quality.to(self._quality), self.distance[index]
        better = (done < known) | (done.isinf() & known.isinf() & (quality < self._quality[index]))
        better &= distance <= self.threat_model.epsilon * (1 + ROUNDING) + torch.finfo(images.dtype).eps  # pixels have a grid
        own = self._images[index]  # all of them, in place, or a copy of a part
        overwrite(own, better, images)
        if where is not None:
            self._images[where] = own
        self._quality[index] = quality.where(better, self._quality[index])
        self.distance[index] = done.where(better, known)

    def result(self) -> Tensor:
        """(n, 3, h, w), rid of rounding errors; the clean images before a first update."""
        return self.threat_model.project(self._images, self.origin)

    def filled(self, last: Tensor, objective: Objective) -> Tensor:
        """The result of a search that may have left the threat model; see `fill`."""
        self.fill(last, objective)
        return self.result()

    def fill(self, last: Tensor, objective: Objective) -> None:
        """Where nothing was found, a last look at how far the search got, brought back into the threat model."""
        lost = self.distance.isinf()
        if lost.any():
            back = self.threat_model.project(last[lost], self.origin[lost])
            with torch.no_grad():
                self.update(back, objective[lost](back), lost.nonzero()[:, 0])


@dataclass(frozen=True)
class DDN(Attack):
    """Steps along the gradient whose length from the image shrinks after a success and grows after a failure (Rony et al., CVPR 2019)."""

    norms: ClassVar[frozenset[str]] = frozenset({"l2"})

    steps: Annotated[int, Field(ge=1, description="gradient steps")] = 100
    start: Annotated[float, Field(gt=0, description="length of the first move")] = 1.0
    rate: Annotated[float, Field(gt=0, lt=1, description="share by which the length changes from step to step")] = 0.05

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        smallest = Smallest(images, threat_model)
        spare = _direction(streams.normal(images.shape[1:]).to(images), images)
        farthest = length(images.maximum(1 - images), 2)
        radius = images.new_full((len(images),), self.start)
        x = images
        for step in range(self.steps):
            gradient, feedback, _ = look(objective, x, smallest, step / self.steps)
            radius = (radius * torch.where(feedback.fooled, 1 - self.rate, 1 + self.rate)).minimum(farthest)
            move = x - images + _annealed(1, 0.01, step / self.steps) * _direction(gradient, spare)
            x = (images + move * per_image(radius / length(move, 2), move)).clamp(0, 1)
        return smallest.filled(x, objective)


@dataclass(frozen=True)
class FMN(Attack):
    """Steps along the gradient inside a ball that closes in on the border from both sides (Pintor et al., NeurIPS 2021).

    How far the border is follows at first from the loss, if that is a margin: negative until the image is fooled.  The ball then reaches a
    little beyond, since on the border itself, where the published one ends, rounding decides.
    """

    steps: Annotated[int, Field(ge=1, description="gradient steps")] = 100
    step_size: Annotated[float, Field(gt=0, description="L2 length of the first step; the last one's is a hundredth of it")] = 1.0
    rate: Annotated[float, Field(ge=0.001, lt=1, description="share by which the radius changes from step to step, at the end 0.001")] = (
        0.05
    )

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        objective, smallest = by_margin(objective), Smallest(images, threat_model)
        spare = _direction(streams.normal(images.shape[1:]).to(images), images)
        own, dual = ORDERS[type(threat_model)]
        farthest = length(images.maximum(1 - images), own)
        radius = images.new_full((len(images),), threat_model.epsilon)
        x = images
        for step in range(self.steps):
            progress = step / self.steps
            gradient, feedback, distance = look(objective, x, smallest, progress)
            rate = _annealed(self.rate, LAST_RATE, progress)
            margin = feedback.loss.detach().neg()
            border = distance + margin / length(gradient, dual)
            outside = torch.where(smallest.nearest.isfinite() | (margin <= 0), radius * (1 + rate), border * (1 + LAST_RATE))
            inside = (radius * (1 - rate)).minimum(smallest.nearest)
            radius = torch.where(feedback.fooled, inside, outside).minimum(farthest)
            move = x - images + _annealed(self.step_size, self.step_size / 100, progress) * _direction(gradient, spare)
            x = (images + _shortened(move, radius, own)).clamp(0, 1)
        return smallest.filled(x, objective)


def by_margin(objective: Objective) -> Objective:
    """The same goal by the victim's loss `margin`, where it has one and no other was asked for."""
    if objective.named:
        return objective
    try:
        return objective.raising("margin")
    except SslrobError:
        return objective


def look(
    objective: Objective, images: Tensor, smallest: Smallest, progress: float, where: Tensor | None = None
) -> tuple[Tensor, Feedback, Tensor]:
    """The loss's gradient at the images, finite, what else is seen there, and how far they are, (n,); `smallest` is told.

    Args:
        where: indices of the images, if they are not all that `smallest` is about.
    """
    x = images.detach().requires_grad_()
    feedback = objective(x, progress=progress)
    (gradient,) = torch.autograd.grad(feedback.loss.sum(), x)
    distance = smallest.update(images, feedback, where)
    return gradient.nan_to_num(0, 0, 0), feedback, distance


def _annealed(first: float, last: float, progress: float) -> float:
    """From `first` to `last` along a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def length(move: Tensor, order: float) -> Tensor:
    """(n,) the norm of moves or gradients, above zero."""
    return norm(move, order).clamp_min(TINY)


def norm(move: Tensor, order: float) -> Tensor:
    """(n,) of moves or gradients (n, …)."""
    flat = move.flatten(1)
    if order == 2:
        root: Tensor = flat.norm(dim=1)
        return root
    return flat.abs().sum(1) if order == 1 else flat.abs().amax(1)  # on a CPU ten times as quick as torch.linalg.vector_norm


def _direction(gradient: Tensor, spare: Tensor) -> Tensor:
    """Of L2 length 1; `spare` where the gradient is zero."""
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)  # squares of 1e-30 would vanish
    unit = gradient / per_image(norm.clamp_min(TINY**3), gradient).to(gradient)
    overwrite(unit, norm == 0, spare)
    return unit


def _shortened(move: Tensor, radius: Tensor, order: float) -> Tensor:
    """The nearest move (in L2) that is no longer than `radius`, (n,), in this norm."""
    if order == math.inf:
        return move.clamp(-per_image(radius, move), per_image(radius, move))
    if order == 2:
        return move * per_image((radius / length(move, 2)).clamp_max(1), move)
    size = move.flatten(1).abs()
    largest = size.sort(dim=1, descending=True).values.double()
    cut = (largest.cumsum(1) - radius[:, None]) / torch.arange(1, largest.shape[1] + 1, device=move.device)
    last = ((largest > cut).sum(1, keepdim=True) - 1).clamp_min(0)
    return (size - cut.gather(1, last).clamp_min(0)).clamp_min(0).to(move).copysign(move.flatten(1)).view_as(move)
