"""The first universal attack: DeepFool on one image after another, each from where the move has got so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.builtin.deepfool import DeepFool
from sslrob.objective import Objective
from sslrob.representation import resized
from sslrob.streams import Streams
from sslrob.threat_model import L2, ThreatModel
from sslrob.universal import Lessons, Universal, in_ball, looks, moved


@dataclass(frozen=True)
class DeepFoolUAP(Universal):
    """To the move is added, for every image that it does not fool yet, DeepFool's least step that does (Moosavi-Dezfooli et al., CVPR 2017).

    After each image the move is projected into the ball.  An image that is wrong from the start adds nothing.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})
    objectives: ClassVar[frozenset[str]] = frozenset({"task"})
    norms: ClassVar[frozenset[str]] = frozenset({"l2", "linf"})

    images: Annotated[int, Field(ge=1, description="of the fit split, looked at one by one; again from the first after the last")] = 500
    steps: Annotated[int, Field(ge=1, description="most steps of DeepFool for one image")] = 10
    overshoot: Annotated[float, Field(ge=0, description="share by which DeepFool's moves are lengthened")] = 0.02
    rivals: Annotated[int, Field(ge=1, description="likeliest wrong classes whose borders DeepFool looks at")] = 9

    def learn(self, lessons: Lessons, threat_model: ThreatModel, streams: Streams) -> Tensor:
        search = DeepFool(self.steps, self.overshoot, self.rivals)
        move: Tensor | None = None
        for objective, image in _one_by_one(lessons, self.images):
            move = torch.zeros_like(image[0]) if move is None else move
            x = moved(image, move, threat_model)
            found = search.perturb(objective, x, L2(math.sqrt(x.numel())), streams=streams)  # no ball: any image is near enough
            move = in_ball(move + resized(found - x, move)[0], threat_model)
        assert move is not None  # looks() saw to it
        return move


def _one_by_one(lessons: Lessons, count: int) -> Iterator[tuple[Objective, Tensor]]:
    """`count` single images, (1, 3, h, w) each, with the goal on them."""
    for _, objective, images in looks(lessons, count):
        for i in range(len(images)):
            one = torch.arange(len(images), device=images.device) == i
            yield objective[one], images[one]
            count -= 1
            if not count:
                return
