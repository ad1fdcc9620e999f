"""Attacks through surrogates: the objective is raised on other victims than the one that judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslrob.data import Batch
from sslrob.objective import Access, Feedback, Guide, Objective, build
from sslrob.task import Victim
from sslrob.task_objective import Clean, TaskObjective


@dataclass(frozen=True)
class Surrogates(Objective):
    """Raise the mean of the surrogates' losses.

    Fooled: all of them are.  Quality: their mean.  Neither ends an attack, since what barely fools a surrogate seldom fools the victim.
    Passes are counted through each of them.
    """

    parts: tuple[Objective, ...]
    clean: Clean

    @property
    def name(self) -> str:
        return self.parts[0].name

    @property
    def named(self) -> bool:
        return self.parts[0].named

    def raising(self, loss: str) -> Objective:
        return replace(self, parts=tuple(part.raising(loss) for part in self.parts))

    def strongest(self) -> tuple[Objective, ...]:
        return tuple(replace(self, parts=parts) for parts in zip(*(part.strongest() for part in self.parts), strict=False))

    @property
    def rivals(self) -> int:
        return min(part.rivals for part in self.parts)

    def towards(self, rank: int) -> Objective:
        """Several surrogates pull towards the same wrong answer, the one that is likeliest by their mean margin."""
        parts = [part.towards(rank) for part in self.parts]
        if len(parts) > 1:
            aims = self.clean.order(self)[:, rank - 1]
            parts = [replace(part, aims=aims) if isinstance(part, TaskObjective) else part for part in parts]
        return replace(self, parts=tuple(parts))

    def _look(self, images: Tensor, progress: float) -> Feedback:
        return _together([part._look(images, progress) for part in self.parts])

    def _margins(self, images: Tensor) -> tuple[Tensor, Feedback]:
        margins, looks = zip(*(part._margins(images) for part in self.parts), strict=True)
        return torch.stack(margins).mean(0), _together(looks)

    def _subset(self, keep: Tensor) -> Objective:
        return replace(self, parts=tuple(part[keep] for part in self.parts))

    def _count_look(self, images: Tensor) -> None:
        super()._count_look(images)
        self.cost.forwards[self.index] += len(self.parts) - 1

    def _count(self, gradient: Tensor) -> Tensor:
        for _ in self.parts:
            gradient = super()._count(gradient)
        return gradient


def _together(looks: Sequence[Feedback]) -> Feedback:
    return Feedback(
        torch.stack([look.loss for look in looks]).mean(0),
        lambda: torch.stack([look.fooled for look in looks]).all(0),
        lambda: torch.stack([look.quality for look in looks]).mean(0),
        final=False,
    )


def through(surrogates: Sequence[Victim], name: str, batch: Batch, access: Access, guide: Guide | None = None) -> Surrogates:
    """An objective on the images of one batch, raised on these victims.

    Args:
        name, access, guide: as `build()` takes them.
    """
    parts = [build(name, victim, batch, access, guide) for victim in surrogates]
    first = parts[0]
    for part in parts[1:]:  # what they looked at before the attack begins
        first.cost.forwards += part.cost.forwards
    shared = tuple(replace(part, cost=first.cost) for part in parts)
    every = max(part.read_every for part in parts)
    return Surrogates(access, first.cost, first.index, shared, Clean(batch.images), read_every=every)
