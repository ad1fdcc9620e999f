"""The first universal attack: DeepFool on one image after another, each from where the move has got so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.builtin.deepfool import DeepFool
from sslrob.lessons import Lesson
from sslrob.representation import resized
from sslrob.streams import Streams
from sslrob.threat_model import L2, ThreatModel
from sslrob.universal import Universal, in_ball, moved


@dataclass(frozen=True)
class DeepFoolUAP(Universal):
    """To the move is added, for every image that it does not fool yet, DeepFool's least step that does (Moosavi-Dezfooli et al., CVPR 2017).

    After each image the move is projected into the ball.  An image that is wrong from the start adds nothing.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})
    objectives: ClassVar[frozenset[str]] = frozenset({"task"})
    norms: ClassVar[frozenset[str]] = frozenset({"l2", "linf"})
    in_images: ClassVar[bool] = True

    images: Annotated[int, Field(ge=1, description="of the fit split, looked at one by one; again from the first after the last")] = 500
    steps: Annotated[int, Field(ge=1, description="most steps of DeepFool for one image")] = 10
    overshoot: Annotated[float, Field(ge=0, description="share by which DeepFool's moves are lengthened")] = 0.02
    rivals: Annotated[int, Field(ge=1, description="likeliest wrong classes whose borders DeepFool looks at")] = 9

    @property
    def length(self) -> int:
        return self.images

    def begin(self, images: Tensor, threat_model: ThreatModel, stream: Streams) -> Tensor:
        return torch.zeros_like(images[0])

    def step(self, move: Tensor, lesson: Lesson, threat_model: ThreatModel, stream: Streams) -> Tensor:
        search = DeepFool(self.steps, self.overshoot, self.rivals)
        for i in range(min(len(lesson.images), lesson.left)):
            one = torch.arange(len(lesson.images), device=lesson.images.device) == i
            x = moved(lesson.images[one], move, threat_model)
            found = search.perturb(lesson.objective[one], x, L2(math.sqrt(x.numel())), streams=stream)  # no ball: any image is near enough
            move = in_ball(move + resized(found - x, move)[0], threat_model)
        return move
