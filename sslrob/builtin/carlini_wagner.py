"""Carlini & Wagner's search for the smallest L2 move: length and success in one sum, weighed anew in each of several descents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack
from sslrob.builtin.minimal import Smallest, by_margin, look
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel, per_image

INSIDE = 1 - 1e-6  # black and white have no finite arctanh
CHECKS = 10  # looks at the progress of a descent, but not before it had this many steps for it:
PATIENCE = 100
PROGRESS = 1e-4  # of the lowest sum; with less between two looks an image's descent is over


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Adam on length² + weight × margin, while the margin is positive, in arctanh of the pixels; a binary search over the weight (S&P 2017).

    A victim without a margin gives minus its loss, as long as it is not fooled.
    """

    norms: ClassVar[frozenset[str]] = frozenset({"l2"})
    randomised: ClassVar[bool] = False

    steps: Annotated[int, Field(ge=1, description="gradient steps of a descent; it ends sooner where it stalls")] = 10000
    searches: Annotated[int, Field(ge=1, description="descents, each with another weight")] = 9
    weight: Annotated[float, Field(gt=0, description="of the margin in the first descent; tenfold after a failure")] = 0.001
    rate: Annotated[float, Field(gt=0, description="step size of Adam")] = 0.01

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        del streams
        objective, smallest = by_margin(objective), Smallest(images, threat_model)
        weight = images.new_full((len(images),), self.weight)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        for _ in range(self.searches):
            fooled, last = self._descend(objective, images, weight, smallest)
            low, high = torch.where(fooled, low, weight), torch.where(fooled, weight, high)
            weight = torch.where(high.isinf(), 10 * weight, (low + high) / 2)
        return smallest.filled(last, objective)

    def _descend(self, objective: Objective, images: Tensor, weight: Tensor, smallest: Smallest) -> tuple[Tensor, Tensor]:
        """(n,) bool, whether each image was ever fooled; and the last images."""
        left = torch.arange(len(images), device=images.device)  # who still makes progress
        fooled, last = torch.zeros_like(weight, dtype=torch.bool), images.clone()
        start = ((2 * images - 1) * INSIDE).atanh()
        move, mean, square = (torch.zeros_like(images) for _ in range(3))
        lowest = before = torch.full_like(weight, torch.finfo(weight.dtype).max)  # sums, up to now and up to the last look at the progress
        for step in range(self.steps):
            x = ((start + move).tanh() + 1) / 2
            pull, feedback = look(objective, x, smallest, step / self.steps, left)
            away, going, part = x - images[left], ~feedback.fooled, weight[left]
            total = away.flatten(1).square().sum(1) - (part * feedback.loss.detach()).where(going, 0)
            gradient = (2 * away - per_image(part * going, x) * pull) * (2 * x * (1 - x))  # the last is dx / dmove
            lowest = lowest.minimum(total.nan_to_num(math.inf))
            last[left], fooled[left] = x, fooled[left] | feedback.fooled
            mean, square = mean.lerp(gradient, 0.1), square.lerp(gradient.square(), 0.001)
            scale = (square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            move = move - self.rate / (1 - 0.9 ** (step + 1)) * mean / scale
            if step % max(PATIENCE, self.steps // CHECKS) == 0:
                gains = lowest <= before - PROGRESS * before.abs()
                before = lowest
                if not gains.all():
                    objective, left, before, lowest = objective[gains], left[gains], before[gains], lowest[gains]
                    start, move, mean, square = start[gains], move[gains], mean[gains], square[gains]
                    if not len(left):
                        break
        return fooled, last
