"""APGD: gradient ascent without a step size to tune, away from the true answer or towards wrong ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.builtin.ascent import Ascent, ascent
from sslrob.builtin.gradient import COMPACT_EVERY
from sslrob.builtin.transforms import Averaged
from sslrob.objective import Feedback, Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel

Radii = Annotated[
    tuple[Annotated[float, Field(ge=1)], ...],
    Field(min_length=1, description="searched in turn, in epsilons; each but the last takes 30 % of the steps; the last must be 1"),
]


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD (Croce & Hein, ICML 2020; in L1 that of "Mind the Box", ICML 2021), keeping each image's best iterate.

    Steps are long at first; where the loss stops rising they get shorter, and the search goes back to the highest loss.  An image that is
    fooled is done: its passes are not spent.
    """

    steps: Annotated[int, Field(ge=1, description="gradient steps")] = 100
    looks: Annotated[int, Field(ge=1, description="passes averaged at each step, for a victim that draws at random (EOT)")] = 1
    radii: Radii = (1.0,)

    def __post_init__(self) -> None:
        if not self.radii or self.radii[-1] != 1 or len(self.radii) > 3:
            raise ValueError(f"radii {self.radii} are not one, two or three of which the last is 1")

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        return self.search(objective, images, threat_model, streams=streams).images

    def search(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Best:
        """Each image's best iterate, and what was seen of it."""
        if self.looks > 1:
            objective = Averaged(objective, self.looks)
        climb, models = ascent(threat_model), [replace(threat_model, epsilon=radius * threat_model.epsilon) for radius in self.radii]
        x, resumed = climb.start(models[0], images, streams), len(models) > 1
        *earlier, steps = self._shares()
        for model, few in zip(models, earlier, strict=False):
            x = _highest(objective, climb(model, images, model.project(x, images), few, resumed=resumed), few)
        return _attacked(objective, climb(threat_model, images, threat_model.project(x, images), steps, resumed=resumed), steps)

    def _shares(self) -> Iterator[int]:
        early = min(math.ceil(0.3 * self.steps), self.steps // len(self.radii))
        yield from [early] * (len(self.radii) - 1)
        yield self.steps - early * (len(self.radii) - 1)


@dataclass(frozen=True)
class TargetedAPGD(Attack):
    """APGD towards each of the likeliest wrong classes in turn (APGD-T of Croce & Hein, ICML 2020), on the images that are left.

    Its loss is the targeted difference of logits ratio, or the targeted form of a loss that was asked for by name.
    """

    tasks: ClassVar[frozenset[str] | None] = frozenset({"classification"})
    objectives: ClassVar[frozenset[str] | None] = frozenset({"task"})

    steps: Annotated[int, Field(ge=1, description="gradient steps towards each class")] = 100
    targets: Annotated[int, Field(ge=1, description="classes to aim at, the likeliest first; at most all wrong ones")] = 9
    looks: Annotated[int, Field(ge=1, description="passes averaged at each step, for a victim that draws at random (EOT)")] = 1
    radii: Radii = (1.0,)

    def __post_init__(self) -> None:
        self._towards_one()

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        best, attack = Best(images), self._towards_one()
        left = torch.ones(len(images), dtype=torch.bool, device=images.device)
        for rank in range(1, max(1, min(self.targets, objective.rivals)) + 1):
            goal = objective[left].towards(rank)
            part = attack.search(goal, images[left], threat_model, streams=streams[left])
            best.merge(part, left)
            left = ~best.fooled
            if not left.any():
                break
        return best.images

    def _towards_one(self) -> APGD:
        return APGD(**{field.name: getattr(self, field.name) for field in fields(APGD)})


def _highest(objective: Objective, search: Ascent, steps: int) -> Tensor:
    """Where the loss was highest; nobody is done, as the radius is not the true one."""
    for step in range(steps):
        _look(objective, search, step / steps)
        search.move(step)
    with torch.no_grad():
        search.saw(objective(search.x).loss, search.gradient)
    return search.highest


def _attacked(objective: Objective, search: Ascent, steps: int) -> Best:
    """Each image's best iterate; who is fooled is done."""
    found, best = Best(search.origin), Best(search.origin)
    left = torch.arange(len(search.origin), device=search.origin.device)  # who is still attacked
    for step in range(steps):
        feedback = _look(objective, search, step / steps)
        if step % objective.read_every == 0:
            best.update(search.x, feedback)
            if (step // objective.read_every) % COMPACT_EVERY == 0 and best.fooled.any():
                found.merge(best, left)
                keep = ~best.fooled
                left, best, objective = left[keep], best[keep], objective[keep]
                search.keep(keep)
                if not len(left):
                    return found
        search.move(step)
    with torch.no_grad():
        best.update(search.x, objective(search.x))
    found.merge(best, left)
    return found


def _look(objective: Objective, search: Ascent, progress: float) -> Feedback:
    """A look at where the search is, with its gradient; the search takes note."""
    x = search.x.detach().requires_grad_()
    feedback = objective(x, progress=progress)
    (gradient,) = torch.autograd.grad(feedback.loss.sum(), x)
    search.saw(feedback.loss.detach(), gradient)
    return feedback
