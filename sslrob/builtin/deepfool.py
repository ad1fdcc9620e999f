"""DeepFool: to the nearest of the borders, as if they were flat, until one is crossed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, overwrite
from sslrob.builtin.minimal import ORDERS, Smallest, length
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import Linf, ThreatModel, per_image

BEYOND = 1e-4  # added to each step, so that none ends on the border


@dataclass(frozen=True)
class DeepFool(Attack):
    """Steps to the nearest border of the linearised victim, until the image is fooled (Moosavi-Dezfooli et al., CVPR 2016).

    An image that is fooled is done: no later step would bring it nearer.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})
    objectives: ClassVar[frozenset[str]] = frozenset({"task"})
    norms: ClassVar[frozenset[str]] = frozenset({"l2", "linf"})
    randomised: ClassVar[bool] = False

    steps: Annotated[int, Field(ge=1, description="most steps taken")] = 50
    overshoot: Annotated[float, Field(ge=0, description="share by which the whole move is lengthened")] = 0.02
    rivals: Annotated[int, Field(ge=1, description="likeliest wrong classes whose borders are looked at")] = 9

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        del streams
        smallest, goal = Smallest(images, threat_model), objective
        left = torch.arange(len(images), device=images.device)
        last, origin, move = images.clone(), images, torch.zeros_like(images)
        columns: Tensor | None = None
        for _ in range(self.steps):
            x = (origin + (1 + self.overshoot) * move).clamp(0, 1).requires_grad_()
            margins, feedback = goal.margins(x)
            last[left] = x.detach()
            smallest.update(x, feedback, left)
            going = ~feedback.fooled
            if not going.any():  # waiting for the device costs less than the gradients of images that are done
                break
            if columns is None:
                columns = margins.detach().topk(min(self.rivals, margins.shape[1] - 1), largest=False).indices
            cost, done = goal.cost, goal.index[~going]
            before = cost.backwards[done], cost.dead[done]
            move = move + _to_the_nearest(margins.gather(1, columns), x, threat_model)
            cost.backwards[done], cost.dead[done] = before  # gradients that only the others needed: no image's cost depends on another
            goal, left, origin, move, columns = goal[going], left[going], origin[going], move[going], columns[going]
        last[left] = (origin + (1 + self.overshoot) * move).clamp(0, 1)
        return smallest.filled(last, objective)


def _to_the_nearest(margins: Tensor, images: Tensor, threat_model: ThreatModel) -> Tensor:
    """The shortest step, in the threat model's norm, after which one of the linearised margins is zero.

    Args:
        margins: (n, k) with a graph to the images.
    """
    _, dual = ORDERS[type(threat_model)]
    nearest, slope = margins.new_full((len(margins),), math.inf), margins.new_ones(len(margins))
    steepest = torch.zeros_like(images, requires_grad=False)
    for k in range(margins.shape[1]):
        (gradient,) = torch.autograd.grad(margins[:, k].sum(), images, retain_graph=k + 1 < margins.shape[1])
        gradient = gradient.nan_to_num(0, 0, 0)
        steepness = length(gradient, dual)
        distance = margins[:, k].detach().abs() / steepness + BEYOND
        nearer = distance < nearest
        overwrite(steepest, nearer, gradient)
        nearest, slope = torch.where(nearer, distance, nearest), torch.where(nearer, steepness, slope)
    if isinstance(threat_model, Linf):
        return steepest.sign_().mul_(per_image(-nearest, steepest))
    return steepest.mul_(per_image(-nearest / slope, steepest))
