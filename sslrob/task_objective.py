"""The objectives on a victim's own losses: away from the true answer, or towards wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sslrob.errors import SslrobError, unknown
from sslrob.objective import Feedback, Objective
from sslrob.task import Victim


class Clean:
    """The n images as they were, and each one's wrong answers, likeliest first, found when first asked for.

    Attributes:
        images: (n, 3, h, w) of the whole batch, whatever part of it an objective is about.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self._order: Tensor | None = None

    def order(self, objective: Objective) -> Tensor:
        """(n, k) columns of the margins, for the images that `objective` is about; they are looked at if they were not before."""
        known = self._order
        if known is None or (known[objective.index] < 0).any():
            with torch.no_grad():
                margins, _ = objective.margins(self.images[objective.index])
            found = margins.argsort(dim=1, stable=True)[:, :-1]  # the last one is the true answer
            if known is None:
                known = found.new_full((len(self.images), found.shape[1]), -1)
            known[objective.index] = found
            self._order = known
        return known[objective.index]


@dataclass(frozen=True)
class TaskObjective(Objective):
    """Raise one of a victim's own losses.

    Attributes:
        named: the loss was asked for by name, so that no cascade tries others.
        aims: (n,) the wrong answers that a targeted loss pulls towards; None: away from the true one.
    """

    victim: Victim
    targets: tuple[Any, ...]
    loss: str
    clean: Clean
    named: bool = False
    aims: Tensor | None = None

    @property
    def name(self) -> str:
        return self.loss

    def raising(self, loss: str) -> Objective:
        known = self.victim.losses if self.aims is None else self.victim.targeted
        if loss not in known:
            raise unknown("loss of this victim", loss, known)
        return replace(self, loss=loss, named=True)

    def strongest(self) -> tuple[Objective, ...]:
        return (self,) if self.named else tuple(self.raising(loss) for loss in self.victim.strongest or self.victim.losses)

    @property
    def rivals(self) -> int:
        return self.clean.order(self).shape[1] if type(self.victim).margins is not Victim.margins else 0

    def towards(self, rank: int) -> Objective:
        if not self.rivals:
            return super().towards(rank)
        if not 1 <= rank <= self.rivals:
            raise SslrobError(
                f"there is no {rank}-th likeliest of {self.rivals} wrong answers", hint="lower the attack's number of targets"
            )
        own = f"{self.loss}-targeted"
        loss = own if self.named and own in self.victim.targeted else self.victim.targeted[0]
        return replace(self, loss=loss, named=True, aims=self.clean.order(self)[:, rank - 1])

    @cached_property
    def _prepared(self) -> Sequence[Any]:
        return self.victim.prepared(self.targets)

    def _look(self, images: Tensor, progress: float) -> Feedback:
        return self._feedback(self.victim(images), progress)

    def _margins(self, images: Tensor) -> tuple[Tensor, Feedback]:
        outputs = self.victim(images)
        return self.victim.margins(outputs, self._prepared), self._feedback(outputs, 1.0)

    def _feedback(self, outputs: Any, progress: float) -> Feedback:
        if self.aims is None:
            loss = self.victim.loss(outputs, self._prepared, self.loss, progress)
        else:
            loss = self.victim.pull(outputs, self._prepared, self.aims, self.loss)
        return Feedback(loss, lambda: self.victim.fooled(outputs, self._prepared), lambda: self.victim.quality(outputs, self._prepared))

    def _subset(self, keep: Tensor) -> Objective:
        targets = tuple(t for t, k in zip(self.targets, keep.tolist(), strict=True) if k)
        return replace(self, targets=targets, aims=None if self.aims is None else self.aims[keep])
