"""Batched random views of composed scenes, on tensors: what pretraining on two CPU cores can afford.

Every random number comes from the generator given, so a run that is resumed draws what the uninterrupted one would have drawn.
Positions are in the scene's coordinates, [-1, 1] from edge to edge; an affine map (n, 2, 3) takes coordinates of what is drawn to
coordinates of what it is drawn from, as `torch.nn.functional.affine_grid` has it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

LUMA = torch.tensor([0.299, 0.587, 0.114])
SHADE = (50.0, 0.8)  # an item's grey value g is painted as 50 + 0.8 g times its tint, as in scenes.py
EDGE = (0.3, 0.4)  # a silhouette's opacity rises from 0 to 1 where its blurred value goes from 0.3 to 0.7, as in scenes.py
TURN = math.radians(15)


@dataclass(frozen=True)
class Placing:
    """How an item is put into a scene. Lengths are shares of the scene's side; pairs are ranges."""

    scale: tuple[float, float] = (0.45, 1.0)
    shift: float = 0.12
    tint: tuple[float, float] = (0.35, 1.05)


@dataclass(frozen=True)
class Cropping:
    """Which part of a scene a view of `size` × `size` pixels shows.

    `area` is the range of its share of the scene, `stretch` of the logarithm of its aspect ratio; its centre is off the item's by at
    most `spread` of the item's side.
    """

    size: int
    area: tuple[float, float]
    spread: float
    stretch: float = 0.25


@dataclass(frozen=True)
class Recolouring:
    """Strength of the random colours, and the shares of views that are recoloured, made grey and blurred."""

    strength: float = 1.0
    share: float = 0.8
    grey: float = 0.25
    blur: float = 0.3


@dataclass(frozen=True)
class Layout:
    """Where the items of n scenes are: maps (n, 2, 3) from the scene to the item, sides (n,), centres (n, 2), tints (n, 3)."""

    maps: Tensor
    sides: Tensor
    centres: Tensor
    tints: Tensor


def uniform(generator: Generator, n: int, low: float, high: float) -> Tensor:
    """n random numbers in [low, high)."""
    return torch.rand(n, generator=generator) * (high - low) + low


def place(generator: Generator, n: int, placing: Placing) -> Layout:
    """Random layout of n scenes of one item each."""
    sides = uniform(generator, n, *placing.scale)
    angle = uniform(generator, n, -TURN, TURN)
    centres = 2 * uniform(generator, 2 * n, -placing.shift, placing.shift).view(n, 2)
    cos, sin = torch.cos(angle) / sides, torch.sin(angle) / sides
    turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    maps = torch.cat([turn, -turn @ centres[..., None]], 2)
    return Layout(maps, sides, centres, uniform(generator, 3 * n, *placing.tint).view(n, 3))


def turned(generator: Generator, backgrounds: Tensor) -> Tensor:
    """Backgrounds (n, 3, s, s), all mirrored and turned by the same random multiple of 90°."""
    turn = int(torch.randint(8, (1,), generator=generator))
    return torch.rot90(backgrounds.flip(3) if turn & 1 else backgrounds, turn >> 1, (2, 3))


def compose(backgrounds: Tensor, items: Tensor, layout: Layout) -> Tensor:
    """Scenes (n, 3, s, s) in [0, 255] of items (n, 2, t, t), grey picture and silhouette, on backgrounds (n, 3, s, s), all uint8."""
    scenes = backgrounds.float()
    grid = F.affine_grid(layout.maps, [len(scenes), 1, *scenes.shape[2:]], align_corners=False)
    drawn = F.grid_sample(items.float(), grid, align_corners=False)
    opacity = ((drawn[:, 1:] / 255 - EDGE[0]) / EDGE[1]).clamp(0, 1)
    return scenes.lerp((SHADE[0] + SHADE[1] * drawn[:, :1]) * layout.tints[:, :, None, None], opacity)


def crop(generator: Generator, scenes: Tensor, layout: Layout, cropping: Cropping) -> Tensor:
    """Views (n, 3, size, size): a random part of each scene (n, 3, s, s), mirrored half of the time."""
    n = len(scenes)
    side = uniform(generator, n, *cropping.area).sqrt()
    stretch = torch.exp(uniform(generator, n, -cropping.stretch, cropping.stretch) / 2)
    half = torch.stack([side * stretch, side / stretch], 1).clamp(max=1)
    away = uniform(generator, 2 * n, -cropping.spread, cropping.spread).view(n, 2) * layout.sides[:, None]
    centre = (layout.centres + away).clamp(half - 1, 1 - half)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, 1.0, -1.0)
    maps = torch.cat([torch.diag_embed(torch.stack([half[:, 0] * mirror, half[:, 1]], 1)), centre[..., None]], 2)
    grid = F.affine_grid(maps, [n, 1, cropping.size, cropping.size], align_corners=False)
    return F.grid_sample(scenes, grid, padding_mode="reflection", align_corners=False)


def recolour(generator: Generator, views: Tensor, how: Recolouring) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] of views in [0, 255]: brightness, contrast, saturation and hue changed, some grey or blurred."""
    n, s = len(views), how.strength
    on = (torch.rand(n, generator=generator) < how.share).float()
    bright, contrast = (1 + on * uniform(generator, n, -0.4 * s, 0.4 * s) for _ in range(2))
    saturation = 1 + on * uniform(generator, n, -0.8 * s, 0.6 * s)
    hue = on * uniform(generator, n, -0.4 * math.pi * s, 0.4 * math.pi * s)
    saturation = torch.where(torch.rand(n, generator=generator) < how.grey, torch.zeros(n), saturation)
    kept = saturation[:, None, None]
    mixed = (kept * _hue_rotation(hue) + (1 - kept) * LUMA.expand(3, 3)) * (bright * contrast)[:, None, None]
    offset = (1 - contrast) * bright * views.mean((1, 2, 3))
    coloured = torch.baddbmm(offset[:, None, None].expand(n, 3, 1), mixed, views.flatten(2)).view_as(views)
    chosen = torch.randperm(n, generator=generator)[: int(n * how.blur)]
    if len(chosen):
        coloured[chosen] = _blurred(coloured[chosen], uniform(generator, len(chosen), 0.3, 1.2))
    return coloured.clamp_(0, 255).div_(255)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Matrices (n, 3, 3) that turn colours about the grey axis by angles (n,) in radians."""
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    axis = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return torch.eye(3) * cos + (1 - cos) / 3 + axis * sin


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (n, 3, h, w) under a Gaussian of sigma (n,) pixels, cut off at two pixels."""
    taps = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2 / sigma[:, None] ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)
    channels = F.pad(images.reshape(1, -1, *images.shape[2:]), (2, 2, 2, 2), mode="replicate")
    rows = F.conv2d(channels, taps[:, None, :, None], groups=len(taps))
    return F.conv2d(rows, taps[:, None, None, :], groups=len(taps)).view_as(images)
