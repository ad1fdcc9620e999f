"""The controls: what random moves do, that no attack may fall below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.objective import Access, Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel, per_image


@dataclass(frozen=True)
class Noise(Attack):
    """The best of some uniform draws from the threat model."""

    access: ClassVar[Access] = "score"
    draws: Annotated[int, Field(ge=1, description="random images tried")] = 10

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        return _best_of(self.draws, lambda: threat_model.random_start(images, streams), objective, images)


@dataclass(frozen=True)
class SignNoise(Attack):
    """The best of some random moves of full length: to corners of the ball in Linf and L1, to anywhere on the sphere in L2."""

    access: ClassVar[Access] = "score"
    draws: Annotated[int, Field(ge=1, description="random images tried")] = 10

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        def draw() -> Tensor:
            direction = streams.normal(images.shape[1:]).to(images)
            return threat_model.project(images + threat_model.steepest(direction, images), images)

        return _best_of(self.draws, draw, objective, images)


@dataclass(frozen=True)
class GaussianNoise(Attack):
    """The best of some draws of Gaussian noise, each brought back into the threat model.

    A deviation of 1 is that of a move whose length is epsilon: a value's is epsilon in Linf, and in L2 and L1 its equal share.
    """

    access: ClassVar[Access] = "score"
    draws: Annotated[int, Field(ge=1, description="random images tried")] = 10
    deviation: Annotated[float, Field(gt=0, description="standard deviation, as a multiple of what fills epsilon")] = 1.0

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        share = threat_model.steepest(torch.ones_like(images), torch.full_like(images, 0.5)).flatten(1).mean(1)

        def draw() -> Tensor:
            noise = streams.normal(images.shape[1:]).to(images)
            return threat_model.project(images + self.deviation * per_image(share, images) * noise, images)

        return _best_of(self.draws, draw, objective, images)


def _best_of(draws: int, draw: Callable[[], Tensor], objective: Objective, images: Tensor) -> Tensor:
    best = Best(images)
    for _ in range(draws):
        candidates = draw()
        best.update(candidates, objective(candidates))
    return best.images
