"""Universal moves learned without images: what stirs a backbone up on noise stirs it up on every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.builtin.universal import climb, pull, start
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel
from sslrob.universal import Lessons, Universal, first, looks, moved


@dataclass(frozen=True)
class DataFree(Universal):
    """Gradient ascent on images of Gaussian noise whose mean and deviation are drawn anew for each, channel by channel.

    With `images`, those of the fit split count beside them: L4A's uniform-Gaussian sampling (Ban & Dong, NeurIPS 2022), whose ranges are the
    defaults.  With `deviation` 0 the noise is one colour: fast feature fool, which has no data at all (Mopuri et al., BMVC 2017).
    No label is used, and without `images` no image: the objective must be one that any image has.
    """

    objectives: ClassVar[frozenset[str]] = frozenset({"activation"})

    steps: Annotated[int, Field(ge=1, description="gradient steps")] = 500
    step_size: Annotated[float, Field(gt=0, description="length of the first step as a fraction of epsilon; it falls to zero")] = 0.2
    noises: Annotated[int, Field(ge=1, le=32, description="images of noise in each step")] = 8
    mean: Annotated[tuple[float, float], Field(description="range in [0, 1] that the mean of the noise is drawn from")] = (0.4, 0.6)
    deviation: Annotated[tuple[float, float], Field(description="range that its standard deviation is drawn from")] = (0.05, 0.1)
    images: Annotated[float, Field(ge=0, description="how much images of the fit split count, those of noise counting 1")] = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in (("mean", self.mean), ("deviation", self.deviation)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} {low}, {high} is no range in [0, 1]")

    def learn(self, lessons: Lessons, threat_model: ThreatModel, streams: Streams) -> Tensor:
        move, stream = start(lessons, threat_model, streams), first(streams)
        for progress, objective, images in looks(lessons if self.images else [next(iter(lessons))], self.steps):
            few = torch.arange(len(images), device=images.device) < self.noises
            noise = self._noise(images[few], stream)
            gradient = pull(objective[few], moved(noise, move, threat_model), progress)
            if self.images:
                gradient = gradient + self.images * pull(objective, moved(images, move, threat_model), progress)
            move = climb(move, gradient, threat_model, self.step_size * (1 - progress))
        return move

    def _noise(self, like: Tensor, stream: Streams) -> Tensor:
        colours = (len(like), 3, 1, 1)
        mean, deviation = stream.uniform(colours, *self.mean), stream.uniform(colours, *self.deviation)
        return (mean + deviation * stream.normal(like.shape))[0].clamp(0, 1).to(like)
