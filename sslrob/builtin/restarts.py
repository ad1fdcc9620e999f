"""Run an attack several times on the images that it has not fooled yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel


@dataclass(frozen=True)
class Restarts(Attack):
    """Up to `n` runs of `attack`; each image keeps its best.  An image that is fooled is done."""

    attack: Attack
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"{self.n} restarts: at least one run is needed")

    @property
    def access(self) -> Any:  # type: ignore[override]
        return self.attack.access

    @property
    def tasks(self) -> Any:  # type: ignore[override]
        return self.attack.tasks

    @property
    def norms(self) -> Any:  # type: ignore[override]
        return self.attack.norms

    @property
    def bounded(self) -> Any:  # type: ignore[override]
        return self.attack.bounded

    @property
    def randomised(self) -> Any:  # type: ignore[override]
        return self.attack.randomised

    def fit(self, batches: Iterable[tuple[Objective, Tensor]], threat_model: ThreatModel, *, streams: Streams) -> Attack:
        return replace(self, attack=self.attack.fit(batches, threat_model, streams=streams))

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        best = Best(images)
        for _ in range(self.n):
            left = ~best.fooled
            if not left.any():
                break
            candidates = self.attack.perturb(objective[left], images[left], threat_model, streams=streams[left])
            with torch.no_grad():
                best.update(candidates, objective[left](candidates), left)
        return best.images
