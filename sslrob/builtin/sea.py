"""SEA: for each image the worst of several losses, each searched in larger balls first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack
from sslrob.builtin.apgd import APGD, Radii
from sslrob.builtin.cascade import in_turn
from sslrob.errors import SslrobError
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel


@dataclass(frozen=True)
class SEA(Attack):
    """APGD on several losses in turn, in balls that shrink to the true one (Croce, Singh & Hein, ECCV 2024).

    Each image keeps the worst candidate: the one of the lowest quality, for segmentation the share of its pixels that are right.  An image
    that is fooled is done.
    """

    steps: Annotated[int, Field(ge=1, description="gradient steps for each loss")] = 300
    radii: Radii = (2.0, 1.5, 1.0)
    losses: Annotated[tuple[str, ...], Field(description="of the victim, unless the objective names one; none: its strongest")] = ()

    def __post_init__(self) -> None:
        self._search()

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        chosen = () if objective.named else self.losses
        try:
            goals = [objective.raising(loss) for loss in chosen] or objective.strongest()
        except SslrobError as error:
            error.note = "the setting 'losses' names it; with --set losses=[] these are the victim's strongest"
            raise
        stages = [(f"apgd-{goal.name}", self._search(), goal) for goal in goals]
        return in_turn(stages, images, threat_model, streams=streams)

    def _search(self) -> APGD:
        return APGD(self.steps, radii=self.radii)
