"""Universal moves learned without images: what stirs a backbone up on noise stirs it up on every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.builtin.universal import anywhere, climb, pull
from sslrob.lessons import Lesson
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel
from sslrob.universal import Universal, moved


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

    @property
    def length(self) -> int:
        return self.steps

    @property
    def on_one_batch(self) -> bool:  # type: ignore[override]
        return not self.images

    def begin(self, images: Tensor, threat_model: ThreatModel, stream: Streams) -> Tensor:
        return anywhere(images, threat_model, stream)

    def step(self, move: Tensor, lesson: Lesson, threat_model: ThreatModel, stream: Streams) -> Tensor:
        objective, images, progress, _ = lesson
        few = torch.arange(len(images), device=images.device) < self.noises
        noise = self._noise(images[few], stream)
        gradient = pull(objective[few], moved(noise, move, threat_model), progress)
        if self.images:
            gradient = gradient + self.images * pull(objective, moved(images, move, threat_model), progress)
        return climb(move, gradient, threat_model, self.step_size * (1 - progress))

    def _noise(self, like: Tensor, stream: Streams) -> Tensor:
        colours = (len(like), 3, 1, 1)
        mean, deviation = stream.uniform(colours, *self.mean), stream.uniform(colours, *self.deviation)
        return (mean + deviation * stream.normal(like.shape))[0].clamp(0, 1).to(like)
