"""Attacks in turn, each on the images that none before it has fooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel


@dataclass(frozen=True)
class Cascade(Attack):
    """`attacks` in turn on the survivors; each image keeps its best, and `cost.fooled_by` the first attack that fooled it.

    An attack that sees less than the cascade does gets an objective that shows no more.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("a cascade needs at least one attack")
        if learning := [a for a in self.attacks if type(a).fit is not Attack.fit]:
            raise ValueError(f"{type(learning[0]).__name__} learns from other images: fit it before, a cascade does not")

    @property
    def access(self) -> Any:  # type: ignore[override]
        given = {attack.access for attack in self.attacks}
        return next(access for access in ("white-box", "score", "decision") if access in given)

    @property
    def tasks(self) -> Any:  # type: ignore[override]
        limits = [attack.tasks for attack in self.attacks if attack.tasks is not None]
        return frozenset.intersection(*limits) if limits else None

    @property
    def randomised(self) -> Any:  # type: ignore[override]
        return any(attack.randomised for attack in self.attacks)

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        stages = [(type(attack).__name__.lower(), attack, objective) for attack in self.attacks]
        return in_turn(stages, images, threat_model, streams=streams)


def in_turn(stages: Sequence[tuple[str, Attack, Objective]], images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
    """The images after all `stages`: each a name, an attack, and the objective on all images that it raises."""
    best = Best(images)
    for name, attack, objective in stages:
        left = ~best.fooled
        if not left.any():
            break
        goal = objective[left]
        candidates = attack.perturb(goal.granting(attack.access), images[left], threat_model, streams=streams[left])
        with torch.no_grad():
            best.update(candidates, goal(candidates), left)
        objective.cost.credit(name, attack.access, objective.index[left & best.fooled])
    return best.images
