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
TINY = 1e-8  # Adam's, below which it takes no gradient to its unit
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
        left, part, origin = torch.arange(len(images), device=images.device), weight, images  # of those who still make progress
        fooled, last = torch.zeros_like(weight, dtype=torch.bool), images.clone()
        place = ((2 * images - 1) * INSIDE).atanh_().mul_(2)  # twice the arctanh: the sigmoid of it is the image, in one pass
        mean, square = torch.zeros_like(images), torch.zeros_like(images)
        lowest = before = torch.full_like(weight, torch.finfo(weight.dtype).max)  # sums, up to now and up to the last look at the progress
        for step in range(self.steps):
            x, whole = place.sigmoid(), len(left) == len(images)
            pull, feedback, distance = look(objective, x, smallest, step / self.steps, None if whole else left)
            going = ~feedback.fooled
            total = distance.square() - (part * feedback.loss.detach()).where(going, 0)
            lowest = lowest.minimum(total.nan_to_num(math.inf))
            fooled[left] |= feedback.fooled
            gradient = torch.addcmul(x - origin, pull, per_image(part * going, x), value=-0.5)
            gradient.mul_(torch.addcmul(x, x, x, value=-1))  # a quarter of that by the arctanh, as dx is 2x (1 - x): Adam knows no scale
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            unbiased = math.sqrt(1 - 0.999 ** (step + 1))
            place.addcdiv_(mean, square.sqrt().add_(TINY / 4 * unbiased), value=-2 * self.rate * unbiased / (1 - 0.9 ** (step + 1)))
            if step % max(PATIENCE, self.steps // CHECKS) == 0:
                gains = lowest <= before - PROGRESS * before.abs()
                before = lowest
                if not gains.all():
                    last[left] = x
                    objective, left, part, origin = objective[gains], left[gains], part[gains], origin[gains]
                    before, lowest, place, mean, square = before[gains], lowest[gains], place[gains], mean[gains], square[gains]
                    if not len(left):
                        return fooled, last
        last[left] = place.sigmoid()
        return fooled, last
