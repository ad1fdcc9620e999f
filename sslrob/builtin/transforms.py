"""The same goal, seen through something: an average over draws, resized copies, paler copies, a smoothed gradient.

Each wraps an objective, which counts the passes, and is one itself: they nest, and any attack can raise them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sslrob.errors import SslrobError
from sslrob.objective import Access, Feedback, Objective
from sslrob.streams import Streams

SHRUNK = 0.9  # of the image's side: what a diverse copy has at least


class Wrapped(Objective):
    """Another way to look at `inner`, which counts what is spent."""

    def __init__(self, inner: Objective) -> None:
        super().__init__(inner.access, inner.cost, inner.index, read_every=inner.read_every)
        self.inner = inner

    def __call__(self, images: Tensor, *, progress: float = 1.0) -> Feedback:
        return self._look(images, progress)

    def __getitem__(self, keep: Tensor) -> Objective:
        return self._subset(keep)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def named(self) -> bool:
        return self.inner.named

    @property
    def rivals(self) -> int:
        return self.inner.rivals

    def margins(self, images: Tensor) -> tuple[Tensor, Feedback]:
        raise SslrobError(f"margins cannot be seen through {type(self).__name__!r}", hint="use an attack that needs no margins")

    def granting(self, access: Access) -> Objective:
        return self._on(self.inner.granting(access))

    def raising(self, loss: str) -> Objective:
        return self._on(self.inner.raising(loss))

    def towards(self, rank: int) -> Objective:
        return self._on(self.inner.towards(rank))

    def strongest(self) -> tuple[Objective, ...]:
        return tuple(self._on(goal) for goal in self.inner.strongest())

    def _subset(self, keep: Tensor) -> Objective:
        return self._on(self.inner[keep])

    @abstractmethod
    def _on(self, inner: Objective) -> Self:
        """The same way to look at another objective."""


class Averaged(Wrapped):
    """The mean over some looks, each with draws of its own: expectation over transformation (Athalye et al., ICML 2018).

    The draws are those of a randomised victim, or of `inner`, such as `Diverse`.  Fooled: in most of them.  Quality: their mean.
    """

    def __init__(self, inner: Objective, draws: int) -> None:
        super().__init__(inner)
        self.draws = draws

    def _look(self, images: Tensor, progress: float) -> Feedback:
        loss, looks = _mean((lambda x: self.inner(x, progress=progress) for _ in range(self.draws)), images)
        return Feedback(
            loss,
            lambda: torch.stack([look.fooled for look in looks]).float().mean(0) > 0.5,
            lambda: torch.stack([look.quality for look in looks]).mean(0),
            final=looks[0].final,
        )

    def _on(self, inner: Objective) -> Self:
        return type(self)(inner, self.draws)


class Scaled(Wrapped):
    """The mean over the image and paler copies of it, halved once, twice, … (scale invariance, Lin et al., ICLR 2020).

    Fooled and quality are those of the image itself.
    """

    def __init__(self, inner: Objective, scales: int) -> None:
        super().__init__(inner)
        self.scales = scales

    def _look(self, images: Tensor, progress: float) -> Feedback:
        halved = [lambda x, by=2.0**-i: self.inner(by * x, progress=progress) for i in range(self.scales)]
        loss, (itself, *_) = _mean(halved, images)
        return Feedback(loss, lambda: itself.fooled, lambda: itself.quality, final=itself.final)

    def _on(self, inner: Objective) -> Self:
        return type(self)(inner, self.scales)


class Diverse(Wrapped):
    """Some images shrunk to `SHRUNK` … 1 of their size, somewhere on black, drawn anew at every look (DI-FGSM, Xie et al., CVPR 2019).

    Fooled and quality are those of what the victim sees.  Where targets have places, as boxes and pixels do, they stay behind.

    Args:
        probability: that an image is shrunk.
        streams: of the objective's images.
    """

    def __init__(self, inner: Objective, probability: float, streams: Streams) -> None:
        super().__init__(inner)
        self.probability, self.streams = probability, streams

    def _look(self, images: Tensor, progress: float) -> Feedback:
        coin, scale, top, left = self.streams.uniform((4,)).to(images).T
        height, width = images.shape[2:]
        size = torch.where(coin < self.probability, SHRUNK + (1 - SHRUNK) * scale, 1)
        rows, columns = _shrunk_onto(height, size, top), _shrunk_onto(width, size, left)
        return self.inner(rows[:, None] @ images @ columns[:, None].mT, progress=progress)

    def _subset(self, keep: Tensor) -> Objective:
        return type(self)(self.inner[keep], self.probability, self.streams[keep])

    def _on(self, inner: Objective) -> Self:
        return type(self)(inner, self.probability, self.streams)


class Smoothed(Wrapped):
    """The gradient after a Gaussian blur, as if averaged over shifted images (translation invariance, Dong et al., CVPR 2019).

    Args:
        radius: pixels on each side that the blur reaches, three standard deviations.
    """

    def __init__(self, inner: Objective, radius: int) -> None:
        super().__init__(inner)
        self.radius = radius

    def _look(self, images: Tensor, progress: float) -> Feedback:
        seen = images.view_as(images)
        if seen.requires_grad:
            seen.register_hook(self._blurred)  # type: ignore[no-untyped-call]
        return self.inner(seen, progress=progress)

    def _blurred(self, gradient: Tensor) -> Tensor:
        kernel = torch.linspace(-3, 3, 2 * self.radius + 1, device=gradient.device, dtype=gradient.dtype).square().div(-2).exp()
        kernel = (kernel / kernel.sum()).expand(gradient.shape[1], 1, 1, -1)
        rows = F.conv2d(gradient.nan_to_num(0, 0, 0), kernel, padding=(0, self.radius), groups=len(kernel))
        return F.conv2d(rows, kernel.mT, padding=(self.radius, 0), groups=len(kernel))

    def _on(self, inner: Objective) -> Self:
        return type(self)(inner, self.radius)


def _mean(looks: Iterable[Callable[[Tensor], Feedback]], images: Tensor) -> tuple[Tensor, list[Feedback]]:
    """(n,) the mean loss of some looks, and what each of them gave.

    Where images want a gradient, each look's is taken at once, so that only one graph is alive; the mean loss is then linear in the images.
    """
    seen, gradient, losses = [], torch.zeros_like(images, requires_grad=False), []
    for look in looks:
        x = images.detach().requires_grad_(images.requires_grad)
        feedback = look(x)
        if x.requires_grad and feedback.loss.requires_grad:
            gradient += torch.autograd.grad(feedback.loss.sum(), x)[0].nan_to_num(0, 0, 0)
        losses.append(feedback.loss.detach())
        seen.append(feedback)
    loss = torch.stack(losses).mean(0)
    return loss + ((images - images.detach()) * (gradient / len(seen))).flatten(1).sum(1), seen


def _shrunk_onto(length: int, size: Tensor, place: Tensor) -> Tensor:
    """(n, length, length): matrices that resize a line bilinearly to about `size` of its length and put it somewhere between zeros.

    Args:
        size: (n,) above 0, at most 1.
        place: (n,) in [0, 1], from one end to the other.
    """
    pixels = torch.arange(length, device=size.device, dtype=size.dtype)
    kept = (size * length).floor()[:, None]
    at = pixels - ((length - kept + 1) * place[:, None]).floor().minimum(length - kept)
    source = ((at + 0.5) * length / kept - 0.5).clamp(0, length - 1)
    there = (at >= 0) & (at < kept)
    return (1 - (source[:, :, None] - pixels).abs()).clamp_min(0) * there[:, :, None]
