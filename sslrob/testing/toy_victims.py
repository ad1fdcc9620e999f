"""Victims small enough to know everything about them: no file, no training, milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob.backbone import Backbone, Features
from sslrob.builtin import scores
from sslrob.task import Victim
from sslrob.threat_model import L1, L2, Linf, ThreatModel

CELL = 4  # pixels of the side of one of the detector's cells


class ToyBackbone(Backbone):
    """The image less grey, through a 1 × 1 convolution that starts as the identity; then the same, averaged, at coarser levels.

    Args:
        levels: number of feature maps, at strides 1, 2, 4, …
    """

    def __init__(self, levels: int = 2) -> None:
        super().__init__()
        self.width = 3
        self.channels = (3,) * levels
        self.strides = tuple(2**i for i in range(levels))
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self.mix = nn.Conv2d(3, 3, 1, bias=False)
            self.mix.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, images: Tensor) -> Features:
        maps: list[Tensor] = [self.mix(images - self.mean)]
        for _ in self.strides[1:]:
            maps.append(F.avg_pool2d(maps[-1], 2, ceil_mode=True))
        return Features(maps[0].mean((2, 3)), tuple(maps))


class _ToyVictim(Victim):
    def __init__(self, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.body = backbone or ToyBackbone()

    @property
    def backbone(self) -> Backbone:
        return self.body


class LinearVictim(_ToyVictim):
    """Two classes told apart by a linear function: the robust radius of every image is known exactly.

    Outputs: the function's value (n,), positive for class 1.  Quality: its distance from zero on the true side.

    Args:
        size: height and width of its images.
    """

    losses = ("margin", "logistic")
    targeted = scores.TARGETED

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, size, size, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = (self.body(images).maps[0] * self.weight).flatten(1).sum(1)
        return values

    def loss(self, outputs: Tensor, targets: Sequence[int], name: str, progress: float) -> Tensor:
        del progress
        margin = -self.quality(outputs, targets)
        return F.softplus(margin) if name == "logistic" else margin

    def fooled(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return ~(self.quality(outputs, targets) > 0)

    def quality(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return torch.where(torch.tensor(targets, device=outputs.device) == 1, outputs, -outputs)

    def margins(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return scores.margins(_two(outputs), torch.tensor(targets, device=outputs.device))

    def pull(self, outputs: Tensor, targets: Sequence[int], aims: Tensor, name: str) -> Tensor:
        return scores.pull(_two(outputs), torch.tensor(targets, device=outputs.device), aims, name)

    def predict(self, outputs: Tensor) -> list[int]:
        return [int(value > 0) for value in outputs.tolist()]

    @torch.no_grad()
    def radius(self, images: Tensor, norm: type[ThreatModel]) -> Tensor:
        """(n,) float64: the least epsilon at which some allowed image changes the class.

        Linf and L2: |value| / dual norm of the weight, where no value leaves [0, 1] on its way.  L1: the values with the largest
        weights, each moved as far as the pixel range lets it.

        Args:
            images: (n, 3, size, size), of which no Linf or L2 move of the radius leaves [0, 1].
        """
        x, weight = images.double().flatten(1), self.weight.double().flatten()
        value = (x - 0.5) @ weight
        if norm is Linf:
            return value.abs() / weight.abs().sum()
        if norm is L2:
            return value.abs() / weight.square().sum().sqrt()
        if norm is not L1:
            raise ValueError(f"the robust radius under {norm.__name__} is not known")
        towards = weight * -value.sign()[:, None]  # the way that lowers |value|
        room = torch.where(towards > 0, 1 - x, x)
        order = weight.abs().argsort(descending=True)
        room, gain = room[:, order], room[:, order] * weight.abs()[order]
        before = gain.cumsum(1) - gain
        share = ((value.abs()[:, None] - before) / gain.clamp_min(1e-300)).clamp(0, 1)  # of each value's room that is needed
        return (share * room).sum(1)


class ToySegmenter(_ToyVictim):
    """A class for every pixel: the strongest channel of the image after a 3 × 3 blur.

    Outputs: logits (n, 3, h, w).  Fooled: no pixel is right.  Quality: the share of pixels that are right.
    """

    losses = ("ce", "segpgd")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 40 * F.avg_pool2d(self.body(images).maps[0], 3, 1, 1)
        return logits

    def loss(self, outputs: Tensor, targets: Sequence[Tensor], name: str, progress: float) -> Tensor:
        """`ce`: mean cross-entropy.  `segpgd`: first the pixels that are right, then all alike (Gu et al. 2022)."""
        pixel = F.cross_entropy(outputs, _stacked(targets, outputs), reduction="none")
        if name == "segpgd":
            pixel = pixel * torch.where(self._right(outputs, targets), 1 - progress / 2, progress / 2)
        return pixel.flatten(1).mean(1)

    def fooled(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        return ~self._right(outputs, targets).flatten(1).any(1)

    def quality(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        return self._right(outputs, targets).flatten(1).float().mean(1)

    def predict(self, outputs: Tensor) -> list[Tensor]:
        return list(outputs.argmax(1).cpu())

    def _right(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        return outputs.argmax(1) == _stacked(targets, outputs)


class ToyDetector(_ToyVictim):
    """An object in every cell of 4 × 4 pixels that is brighter than grey.

    Outputs: scores (n, cells).  Fooled: no true object is found.  Quality: the share of true objects that are found, less a
    hundredth of their mean score's distance from the highest possible one, so that progress shows before an object is lost.
    """

    losses = ("objectness",)

    def forward(self, images: Tensor) -> Tensor:
        return 8 * F.avg_pool2d(self.body(images).maps[0].mean(1, keepdim=True), CELL).flatten(1)

    def loss(self, outputs: Tensor, targets: Sequence[frozenset[int]], name: str, progress: float) -> Tensor:
        del name, progress
        return F.binary_cross_entropy_with_logits(outputs, _cells(targets, outputs), reduction="none").mean(1)

    def fooled(self, outputs: Tensor, targets: Sequence[frozenset[int]]) -> Tensor:
        return ~((outputs > 0) & (_cells(targets, outputs) > 0)).any(1)

    def quality(self, outputs: Tensor, targets: Sequence[frozenset[int]]) -> Tensor:
        true = _cells(targets, outputs)
        found = (outputs > 0).to(true) - (1 - outputs.sigmoid()) / 100
        return (found * true).sum(1) / true.sum(1)

    def predict(self, outputs: Tensor) -> list[frozenset[int]]:
        return [frozenset(i for i, score in enumerate(scores) if score > 0) for scores in outputs.tolist()]


def _two(values: Tensor) -> Tensor:
    """(n, 2) scores of the classes that the sign of (n,) values tells apart."""
    return torch.stack([torch.zeros_like(values), values], 1)


def _stacked(targets: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(targets)).to(like.device)


def _cells(targets: Sequence[frozenset[int]], like: Tensor) -> Tensor:
    """(n, cells) 1 where there is an object, else 0."""
    return torch.tensor([[float(i in cells) for i in range(like.shape[1])] for cells in targets], device=like.device)
