"""How APGD steps: where to, how far, and when it goes back to the highest loss (Croce & Hein, ICML 2020 and 2021)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from sslrob.attack import overwrite
from sslrob.streams import Streams
from sslrob.threat_model import L1, L2, ThreatModel, per_image

KEPT = 0.75  # of a step; the rest is the step before, as momentum
INSIDE = 1 - 1e-6  # of epsilon: rounding must not carry an image out
RISING = 0.75  # of a window's steps must have raised the loss, or the step is halved


class Ascent(ABC):
    """n images on their way up.  Every tensor is (n, …), so that a part of them can be kept.

    Attributes:
        x: (n, 3, h, w) where they are.
        highest: (n, 3, h, w) where the loss was highest so far.

    Args:
        origin: (n, 3, h, w) the clean images.
        x: where they start.
        steps: of the whole search.
        resumed: they come from another search, not from a random start.
    """

    def __init__(self, threat_model: ThreatModel, origin: Tensor, x: Tensor, steps: int, *, resumed: bool) -> None:
        self.threat_model, self.origin, self.x = threat_model, origin, x
        self.highest, self.gradient, self.highest_gradient = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
        self.project = threat_model.projection(origin)
        self.highest_loss = x.new_full((len(x),), -torch.inf)
        self.size = torch.ones_like(self.highest_loss)  # of a step, as a share of the first one
        self.checks = dict(self.windows(steps))
        self.begin(resumed)

    @staticmethod
    def start(threat_model: ThreatModel, origin: Tensor, streams: Streams) -> Tensor:
        """(n, 3, h, w) a random allowed image around each of `origin`."""
        return threat_model.random_start(origin, streams)

    def keep(self, keep: Tensor) -> None:
        """Forget the images where `keep`, (n,) bool, is false."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[keep])
        self.project = self.threat_model.projection(self.origin)

    def saw(self, loss: Tensor, gradient: Tensor) -> None:
        """Take note of a look at `x`: (n,) losses, and (n, 3, h, w) gradients."""
        self.gradient = gradient
        higher = loss > self.highest_loss
        self.highest_loss = loss.where(higher, self.highest_loss)
        overwrite(self.highest, higher, self.x)
        overwrite(self.highest_gradient, higher, gradient)

    def move(self, step: int) -> None:
        """Make step `step`, counted from 0; at the end of a window, look back first."""
        if step in self.checks:
            self.check(self.checks[step])
        self.advance(first=step == 0)

    def go_back(self, back: Tensor) -> None:
        """Return to the highest loss where `back`, (n,) bool, is true."""
        column = per_image(back, self.x)
        self.x, self.gradient = self.highest.where(column, self.x), self.highest_gradient.where(column, self.gradient)

    @staticmethod
    @abstractmethod
    def windows(steps: int) -> Iterator[tuple[int, int]]:
        """After how many steps to look back, and over how many."""

    @abstractmethod
    def begin(self, resumed: bool) -> None: ...

    @abstractmethod
    def check(self, window: int) -> None:
        """Adapt the step to what the last `window` steps brought."""

    @abstractmethod
    def advance(self, first: bool) -> None: ...


class Halving(Ascent):
    """Steps with momentum, of twice epsilon at first, halved where the loss no longer rises; for balls that a gradient fills (Linf, L2)."""

    @staticmethod
    def windows(steps: int) -> Iterator[tuple[int, int]]:
        window, step = max(int(0.22 * steps), 1), 0
        while (step := step + window) < steps:
            yield step, window
            window = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))

    def begin(self, resumed: bool) -> None:
        del resumed
        self.before, self.loss = self.x, torch.full_like(self.highest_loss, torch.inf)
        self.rises = torch.zeros_like(self.loss)
        self.checked_loss, self.halved = torch.full_like(self.loss, -torch.inf), torch.ones_like(self.loss, dtype=torch.bool)

    def saw(self, loss: Tensor, gradient: Tensor) -> None:
        super().saw(loss, gradient)
        self.rises = self.rises + (loss > self.loss)
        self.loss = loss

    def check(self, window: int) -> None:
        stuck = ~self.halved & (self.checked_loss >= self.highest_loss)
        self.halved = (self.rises <= RISING * window) | stuck
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.go_back(self.halved)
        self.checked_loss, self.rises = self.highest_loss, torch.zeros_like(self.rises)

    def advance(self, first: bool) -> None:
        x = self.x
        ahead = self._brought_back(x + per_image(2 * self.size, x) * self.threat_model.steepest(self.gradient, x))
        if not first:
            ahead = self._brought_back(x.lerp(ahead, KEPT).add_(x - self.before, alpha=1 - KEPT))
        self.before, self.x = x, ahead

    def _brought_back(self, x: Tensor) -> Tensor:
        """Allowed images near `x`: in L2 not the nearest, which would cost more than such a step is worth, but shortened, then cut to [0, 1]."""
        if not isinstance(self.threat_model, L2):
            return self.project(x)
        move = x - self.origin
        length = move.flatten(1).norm(dim=1)
        return (self.origin + move * per_image((INSIDE * self.threat_model.epsilon / length).clamp_max(1), move)).clamp(0, 1)


class Sparse(Ascent):
    """Steps along the largest values of the gradient alone, as many as suit the sparsest image of highest loss; for L1."""

    @staticmethod
    def start(threat_model: ThreatModel, origin: Tensor, streams: Streams) -> Tensor:
        """The allowed image nearest to Gaussian noise: few values move, as in the end."""
        return threat_model.project(origin + streams.normal(origin.shape[1:]).to(origin), origin)

    @staticmethod
    def windows(steps: int) -> Iterator[tuple[int, int]]:
        window = max(int(0.04 * steps), 1)
        return ((step, window) for step in range(window, steps, window))

    def begin(self, resumed: bool) -> None:
        self.values = self.x[0].numel()
        self.moved = self._moved(self.x) if resumed else torch.full_like(self.size, self.values)  # values that are not the clean ones
        self.share = self.moved / self.values / 1.5 if resumed else torch.full_like(self.size, 0.2)  # of the values that a step moves

    def check(self, window: int) -> None:
        del window
        moved = self._moved(self.highest)
        sparser = moved < 0.95 * self.moved
        self.size = torch.where(sparser, 1.0, self.size / 1.5).clamp(0.1, 1)
        self.go_back(sparser)
        self.moved, self.share = moved, moved / self.values / 1.5

    def advance(self, first: bool) -> None:
        del first
        gradient = self.gradient.flatten(1).nan_to_num(0)
        rank = ((1 - self.share) * self.values).clamp(0, self.values - 1).long()
        least = gradient.abs().sort(dim=1).values.gather(1, rank[:, None])
        signs = gradient.sign() * (gradient.abs() >= least)
        length = self.threat_model.epsilon * self.size / signs.abs().sum(1).clamp_min(1)
        self.x = self.project(self.x + per_image(length, self.x) * signs.view_as(self.x))

    def _moved(self, x: Tensor) -> Tensor:
        return (x != self.origin).flatten(1).sum(1).to(self.size)


def ascent(threat_model: ThreatModel) -> type[Ascent]:
    """How to step in a threat model."""
    return Sparse if isinstance(threat_model, L1) else Halving
