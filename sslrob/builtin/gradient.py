"""Attacks that follow the gradient; each is written once and works in every norm, on every task, with every objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.builtin.transforms import Averaged
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel

COMPACT_EVERY = 5  # steps between two looks at who is fooled: each look makes the host wait for the device


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent on the objective (Madry et al., ICLR 2018), keeping each image's best iterate.

    An image that is fooled is done: its passes are not spent.
    """

    steps: Annotated[int, Field(ge=1, description="gradient steps")] = 20
    step_size: Annotated[float, Field(gt=0, description="length of a step as a fraction of epsilon")] = 0.25
    random_start: Annotated[bool, Field(description="start at a random allowed image rather than at the clean one")] = True

    @property
    def randomised(self) -> bool:  # type: ignore[override]
        return self.random_start

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        found, best, left = images.clone(), Best(images), torch.arange(len(images), device=images.device)  # left: who is still attacked
        x = threat_model.random_start(images, streams) if self.random_start else images.clone()
        origin, project = images, threat_model.projection(images)
        for step in range(self.steps):
            x.requires_grad_()
            feedback = objective(x, progress=step / self.steps)
            (gradient,) = torch.autograd.grad(feedback.loss.sum(), x)
            x = x.detach()
            moved = project(x + threat_model.steepest(gradient, x, self.step_size))
            if step % objective.read_every == 0:
                best.update(x, feedback)
                if (step // objective.read_every) % COMPACT_EVERY == 0 and best.fooled.any():
                    found[left], keep = best.images, ~best.fooled
                    left, moved, origin, best, objective = left[keep], moved[keep], origin[keep], best[keep], objective[keep]
                    if not len(left):
                        return found
                    project = threat_model.projection(origin)
            x = moved
        with torch.no_grad():
            best.update(x, objective(x))
        found[left] = best.images
        return found


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of full length from the clean image (Goodfellow et al., ICLR 2015), taken whether or not it helps."""

    randomised: ClassVar[bool] = False

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        del streams
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x, progress=0.0).loss.sum(), x)
        return threat_model.project(images + threat_model.steepest(gradient, images), images)


@dataclass(frozen=True)
class RSFGSM(Attack):
    """One step from a random allowed image, longer than the radius (RS-FGSM: Wong et al., ICLR 2020): the one that fast training takes."""

    norms: ClassVar[frozenset[str]] = frozenset({"linf"})  # in L2 and L1 the start would spend the budget that the step needs

    step_size: Annotated[float, Field(gt=0, description="length of the step as a fraction of epsilon")] = 1.25

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        x = threat_model.random_start(images, streams).requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x, progress=0.0).loss.sum(), x)
        x = x.detach()
        return threat_model.project(x + threat_model.steepest(gradient, x, self.step_size), images)


@dataclass(frozen=True)
class EOTPGD(PGD):
    """PGD against a victim that draws at random: each step averages several draws (EOT: Athalye et al., ICML 2018)."""

    draws: Annotated[int, Field(ge=1, description="looks at the victim that are averaged")] = 20

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        return super().perturb(Averaged(objective, self.draws), images, threat_model, streams=streams)
