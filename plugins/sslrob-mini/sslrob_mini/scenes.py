"""Composed scenes: items, warped and tinted, pasted with a soft edge and over one another on photographs or textures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sslrob_mini.items import CLASSES, SIDE, Items, read_items
from sslrob_mini.photographs import Split, read_photographs
from sslrob_mini.textures import texture

VOID = 255  # mask value that neither training nor the metric counts
MARGIN = 2  # empty pixels put around an item's picture, so that its soft edge is not cut off there
TURNED = 1.3  # side of the tile that holds a turned and sheared picture, over that of the upright one
HALF = 0.42  # half of what an item usually fills of its picture's side


@dataclass(frozen=True)
class Recipe:
    """What a scene holds. Lengths are shares of the image side; pairs are inclusive ranges."""

    stream: int  # keeps the random choices of recipes with the same seed apart
    size: int
    items: tuple[int, int] = (1, 1)
    scale: tuple[float, float] = (0.6, 0.95)
    spread: float = 1.0  # 0: items in the centre, 1: anywhere where they fit
    tint: tuple[float, float] = (0.5, 1.05)
    textures: float = 0.0  # share of scenes on a generated texture in place of a photograph
    hidden: float = 0.35  # an item of which a smaller share is visible does not count: a crowd region, void in the mask
    overlap: float = 0.4  # a place where an item would cover more than this share of an earlier one is refused, `tries` times
    tries: int = 2


CROPS = Recipe(stream=1, size=64, spread=0.4)
SCENES = Recipe(stream=2, size=128, items=(1, 3), scale=(0.3, 0.55))
POOL = Recipe(stream=3, size=64, scale=(0.45, 1.0), textures=0.5)


@dataclass(frozen=True)
class Source:
    """What scenes are made of: the items and the photographs of one split."""

    split: Split
    items: Items
    photographs: dict[str, Image.Image]

    @classmethod
    def read(cls, fashion: Path, photos: Path, split: Split) -> "Source":
        """The source of one split; train and test share neither items nor photographs."""
        return cls(split, read_items(fashion, split), read_photographs(photos, split))


@dataclass(frozen=True)
class Scene:
    """An image (h, w, 3) uint8 with its mask (h, w) uint8 (0 background, 1..10 classes, 255 void) and its k objects.

    `boxes` (k, 4) are x1 y1 x2 y2 in pixels around the visible part; `labels` (k,) count from 0; of objects marked in `crowd`
    (k,) too little is visible to count; `items` (k,) index the items; `areas` (k,) are visible pixels.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    items: NDArray[np.int64]
    areas: NDArray[np.int64]
    background: str


def scene(source: Source, recipe: Recipe, seed: int, index: int) -> Scene:
    """Scene number `index` of a seed, the same whatever else is built; its first item is of class `index % 10`."""
    rng = np.random.default_rng([seed, recipe.stream, int(source.split == "test"), index])
    name, canvas = background(rng, source.photographs, recipe)
    owner = np.zeros((recipe.size, recipe.size), dtype=np.uint8)  # which item each pixel belongs to, 0 = none
    items, full = [], [0]
    for k in range(1, int(rng.integers(recipe.items[0], recipe.items[1] + 1)) + 1):
        wanted = index % len(CLASSES) if k == 1 else rng.integers(len(CLASSES))
        items.append(int(rng.choice(np.flatnonzero(source.items.labels == wanted))))
        side = rng.uniform(*recipe.scale) * recipe.size
        colour, alpha = _render(rng, source.items, items[-1], side, recipe.tint)
        for _ in range(recipe.tries):
            where, part = _place(rng, side, alpha.shape[0], recipe)
            solid = alpha[part] > 0.5
            covered = np.bincount(owner[where][solid], minlength=k) / np.maximum(full, 1)
            if (covered[1:] <= recipe.overlap).all():
                break
        blend = alpha[part][..., None]
        canvas[where] = canvas[where] * (1 - blend) + colour[part] * blend
        owner[where][solid] = k
        full.append(int(solid.sum()))
    return _annotated(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), owner, full, items, name, source, recipe)


def pool(source: Source, n: int, size: int, seed: int, textures: float = 0.5) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, size, size, 3) uint8 of one item each, of any size, anywhere, half on textures, with labels (n,) in 0..9.

    For pretraining: more varied than the shipped crops, from the same items and photographs.
    """
    recipe = Recipe(stream=POOL.stream, size=size, scale=POOL.scale, textures=textures)
    scenes = [scene(source, recipe, seed, index) for index in range(n)]
    return np.stack([s.image for s in scenes]), np.arange(n) % len(CLASSES)


def background(rng: np.random.Generator, photographs: Mapping[str, Image.Image], recipe: Recipe) -> tuple[str, NDArray[np.float32]]:
    """Name and pixels (size, size, 3) in about [0, 255] of a random background."""
    if rng.random() < recipe.textures:
        return "texture", texture(rng, recipe.size)
    names = sorted(photographs)
    name = names[rng.integers(len(names))]
    photograph = photographs[name]
    shorter = min(photograph.size)
    side = np.exp(rng.uniform(np.log(min(recipe.size, shorter)), np.log(shorter)))
    left, top = rng.uniform(0, photograph.width - side), rng.uniform(0, photograph.height - side)
    window = photograph.resize((recipe.size, recipe.size), Image.Resampling.BICUBIC, (left, top, left + side, top + side), reducing_gap=2.0)
    pixels = np.rot90(np.asarray(window, dtype=np.float32), int(rng.integers(4)))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if np.ptp(pixels, axis=2).max() == 0:
        pixels = pixels * rng.uniform(0.6, 1.1, 3).astype(np.float32)  # a grey photograph: give it a colour
    elif rng.random() < 0.5:
        pixels = pixels[..., rng.permutation(3)]
    return name, ((pixels - 128) * rng.uniform(0.6, 1.0) + 128 + rng.uniform(-25, 25)).astype(np.float32)


def _render(
    rng: np.random.Generator, items: Items, item: int, side: float, tints: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours (t, t, 3) in [0, 255] and opacity (t, t) in [0, 1] of an item scaled, turned, sheared, mirrored and tinted."""
    zoom = side / SIDE
    angle, shear = np.deg2rad(rng.uniform(-15, 15)), rng.uniform(-0.1, 0.1)
    mirror = 1 if rng.random() < 0.5 else -1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(turn @ np.array([[mirror, shear], [0, 1]]) * zoom)
    tile = int(np.ceil(zoom * (SIDE + 2 * MARGIN) * TURNED))
    offset = np.full(2, SIDE / 2 + MARGIN) - back @ np.full(2, tile / 2)
    affine = (*back[0], offset[0], *back[1], offset[1])

    def warped(picture: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.float32]:
        padded = Image.fromarray(np.pad(picture, MARGIN))
        return np.asarray(padded.transform((tile, tile), Image.Transform.AFFINE, affine, how), dtype=np.float32)

    shape = warped(items.silhouettes[item].astype(np.uint8) * 255, Image.Resampling.BILINEAR) / 255
    shade = 50 + 0.8 * warped(items.pictures[item], Image.Resampling.BICUBIC)
    tint = rng.uniform(*tints, 3).astype(np.float32)
    return shade[..., None] * tint, np.clip((shape - 0.3) / 0.4, 0, 1)


def _place(rng: np.random.Generator, side: float, tile: int, recipe: Recipe) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """A random place for an item of a side: the part of the image that its tile falls on, and the part of the tile that does."""
    size = recipe.size
    room = max(0.0, size / 2 - HALF * side) * recipe.spread
    start = np.rint(size / 2 + rng.uniform(-room, room, 2) - tile / 2).astype(int)
    where, part = [], []
    for s in start.tolist():
        where.append(slice(max(s, 0), min(s + tile, size)))
        part.append(slice(max(-s, 0), min(size - s, tile)))
    return (where[0], where[1]), (part[0], part[1])


def _annotated(
    image: NDArray[np.uint8],
    owner: NDArray[np.uint8],
    full: list[int],
    items: list[int],
    background: str,
    source: Source,
    recipe: Recipe,
) -> Scene:
    """A scene with what is visible of each item measured."""
    mask = np.zeros_like(owner)
    instances = np.zeros_like(owner)
    boxes, crowd, seen = [], [], []
    for k, item in enumerate(items, start=1):
        visible = owner == k
        if not visible.any():
            continue
        seen.append(item)
        instances[visible] = len(seen)
        crowd.append(visible.sum() < recipe.hidden * full[k])
        mask[visible] = VOID if crowd[-1] else source.items.labels[item] + 1
        mask[_rim(visible) & (owner < k)] = VOID
        y, x = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        boxes.append((x[0], y[0], x[-1] + 1, y[-1] + 1))
    return Scene(
        image=image,
        mask=mask,
        instances=instances,
        boxes=np.array(boxes, dtype=np.int64).reshape(-1, 4),
        labels=source.items.labels[seen],
        crowd=np.array(crowd, dtype=bool),
        items=np.array(seen, dtype=np.int64),
        areas=np.bincount(instances.ravel(), minlength=len(seen) + 1)[1:],
        background=background,
    )


def _rim(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels beside a region, up, down, left or right of it."""
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    grown[:, 1:] |= region[:, :-1]
    grown[:, :-1] |= region[:, 1:]
    return grown & ~region
