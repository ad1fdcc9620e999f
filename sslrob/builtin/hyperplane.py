"""The shortest way onto a hyperplane without leaving [0, 1], in each norm, for attacks that walk along the border between two classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslrob.threat_model import L1, L2, Linf, ThreatModel

ITERATIONS = 10  # at most, of Newton's method on a concave, piecewise smooth function, from below: a handful reaches the rounding
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
    way = normals.sign().mul_(torch.where(gap < 0, 1, -1)[:, None])  # downhill; zero where the normal is
    room = (0.5 - points).mul_(way).add_(0.5).clamp_min_(0)  # 1 - points upwards, points downwards
    return FILLS[type(threat_model)](room, normals.abs(), gap.abs()).minimum(room).mul_(way)


def _alike(room: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """All values as far, where there is room: the least largest move.

    Args:
        room: (n, values) how far each value may move.
        gain: (n, values) what a unit of it brings.
        wanted: (n,) the gain in all.
    """
    most, total, full = gain * room, gain.sum(1), torch.empty_like(gain)
    reach = wanted / total.clamp_min(TINY)
    for _ in range(ITERATIONS):
        torch.le(room, reach[:, None], out=full)  # 1 for the values that are at their ends, else 0
        before, reach = reach, _farther(reach, wanted, most, gain, total, full)
        if _over(reach, before):
            break
    return reach[:, None]


def _in_proportion(room: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """Each value in proportion to its gain, where there is room: the least Euclidean length."""
    scale = gain.amax(1).clamp_min(TINY)  # squares of small gains would vanish
    gain, wanted = gain / scale[:, None], wanted / scale
    most, square, full = gain * room, gain.square(), torch.empty_like(gain)
    total = square.sum(1)
    reach = wanted / total.clamp_min(TINY)
    for _ in range(ITERATIONS):
        torch.le(room, reach[:, None] * gain, out=full)
        before, reach = reach, _farther(reach, wanted, most, square, total, full)
        if _over(reach, before):
            break
    return reach.clamp_max(1 / TINY)[:, None] * gain


def _farther(reach: Tensor, wanted: Tensor, most: Tensor, slopes: Tensor, total: Tensor, full: Tensor) -> Tensor:
    """Newton's next reach (n,): what the full values do not bring, by what the others bring each step; `slopes` add up to `total`."""
    missing, slope = wanted - torch.linalg.vecdot(most, full), total - torch.linalg.vecdot(slopes, full)
    return reach.maximum(missing / slope.clamp_min(TINY))


def _over(reach: Tensor, before: Tensor) -> bool:
    """Whether a step of Newton's changed nothing, so that none will; a device is not waited for."""
    return reach.device.type == "cpu" and torch.equal(reach, before)


def _greedily(room: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """The values of largest gain first, each as far as there is room: the least sum."""
    order = gain.argsort(dim=1, descending=True)
    most = (room * gain).gather(1, order).double()
    before = most.cumsum(1) - most
    share = ((wanted[:, None] - before) / most.clamp_min(TINY)).clamp(0, 1).to(room)
    return room * torch.zeros_like(room).scatter_(1, order, share)


FILLS: dict[type[ThreatModel], Callable[[Tensor, Tensor, Tensor], Tensor]] = {Linf: _alike, L2: _in_proportion, L1: _greedily}
