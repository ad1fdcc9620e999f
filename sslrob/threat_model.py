"""Where the adversary may move an image: a norm ball around it, cut to the pixel range [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslrob.epsilon import parse_text
from sslrob.errors import SslrobError

if TYPE_CHECKING:
    from sslrob.streams import Streams

TINY = 1e-12
NEWTON = 8  # iterations: five were enough for every digit where a third of the values could not move; too few leave the point inside


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(n,) as (n, 1, 1, 1), to multiply images with."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class ThreatModel(ABC):
    """All images in [0, 1] within `epsilon`, on the [0, 1] scale, of the original."""

    epsilon: float

    @abstractmethod
    def distance(self, images: Tensor, origin: Tensor) -> Tensor:
        """(n,) float64, in this model's norm."""

    @abstractmethod
    def steepest(self, gradient: Tensor, images: Tensor, size: float = 1.0) -> Tensor:
        """The move of length `size` × epsilon that raises a linear function with this gradient most; zero where the gradient is.

        Args:
            gradient: (n, 3, h, w).
            images: where the move starts; L1 moves a pixel no farther than the range [0, 1] lets it.
        """

    @abstractmethod
    def project(self, images: Tensor, origin: Tensor) -> Tensor:
        """The allowed image nearest (in L2) to each of `images`: exactly, for ball and pixel range together."""

    def projection(self, origin: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` onto the same originals many times: what depends on them alone is computed once."""
        return lambda images: self.project(images, origin)

    @abstractmethod
    def random_move(self, origin: Tensor, streams: Streams) -> Tensor:
        """Uniform in the ball around zero."""

    @abstractmethod
    def slack(self, moved: Tensor, unit: float) -> Tensor:
        """(n,) how far rounding errors of `unit` a value can carry an image whose values have (n, values) bool `moved`."""

    def random_start(self, origin: Tensor, streams: Streams) -> Tensor:
        """A random allowed image around each of `origin`."""
        return self.project(origin + self.random_move(origin, streams), origin)

    def allows(self, images: Tensor, origin: Tensor) -> Tensor:
        """(n,) bool: in [0, 1] and within epsilon, with slack for the rounding of the number format alone."""
        inside = ((images >= 0) & (images <= 1)).flatten(1).all(1)
        moved = (images != origin).flatten(1)
        slack = self.slack(moved, torch.finfo(images.dtype).eps).double()
        return inside & (self.distance(images, origin) <= self.epsilon + slack)


@dataclass(frozen=True)
class Linf(ThreatModel):
    """No value moves by more than epsilon; with an epsilon of 1, every image in [0, 1] is allowed."""

    def distance(self, images: Tensor, origin: Tensor) -> Tensor:
        return _move(images, origin).abs().amax(1)

    def steepest(self, gradient: Tensor, images: Tensor, size: float = 1.0) -> Tensor:
        return gradient.nan_to_num(0).sign_().mul_(size * self.epsilon)

    def project(self, images: Tensor, origin: Tensor) -> Tensor:
        return self.projection(origin)(images)

    def projection(self, origin: Tensor) -> Callable[[Tensor], Tensor]:
        low, high = (origin - self.epsilon).clamp_(0, 1), (origin + self.epsilon).clamp_(0, 1)
        return lambda images: images.clamp(low, high)

    def random_move(self, origin: Tensor, streams: Streams) -> Tensor:
        return streams.uniform(origin.shape[1:], -self.epsilon, self.epsilon).to(origin)

    def slack(self, moved: Tensor, unit: float) -> Tensor:
        return torch.full((len(moved),), unit, device=moved.device)


@dataclass(frozen=True)
class L2(ThreatModel):
    """The Euclidean length of the move is at most epsilon."""

    def distance(self, images: Tensor, origin: Tensor) -> Tensor:
        return _move(images, origin).square().sum(1).sqrt()

    def steepest(self, gradient: Tensor, images: Tensor, size: float = 1.0) -> Tensor:
        flat = gradient.flatten(1).nan_to_num(0, 0, 0)
        flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)  # squares of 1e-30 would vanish
        length: Tensor = flat.norm(dim=1, keepdim=True)
        return (flat * (size * self.epsilon / length.clamp_min(TINY))).view_as(gradient)

    def project(self, images: Tensor, origin: Tensor) -> Tensor:
        """The nearest point has moves min(t·|wish|, room) with one t an image (the KKT conditions), found from below by Newton's method."""
        wish, room = _wish_and_room(images, origin)
        size, size2, room2 = wish.abs(), wish.square(), room.square()
        t = torch.zeros_like(size[:, :1])
        for _ in range(NEWTON):
            held = t * size >= room  # by the range
            left = (self.epsilon**2 - (room2 * held).sum(1, keepdim=True)).clamp_min(0)
            t = t.maximum((left / size2.masked_fill(held, 0).sum(1, keepdim=True).clamp_min(TINY**2)).sqrt().clamp_max(1))
        return _moved(origin, torch.minimum(t * size, room).copysign(wish))

    def random_move(self, origin: Tensor, streams: Streams) -> Tensor:
        direction = streams.normal(origin.shape[1:]).to(origin)
        radius = streams.uniform(()).to(origin) ** (1 / origin[0].numel())
        return self.steepest(direction, origin) * per_image(radius, origin)

    def slack(self, moved: Tensor, unit: float) -> Tensor:
        return unit * moved.sum(1).sqrt()


@dataclass(frozen=True)
class L1(ThreatModel):
    """The absolute moves of all values add up to at most epsilon (Croce & Hein 2021, "Mind the box")."""

    def distance(self, images: Tensor, origin: Tensor) -> Tensor:
        return _move(images, origin).abs().sum(1)

    def steepest(self, gradient: Tensor, images: Tensor, size: float = 1.0) -> Tensor:
        """The values with the largest gradients, each as far as the range [0, 1] lets it, until the length is used up."""
        g, x = gradient.flatten(1).nan_to_num(0, 0, 0), images.detach().flatten(1)
        room = torch.where(g > 0, 1 - x, x) * (g != 0)
        order = g.abs().argsort(dim=1, descending=True)
        ordered = room.gather(1, order).double()
        spent = ordered.cumsum(1) - ordered
        length = (size * self.epsilon - spent).clamp_min(0).minimum(ordered).to(g)
        return torch.zeros_like(g).scatter_(1, order, length).copysign(g).view_as(gradient)

    def project(self, images: Tensor, origin: Tensor) -> Tensor:
        """The nearest point has moves clip(|wish| − λ, 0, room) with one λ an image; their sum is piecewise linear in λ."""
        wish, room = _wish_and_room(images, origin)
        size = wish.abs()
        knots, order = torch.cat([size, (size - room).clamp_min(0)], 1).sort(dim=1, descending=True)
        turn = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1).gather(1, order)  # a value starts to move, or is held back
        slope = turn.cumsum(1)
        total = torch.cat([torch.zeros_like(knots[:, :1]), (slope[:, :-1] * (knots[:, :-1] - knots[:, 1:])).cumsum(1)], 1)
        reached = total >= self.epsilon
        last = (reached.float().argmax(1, keepdim=True) - 1).clamp_min(0)
        cut = knots.gather(1, last) - (self.epsilon - total.gather(1, last)) / slope.gather(1, last).clamp_min(1)
        cut = torch.where(reached.any(1, keepdim=True), cut, 0.0)
        return _moved(origin, (size - cut).clamp_min(0).minimum(room).copysign(wish))

    def random_move(self, origin: Tensor, streams: Streams) -> Tensor:
        lengths = -streams.uniform(origin.shape[1:]).to(origin).clamp_min(TINY).log()  # exponential: uniform on the simplex
        rest = -streams.uniform(()).to(origin).clamp_min(TINY).log()
        signs = streams.integers(origin.shape[1:], 2).to(origin) * 2 - 1
        return signs * lengths * per_image(self.epsilon / (lengths.flatten(1).sum(1) + rest), origin)

    def slack(self, moved: Tensor, unit: float) -> Tensor:
        return unit * moved.sum(1)


def _move(images: Tensor, origin: Tensor) -> Tensor:
    """(n, values) float64: rounding must not decide whether a budget was kept."""
    return (images.double() - origin.double()).flatten(1)


def _wish_and_room(images: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """(n, values) float64: the wished move, and how far each value may go that way before it leaves [0, 1]."""
    wish, start = _move(images, origin), origin.double().flatten(1)
    return wish, torch.where(wish > 0, 1 - start, start)


def _moved(origin: Tensor, move: Tensor) -> Tensor:
    return (origin.double() + move.view_as(origin)).clamp(0, 1).to(origin.dtype)


NORMS: dict[str, type[ThreatModel]] = {"linf": Linf, "l2": L2, "l1": L1}


def parse(text: str) -> ThreatModel:
    """`"linf:4/255"` as `Linf(4 / 255)`.

    Raises:
        SslrobError: not NORM:EPSILON, or an epsilon that is not on the [0, 1] scale.
    """
    norm, epsilon = parse_text(text)
    return NORMS[norm](float(epsilon))


def require_room(threat_model: ThreatModel, image: Tensor) -> None:
    """Refuse an epsilon that bounds nothing.

    Args:
        image: (3, h, w), one of those that are to be attacked.

    Raises:
        SslrobError: no two images of this size are as far from each other.
    """
    white = torch.ones_like(image)[None]
    farthest = float(threat_model.distance(white, 0 * white))
    if threat_model.epsilon > farthest:
        size = " × ".join(map(str, image.shape))
        raise SslrobError(
            f"epsilon {threat_model.epsilon:g} bounds nothing: from black to white it is {farthest:.4g}, for images of {size} values",
            hint="use a smaller --epsilon, on the [0, 1] scale",
        )
