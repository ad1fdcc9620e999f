"""Losses without randomness: which candidates are in a loss depends on nothing but the image."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import TASK_UTILS
from torch import Tensor

DRAWING = (
    "RandomSampler",
    "CombinedSampler",
    "InstanceBalancedPosSampler",
    "IoUBalancedNegSampler",
)  # Libra's hash tensors: no seed steadies them


@TASK_UTILS.register_module(force=True)
class StableSampler(RandomSampler):
    """mmdet's `RandomSampler` without the draws.

    Candidates are ranked by a fixed hash of their index: nothing is drawn, no other image matters, and one candidate more or less
    changes at most one choice.  Where an image has no object every candidate is taken: the vanishing loss must see them all.
    """

    def __init__(self, num: int, pos_fraction: float, neg_pos_ub: int = -1, add_gt_as_proposals: bool = True, **ignored: Any) -> None:
        del ignored  # what only the samplers that it replaces know
        super().__init__(num, pos_fraction, neg_pos_ub, add_gt_as_proposals)

    def random_choice(self, gallery: Tensor, num: int) -> Tensor:
        return gallery[(gallery * 2654435761 % 2**32).topk(num, largest=False).indices]  # Knuth's multiplicative hash

    def _sample_neg(self, assign_result: Any, num_expected: int, **kwargs: Any) -> Tensor:
        return super()._sample_neg(assign_result, num_expected if assign_result.num_gts else assign_result.num_preds, **kwargs)


def stable(config: Mapping[str, Any]) -> Any:
    """A copy of a config in which no sampler draws at random."""
    config = copy.deepcopy(config)

    def walk(node: Any) -> None:
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
            walk(child)
        if isinstance(node, dict) and node.get("type") in DRAWING:
            node["type"] = "StableSampler"

    walk(config)
    return config


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """For what draws from the global generators whatever its config says: the same draws each time, and the generators left as they were."""
    state = np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            np.random.set_state(state)
