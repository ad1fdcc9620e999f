"""Generated backgrounds: a random field coloured by a random palette, for pretraining on more than a few photographs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32 | np.float64]


def texture(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Random colour texture (size, size, 3) in [0, 255]."""
    field = FIELDS[rng.integers(len(FIELDS))](rng, size)
    palette = rng.uniform(0, 255, (rng.integers(2, 6), 3))
    stops = np.linspace(0, 1, len(palette))
    coloured = np.stack([np.interp(field, stops, channel) for channel in palette.T], axis=-1)
    shade = noise(rng, size) - 0.5
    textured: Field = np.clip(coloured + rng.uniform(0, 120) * shade[..., None], 0, 255)
    return textured.astype(np.float32)


def noise(rng: np.random.Generator, size: int) -> Field:
    """Smooth noise in octaves, each twice as fine and of a random share of the last one's strength."""
    persistence = rng.uniform(0.3, 0.9)
    total: Field = np.zeros((size, size), dtype=np.float32)
    knots = int(rng.integers(2, 6))
    strength = 1.0
    while knots < size:
        grid = Image.fromarray(rng.random((knots, knots), dtype=np.float32))
        total += strength * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
        knots, strength = knots * 2, strength * persistence
    return _stretched(total)


def gradient(rng: np.random.Generator, size: int) -> Field:
    """A ramp in a random direction."""
    return _stretched(_ramp(rng, size))


def rings(rng: np.random.Generator, size: int) -> Field:
    """Waves around a random centre."""
    x, y = _grid(size)
    centre = rng.uniform(-0.5, 1.5, 2)
    return _wave(rng, np.hypot(x - centre[0], y - centre[1]))


def stripes(rng: np.random.Generator, size: int) -> Field:
    """Smooth or hard stripes in a random direction."""
    return _wave(rng, _ramp(rng, size))


def checks(rng: np.random.Generator, size: int) -> Field:
    """The product of two sets of stripes."""
    return stripes(rng, size) * stripes(rng, size)


def cells(rng: np.random.Generator, size: int) -> Field:
    """Voronoi cells, each of a random value."""
    seeds = rng.random((rng.integers(4, 40), 2))
    x, y = _grid(size)
    distance = (x[..., None] - seeds[:, 0]) ** 2 + (y[..., None] - seeds[:, 1]) ** 2
    values: Field = rng.random(len(seeds))
    field: Field = values[distance.argmin(axis=-1)]
    return field


def polygons(rng: np.random.Generator, size: int) -> Field:
    """Random triangles to hexagons over one another."""
    canvas = Image.new("L", (size, size), int(rng.integers(256)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(3, 16)):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(0.1, 0.5) * size
        corners = centre + rng.uniform(-radius, radius, (rng.integers(3, 7), 2))
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=int(rng.integers(256)))
    return np.asarray(canvas, dtype=np.float32) / 255


FIELDS: tuple[Callable[[np.random.Generator, int], Field], ...] = (noise, gradient, rings, stripes, checks, cells, polygons)


def _grid(size: int) -> tuple[Field, Field]:
    """x and y of every pixel, in [0, 1)."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / np.float32(size)
    return x, y


def _ramp(rng: np.random.Generator, size: int) -> Field:
    """Distance of every pixel along a random direction."""
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp: Field = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    return ramp


def _wave(rng: np.random.Generator, position: Field) -> Field:
    """Sine of a position, 1 to 16 periods an image side, softly or sharply clipped."""
    period, phase, sharpness = np.exp(rng.uniform(0, np.log(16))), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 8)
    wave: Field = np.clip(0.5 + 0.5 * sharpness * np.sin(2 * np.pi * period * position + phase), 0, 1)
    return wave


def _stretched(field: Field) -> Field:
    """A field scaled to span [0, 1]."""
    low, high = field.min(), field.max()
    stretched: Field = (field - low) / max(high - low, np.float32(1e-6))
    return stretched
