"""AutoAttack: a cascade of attacks without settings to tune, each on the images that those before it left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack
from sslrob.builtin.apgd import APGD, TargetedAPGD
from sslrob.builtin.cascade import in_turn
from sslrob.builtin.fab import FAB, TargetedFAB
from sslrob.builtin.restarts import Restarts
from sslrob.builtin.square import Square
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import L1, ThreatModel

Stage = tuple[str, Attack, Objective]


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The ensemble of Croce & Hein, ICML 2020 (in L1 that of "Mind the Box", ICML 2021), on the images that are left after each attack.

    `standard`: APGD on the cross-entropy, APGD-T, FAB-T, Square.  `plus`: APGD on the cross-entropy and on DLR, FAB (each with restarts),
    Square, APGD-T, FAB-T.  `rand`, for victims that draw at random: APGD on both losses, with averaged gradients.

    Where the task has no finite list of wrong answers: APGD on each of the victim's strongest losses in turn, then Square (not in `rand`).
    A loss that is asked for by name is the only one that APGD raises.
    """

    norms: ClassVar[frozenset[str] | None] = frozenset({"linf", "l2", "l1"})

    version: Annotated[Literal["standard", "plus", "rand"], Field(description="which attacks")] = "standard"
    steps: Annotated[int, Field(ge=1, description="steps of each run of APGD and FAB")] = 100
    queries: Annotated[int, Field(ge=1, description="of Square")] = 5000
    targets: Annotated[int | None, Field(ge=1, description="classes APGD-T and FAB-T aim at; null: 9, but 5 for APGD-T in L1 standard")] = (
        None
    )
    restarts: Annotated[int | None, Field(ge=1, description="of untargeted APGD and FAB; null: 5 in plus and for APGD in L1 standard")] = (
        None
    )
    looks: Annotated[int | None, Field(ge=1, description="passes averaged at each step; null: 20 in rand, else 1")] = None

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        return in_turn(self.stages(objective, threat_model), images, threat_model, streams=streams)

    def stages(self, objective: Objective, threat_model: ThreatModel) -> list[Stage]:
        """Name, attack and goal of each attack, in turn."""
        return list(self._stages(objective, isinstance(threat_model, L1)))

    def _stages(self, objective: Objective, l1: bool) -> Iterator[Stage]:
        classes, goals = objective.rivals > 0, objective.strongest()
        careful = l1 and self.version == "standard"  # for L1 the paper searches larger balls first, and starts anew
        restarts = self.restarts or (5 if careful or self.version == "plus" else 1)
        looks, radii = self.looks or (20 if self.version == "rand" else 1), (3.0, 2.0, 1.0) if careful else (1.0,)
        for goal in goals[:1] if classes and self.version == "standard" else goals:
            apgd = APGD(self.steps, looks, radii)
            yield f"apgd-{goal.name}", apgd if restarts == 1 else Restarts(apgd, restarts), goal
        if self.version == "rand":
            return
        square = ("square", Square(self.queries), objective)
        targeted = [
            ("apgd-t", TargetedAPGD(self.steps, self.targets or (5 if careful else 9), radii=radii), objective),
            ("fab-t", TargetedFAB(self.steps, self.targets or 9, smallest=False), objective),
        ]
        if not classes:
            yield square
        elif self.version == "standard":
            yield from [*targeted, square]
        else:
            yield "fab", FAB(self.steps, smallest=False), objective
            if restarts > 1:
                yield "fab", Restarts(FAB(self.steps, random_start=True, smallest=False), restarts - 1), objective
            yield from [square, *targeted]
