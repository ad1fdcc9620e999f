"""Gradient ascent for who sees only losses: differences along random directions stand in for the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.objective import Access, Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel, per_image


@dataclass(frozen=True)
class SPSA(Attack):
    """Ascent along estimated gradients, keeping each image's best iterate; an image that is fooled is done.

    Random signs are the directions of SPSA (Uesato et al., ICML 2018), normal ones those of NES (Ilyas et al., ICML 2018).  Each is tried
    both ways, and the difference of the losses weighs it.  The steps follow the sum of the estimates, and get shorter.
    """

    access: ClassVar[Access] = "score"
    queries: Annotated[int, Field(ge=4, description="forward passes an image, at most")] = 5000
    pairs: Annotated[int, Field(ge=1, description="directions of an estimate, each tried both ways")] = 25
    directions: Annotated[Literal["signs", "normal"], Field(description="signs: SPSA; normal: NES")] = "signs"
    probe: Annotated[float, Field(gt=0, description="how far a value is moved to try a direction, on the [0, 1] scale")] = 0.01
    step_size: Annotated[float, Field(gt=0, description="length of the first step as a fraction of epsilon; the last is near 0")] = 2.0
    momentum: Annotated[float, Field(ge=0, le=1, description="what is kept of the earlier estimates' sum")] = 0.98
    random_start: Annotated[bool, Field(description="start at a random allowed image rather than at the clean one")] = True

    def __post_init__(self) -> None:
        if self.queries < 2 * self.pairs + 2:
            raise ValueError(f"{self.queries} queries are too few for one step with {self.pairs} pairs: it takes {2 * self.pairs + 2}")

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        steps = (self.queries - 1) // (2 * self.pairs + 1)
        best = Best(images)
        x = threat_model.random_start(images, streams) if self.random_start else images.clone()
        left = torch.ones(len(images), dtype=torch.bool, device=images.device)  # who is still attacked
        origin, total = images, torch.zeros_like(images)
        for step in range(steps):
            best.update(x, objective(x, progress=step / steps), left)
            if (done := best.fooled[left]).any():
                left = left & ~best.fooled
                x, origin, total, objective, streams = x[~done], origin[~done], total[~done], objective[~done], streams[~done]
                if not len(x):
                    return best.images
            total = self.momentum * total + self._estimate(objective, x, streams, step / steps)
            x = threat_model.project(x + threat_model.steepest(total, x, self.step_size * (1 - step / steps)), origin)
        best.update(x, objective(x), left)
        return best.images

    def _estimate(self, objective: Objective, x: Tensor, streams: Streams, progress: float) -> Tensor:
        """A multiple of the gradient at x, estimated; what is tried stays in [0, 1], since nothing else is an image."""
        total = torch.zeros_like(x)
        for _ in range(self.pairs):
            direction = self._direction(x, streams)
            there, back = (objective((x + side * direction).clamp(0, 1), progress=progress).loss for side in (self.probe, -self.probe))
            total += per_image((there - back).nan_to_num(0, 0, 0), x) * direction
        return total

    def _direction(self, x: Tensor, streams: Streams) -> Tensor:
        if self.directions == "normal":
            return streams.normal(x.shape[1:]).to(x)
        return (streams.uniform(x.shape[1:], -1, 1) >= 0).to(x) * 2 - 1
