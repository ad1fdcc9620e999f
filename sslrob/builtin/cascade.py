"""Attacks in turn, each on the images that none before it has fooled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslrob.attack import Attack, Best
from sslrob.objective import Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel


def in_turn(stages: Sequence[tuple[str, Attack, Objective]], images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
    """Each image's best after all attacks; `cost.fooled_by` tells the first that fooled it.

    Args:
        stages: each a name, an attack, and the objective on all images that it raises; what an attack may not see, it is not shown.
    """
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
