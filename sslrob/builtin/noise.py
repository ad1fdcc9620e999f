"""The control: what random moves do, that no attack may fall below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.objective import Access, Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel


@dataclass(frozen=True)
class Noise(Attack):
    """The best of some uniform draws from the threat model."""

    access: ClassVar[Access] = "score"
    draws: Annotated[int, Field(ge=1, description="random images tried")] = 10

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        best = Best(images)
        for _ in range(self.draws):
            candidates = threat_model.random_start(images, streams)
            best.update(candidates, objective(candidates))
        return best.images
