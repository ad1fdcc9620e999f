"""The shortest way onto a hyperplane without leaving [0, 1], in each norm, for attacks that walk along the border between two classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslrob.threat_model import L1, L2, Linf, ThreatModel

ITERATIONS = 10  # of Newton's method on a concave, piecewise smooth function, from below: a handful reaches the rounding
TINY = 1e-30


def onto(points: Tensor, normals: Tensor, gap: Tensor, threat_model: ThreatModel) -> Tensor:
    """The shortest moves that change normals · points by -gap within [0, 1], or by as much of it as there is room for.

    The problem of Croce & Hein, ICML 2020, without their sorting (but in L1).

    Args:
        points: (n, values) in [0, 1].
        normals: (n, values), finite.
        gap: (n,).
        threat_model: says in which norm; one of Linf, L2 and L1.
    """
    downhill = torch.where((gap < 0)[:, None], normals, -normals)
    room = torch.where(downhill > 0, 1 - points, points).clamp_min(0) * (downhill != 0)
    return FILLS[type(threat_model)](room, downhill.abs(), gap.abs()).minimum(room).copysign(downhill)


def _alike(room: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """All values as far, where there is room: the least largest move.

    Args:
        room: (n, values) how far each value may move.
        gain: (n, values) what a unit of it brings.
        wanted: (n,) the gain in all.
    """
    most = gain * room
    parts, spare = torch.stack([most, gain], 1), wanted[:, None] - most.sum(1, keepdim=True)
    reach = torch.zeros_like(spare)
    for _ in range(ITERATIONS):
        lacking, slope = (parts @ (room > reach).to(gain)[:, :, None]).unbind(1)  # of the values that are not at their ends
        reach = reach.maximum((spare + lacking) / slope.clamp_min(TINY))
    return reach.expand_as(room)


def _in_proportion(room: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """Each value in proportion to its gain, where there is room: the least Euclidean length."""
    scale = gain.amax(1).clamp_min(TINY)  # squares of small gains would vanish
    gain, wanted = gain / scale[:, None], wanted / scale
    reach = torch.zeros_like(wanted)
    for _ in range(ITERATIONS):
        full = room <= reach[:, None] * gain
        missing = wanted - (gain * room).masked_fill(~full, 0).sum(1)
        reach = reach.maximum(missing / gain.square().masked_fill(full, 0).sum(1).clamp_min(TINY))
    return reach.clamp_max(1 / TINY)[:, None] * gain


def _greedily(room: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """The values of largest gain first, each as far as there is room: the least sum."""
    order = gain.argsort(dim=1, descending=True)
    most = (room * gain).gather(1, order).double()
    before = most.cumsum(1) - most
    share = ((wanted[:, None] - before) / most.clamp_min(TINY)).clamp(0, 1).to(room)
    return room * torch.zeros_like(room).scatter_(1, order, share)


FILLS: dict[type[ThreatModel], Callable[[Tensor, Tensor, Tensor], Tensor]] = {Linf: _alike, L2: _in_proportion, L1: _greedily}
