"""Universal moves learned from the images of the fit split, by gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sslrob.lessons import Lesson
from sslrob.objective import Objective
from sslrob.representation import resized
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel, per_image
from sslrob.universal import GREY, Universal, in_ball, moved


@dataclass(frozen=True)
class UAP(Universal):
    """Projected stochastic gradient ascent on the mean objective of many images (Shafahi et al., AAAI 2020), with ever shorter steps.

    Images that are fooled already pull on: without them a move is found that fools fewer.
    """

    steps: Annotated[int, Field(ge=1, description="gradient steps, each of a batch of the fit split")] = 500
    step_size: Annotated[float, Field(gt=0, description="length of the first step as a fraction of epsilon; it falls to zero")] = 0.2
    clip: Annotated[float | None, Field(description="losses above it pull no more; 9 for ImageNet's cross-entropy; null: all do")] = None

    @property
    def length(self) -> int:
        return self.steps

    def begin(self, images: Tensor, threat_model: ThreatModel, stream: Streams) -> Tensor:
        return anywhere(images, threat_model, stream)

    def step(self, move: Tensor, lesson: Lesson, threat_model: ThreatModel, stream: Streams) -> Tensor:
        gradient = pull(lesson.objective, moved(lesson.images, move, threat_model), lesson.progress, self.clip)
        return climb(move, gradient, threat_model, self.step_size * (1 - lesson.progress))


def anywhere(images: Tensor, threat_model: ThreatModel, stream: Streams) -> Tensor:
    """A random move in the ball, (3, h, w) as the first of the images."""
    return in_ball(threat_model.random_move(images[:1], stream)[0], threat_model)


def pull(objective: Objective, images: Tensor, progress: float, clip: float | None = None) -> Tensor:
    """(3, h, w) the mean gradient of the objective; losses above `clip` count as flat."""
    x = images.detach().requires_grad_()
    loss = objective(x, progress=progress).loss
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    gradient = gradient.nan_to_num(0, 0, 0)
    if clip is not None:  # not before the gradient, or it would count as a dead one
        gradient = gradient * per_image(loss.detach() <= clip, gradient)
    return gradient.mean(0)


def climb(move: Tensor, gradient: Tensor, threat_model: ThreatModel, size: float) -> Tensor:
    """The move after a step of `size` × epsilon up the gradient, in the ball."""
    step = threat_model.steepest(resized(gradient[None], move), GREY + move[None], size)
    return in_ball(move + step[0], threat_model)
