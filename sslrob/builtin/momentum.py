"""Gradient steps with a memory, made to transfer to victims that the attack does not see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack
from sslrob.builtin.transforms import Averaged, Diverse, Scaled, Smoothed
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel, per_image


@dataclass(frozen=True)
class Momentum(Attack):
    """Steps along a running sum of gradients (MI-FGSM: Dong et al., CVPR 2018), with what others added to make it transfer.

    NI-FGSM (Lin et al., ICLR 2020) takes the gradient where the sum would lead; VMI-FGSM (Wang & He, CVPR 2021) adds how the gradients
    around the last image differed from its own.  `diversity`, `scales` and `smoothing` are the transforms of DI-, SI- and TI-FGSM.

    All steps are taken and the last image is the result, as published: one that fools the victim at hand narrowly fools no other.
    """

    steps: Annotated[int, Field(ge=1, description="gradient steps")] = 10
    step_size: Annotated[float | None, Field(gt=0, description="length of a step as a fraction of epsilon; null: 1 / steps")] = None
    decay: Annotated[float, Field(ge=0, description="share of the sum that each step keeps")] = 1.0
    look_ahead: Annotated[bool, Field(description="take the gradient where the sum would lead (NI-FGSM)")] = False
    neighbours: Annotated[int, Field(ge=0, description="random images around each one whose gradients are compared (VMI-FGSM: 20)")] = 0
    reach: Annotated[float, Field(gt=0, description="how far away they are drawn, as a multiple of epsilon")] = 1.5
    diversity: Annotated[float, Field(ge=0, le=1, description="probability of looking at a shrunk and shifted copy (DI-FGSM: 0.5)")] = 0.0
    scales: Annotated[int, Field(ge=1, description="copies whose gradients are averaged, each half as bright as the last (SI-FGSM: 5)")] = 1
    smoothing: Annotated[int, Field(ge=0, description="pixels that the gradient is blurred on each side (TI-FGSM: 7)")] = 0
    draws: Annotated[int, Field(ge=1, description="looks averaged for each gradient, where copies or victims are random (EOT)")] = 1
    random_start: Annotated[bool, Field(description="start at a random allowed image; at the clean one an embedding has no gradient")] = (
        False
    )

    @property
    def randomised(self) -> bool:  # type: ignore[override]
        return self.random_start or self.neighbours > 0 or self.diversity > 0

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        goal, size = self._seen_through(objective, streams), self.step_size or 1 / self.steps
        around = replace(threat_model, epsilon=self.reach * threat_model.epsilon)
        x = threat_model.random_start(images, streams) if self.random_start else images
        total = variance = torch.zeros_like(images)
        for step in range(self.steps):
            progress, at = step / self.steps, x
            if self.look_ahead:  # as far as a step goes, for a sum of gradients as long as one
                length = threat_model.steepest(total, x, size).abs().flatten(1).mean(1)
                at = (x + self.decay * per_image(length, x) * total).clamp(0, 1)
            gradient = _gradient(goal, at, progress)
            total = self.decay * total + _unit(gradient + variance)
            if self.neighbours and step + 1 < self.steps:
                nearby = ((at + around.random_move(at, streams)).clamp(0, 1) for _ in range(self.neighbours))
                mean = sum((_gradient(goal, one, progress) for one in nearby), torch.zeros_like(x)) / self.neighbours
                variance = mean - gradient
            x = threat_model.project(x + threat_model.steepest(total, x, size), images)
        return x

    def _seen_through(self, objective: Objective, streams: Streams) -> Objective:
        if self.diversity:
            objective = Diverse(objective, self.diversity, streams)
        if self.scales > 1:
            objective = Scaled(objective, self.scales)
        if self.smoothing:
            objective = Smoothed(objective, self.smoothing)
        return Averaged(objective, self.draws) if self.draws > 1 else objective


def _gradient(goal: Objective, images: Tensor, progress: float) -> Tensor:
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(goal(x, progress=progress).loss.sum(), x)
    return gradient.nan_to_num(0, 0, 0)


def _unit(gradient: Tensor) -> Tensor:
    """With a mean absolute value of 1; zero where the gradient is."""
    return gradient / per_image(gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)
