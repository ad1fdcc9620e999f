"""Square: random squares, kept where they help; it sees scores, never a gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, Best, overwrite
from sslrob.builtin.gradient import COMPACT_EVERY
from sslrob.builtin.minimal import by_margin
from sslrob.objective import Access, Objective
from sslrob.streams import Streams
from sslrob.threat_model import L1, L2, TINY, Linf, ThreatModel, per_image

SHRINKING = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the squares' area is halved
BLOCK = 100  # queries whose random numbers are drawn at once
FAR = 3.0  # epsilons: from one end of the ball beyond the other
TILES = 5  # of the first image of L2 and L1, on a side


@dataclass(frozen=True)
class Square(Attack):
    """Square attack (Andriushchenko et al., ECCV 2020; in L1 as in "Mind the Box", ICML 2021).

    It climbs the victim's margin, where it has one and no other loss was asked for.  An image that is fooled is done.
    """

    access: ClassVar[Access] = "score"
    norms: ClassVar[frozenset[str] | None] = frozenset({"linf", "l2", "l1"})

    queries: Annotated[int, Field(ge=1, description="images tried after the first")] = 5000
    area: Annotated[float, Field(gt=0, le=1, description="of the first squares, as a share of the image")] = 0.8

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        goal, paint = by_margin(objective), BRUSHES[type(threat_model)](threat_model)
        found, best, left = images.clone(), Best(images), torch.arange(len(images), device=images.device)  # left: who is still attacked
        origin, x = images, paint.start(images, streams)
        feedback = goal(x)
        loss = feedback.loss
        best.update(x, feedback)
        for query in range(self.queries):
            place = query % BLOCK
            if place == 0:
                draws = streams.uniform((min(BLOCK, self.queries - query), 5 + x.shape[1])).to(x)
            tried = paint.squares(x, origin, self._side(query, x), draws[:, place])
            feedback = goal(tried, progress=query / self.queries)
            better = feedback.loss > loss
            overwrite(x, better, tried)
            loss = feedback.loss.where(better, loss)
            if query % goal.read_every == 0 or query == self.queries - 1:
                best.update(tried, feedback)
                if (query // goal.read_every) % COMPACT_EVERY == 0 and best.fooled.any():
                    found[left], keep = best.images, ~best.fooled
                    left, origin, x, loss, draws = (kept[keep] for kept in (left, origin, x, loss, draws))
                    goal, streams, best = goal[keep], streams[keep], best[keep]
                    if not len(left):
                        return found
        found[left] = best.images
        return found

    def _side(self, query: int, x: Tensor) -> float:
        """Pixels, before rounding."""
        halvings = sum(query > limit for limit in SHRINKING)
        return math.sqrt(self.area / 2**halvings * x.shape[2] * x.shape[3])


class Brush(ABC):
    """How squares are painted within a threat model."""

    def __init__(self, threat_model: ThreatModel) -> None:
        self.threat_model = threat_model

    @abstractmethod
    def start(self, origin: Tensor, streams: Streams) -> Tensor:
        """(n, 3, h, w) a first allowed image around each of `origin`."""

    @abstractmethod
    def squares(self, x: Tensor, origin: Tensor, side: float, draws: Tensor) -> Tensor:
        """(n, 3, h, w) allowed images with a square more.

        Args:
            draws: (n, 5 + channels) uniform in [0, 1).
        """


class Corners(Brush):
    """Linf: every value is as high or as low as it may be, a square's alike within a channel."""

    def __init__(self, threat_model: ThreatModel) -> None:
        super().__init__(threat_model)
        self._around: tuple[Tensor, Callable[[Tensor], Tensor]] | None = None  # images, and the projection onto what is allowed around them

    def start(self, origin: Tensor, streams: Streams) -> Tensor:
        high = streams.integers((origin.shape[1], 1, origin.shape[3]), 2).to(origin.device) > 0
        epsilon = self.threat_model.epsilon
        return (origin + torch.where(high, epsilon, -epsilon)).clamp(0, 1)

    def squares(self, x: Tensor, origin: Tensor, side: float, draws: Tensor) -> Tensor:
        if self._around is None or self._around[0] is not origin:
            self._around = origin, self.threat_model.projection(origin)
        rows, columns = _Window(x, max(round(side), 1), draws[:, :2]).inside
        far = FAR * self.threat_model.epsilon
        moves = torch.where(draws[:, 5:] < 0.5, far, -far)[:, :, None, None] * rows[:, None, :, None]
        return self._around[1](torch.addcmul(x, moves, columns[:, None, None, :].to(x)))


class Bumps(Brush):
    """L2 and L1: a bump beside a dent, of the norm that another square gives up for it."""

    def __init__(self, threat_model: ThreatModel) -> None:
        super().__init__(threat_model)
        self.power = 2 if isinstance(threat_model, L2) else 1

    def start(self, origin: Tensor, streams: Streams) -> Tensor:
        channels, height, width = origin.shape[1:]
        side = max(height // TILES, 1)
        edge = max(height - TILES * side, 0) // 2
        rows, columns = (torch.arange(length, device=origin.device) - edge for length in (height, width))
        tiles = streams.uniform((1 + channels, height, width)).to(origin)
        draws = tiles[:, :, (rows // side).clamp_min(0)[:, None], (columns // side).clamp_min(0)]  # a tile's are alike
        move = self._bumps(rows % side, columns % side, side, draws)
        return self._allowed(move * ((rows >= 0)[:, None] & (columns >= 0)), origin)

    def squares(self, x: Tensor, origin: Tensor, side: float, draws: Tensor) -> Tensor:
        move, channels, power = x - origin, x.shape[1], self.power
        odd = max(round(side), 3)
        odd = min(odd + 1 - odd % 2, *x.shape[2:])
        window, other = _Window(x, odd, draws[:, :2]), _Window(x, odd, draws[:, 2:4])
        here, there = window.mask, other.mask
        fresh = self._bumps(window.rows, window.columns, odd, draws[:, 4:, None, None]) + move / (self._length(move * here) + TINY)
        spare = (self.threat_model.epsilon**power - move.abs().pow(power).sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
        length = (spare + self._length(move * (here | there)).pow(power)).pow(1 / power) * (channels if power == 1 else 1)
        fresh = fresh * here
        fresh = fresh / (self._length(fresh) + TINY) * length
        return self._allowed(torch.where(here, fresh, move.masked_fill(there, 0)), origin)

    def _bumps(self, rows: Tensor, columns: Tensor, side: int, draws: Tensor) -> Tensor:
        """(n, channels, h, w) a bump above a dent or beside it, of length 1, or the reverse.

        Args:
            rows, columns: (…, h) and (…, w) in 0 … side - 1, where in the bump a pixel lies; elsewhere they mean nothing.
            draws: (n, 1 + channels, …, …) uniform in [0, 1): turned or not, and each channel's sign.
        """
        half = side // 2
        table = torch.cat([_bump(half, side, self.power), -_bump(side - half, side, self.power)]).to(draws)
        table = table / torch.linalg.vector_norm(table, ord=self.power)
        rows, columns = rows.clamp(0, side - 1)[..., None], columns.clamp(0, side - 1)[..., None, :]
        lying, standing = (t[rows, columns].view(-1, 1, rows.shape[-2], columns.shape[-1]) for t in (table, table.T))
        return torch.where(draws[:, :1] < 0.5, lying, standing) * torch.where(draws[:, 1:] < 0.5, 1.0, -1.0)

    def _allowed(self, move: Tensor, origin: Tensor) -> Tensor:
        if self.power == 2:  # always of full length before it is cut to [0, 1], as nothing else brings back what was cut
            move = move * per_image(self.threat_model.epsilon / move.flatten(1).norm(dim=1).clamp_min(TINY), move)
            return (origin + move).clamp(0, 1)
        return self.threat_model.project(origin + move, origin)

    def _length(self, move: Tensor) -> Tensor:
        """(n, channels, 1, 1)"""
        return move.abs().pow(self.power).sum((2, 3), keepdim=True).pow(1 / self.power)


class _Window:
    """A square at a random place in each image.

    Attributes:
        rows, columns: (n, h) and (n, w) pixels from its upper left corner.
        inside: (n, h) and (n, w) bool, the rows and columns that it covers.

    Args:
        side: pixels; no longer than the image's shorter side.
        draws: (n, 2) uniform in [0, 1).
    """

    def __init__(self, x: Tensor, side: int, draws: Tensor) -> None:
        side = min(side, *x.shape[2:])
        self.rows, self.columns = (self._places(x.shape[2 + i], side, draws[:, i : i + 1]) for i in (0, 1))
        rows, columns = ((places >= 0) & (places < side) for places in (self.rows, self.columns))
        self.inside = rows, columns

    @property
    def mask(self) -> Tensor:
        """(n, 1, h, w) bool."""
        rows, columns = self.inside
        return rows[:, None, :, None] & columns[:, None, None, :]

    @staticmethod
    def _places(length: int, side: int, draw: Tensor) -> Tensor:
        first = (draw * (length - side + 1)).long().clamp_max(length - side)
        return torch.arange(length, device=draw.device) - first


def _bump(height: int, width: int, power: int) -> Tensor:
    """(height, width), highest in the middle, of length 1 in the norm of this power."""
    steps = torch.arange(max(height, width) // 2 + 1.0)
    heights = (1 / (steps + 1).pow(4 // power)).flip(0).cumsum(0).flip(0)
    row, column = ((torch.arange(length) - length // 2).abs() for length in (height, width))
    bump: Tensor = heights[torch.maximum(row[:, None], column)]
    length: Tensor = torch.linalg.vector_norm(bump, ord=power)
    return bump / length.clamp_min(TINY)


BRUSHES: dict[type[ThreatModel], type[Brush]] = {Linf: Corners, L2: Bumps, L1: Bumps}
