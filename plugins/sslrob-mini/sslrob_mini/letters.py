"""Letters on photographs: ten capitals, each its own mirror image, set in libre typefaces, coloured, scaled, turned and sheared."""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sslrob.errors import SslrobError
from sslrob_mini.photographs import Split
from sslrob_mini.scenes import Recipe, background

CLASSES = tuple("AHMOTUVWXY")  # their own mirror images: a recipe that mirrors images, as ours do, shows no letter that there is not
FONTS = Path(__file__).parent / "data" / "letters" / "fonts.csv"
SIDE = 64
DRAWN = 128  # pixels of an em when a letter is drawn, before it is warped
RECIPE = Recipe(stream=5, size=SIDE, scale=(0.55, 0.9), spread=0.5)  # scale: the longer side of the letter
TURN = 15  # degrees, either way
SHEAR = 0.2
STRETCH = (0.8, 1.25)  # of the height
CONTRAST = 60  # grey values between a letter and what it covers, at least
TRIES = 20
FINE = 4  # letters are warped on a grid this much finer, then averaged
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Font:
    """One typeface's file, as Debian distributes it."""

    file: str
    split: Split
    name: str
    author: str
    licence: str
    package: str
    sha256: str


@dataclass(frozen=True)
class Letters:
    """What the images of a split are made of: every class of every font as a mask (h, w) in [0, 255], and photographs."""

    split: Split
    masks: Mapping[str, tuple[NDArray[np.uint8], ...]]
    photographs: Mapping[str, Image.Image]


@dataclass(frozen=True)
class Picture:
    """An image (64, 64, 3) uint8 with the index of its class, its font and its photograph."""

    image: NDArray[np.uint8]
    label: int
    font: str
    background: str


def fonts(table: Path = FONTS) -> list[Font]:
    """The fonts of both splits, as the table beside the data lists them."""
    with table.open(encoding="utf-8", newline="") as rows:
        return [Font(**row) for row in csv.DictReader(rows)]  # type: ignore[arg-type]


def read_masks(folder: Path, split: Split) -> dict[str, tuple[NDArray[np.uint8], ...]]:
    """The ten letters of each font of a split, cut to their ink, by the font's file name.

    Args:
        folder: anywhere below it the files may lie.

    Raises:
        SslrobError: a file is missing, or is not the one whose checksum the table holds.
    """
    lie = {path.name: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".otf", ".ttf")}
    masks = {}
    for font in fonts():
        if font.split != split:
            continue
        if font.file not in lie:
            raise SslrobError(f'no font "{font.file}" below "{folder}"', hint=f"apt-get install {font.package}")
        path = lie[font.file]
        if hashlib.sha256(path.read_bytes()).hexdigest() != font.sha256:
            raise SslrobError(f'font "{path}" has another sha256 than "{font.sha256}"', hint=f"take it from Debian 12's {font.package}")
        drawn = ImageFont.truetype(path, DRAWN, layout_engine=ImageFont.Layout.BASIC)
        masks[font.file] = tuple(_mask(drawn, letter) for letter in CLASSES)
    return masks


def _mask(font: ImageFont.FreeTypeFont, letter: str) -> NDArray[np.uint8]:
    canvas = Image.new("L", (3 * DRAWN, 3 * DRAWN))
    ImageDraw.Draw(canvas).text((DRAWN, DRAWN), letter, fill=255, font=font)
    return np.asarray(canvas.crop(canvas.getbbox()))


def picture(source: Letters, seed: int, index: int) -> Picture:
    """Picture number `index` of a seed, the same whatever else is built; its letter is of class `index % 10`."""
    rng = np.random.default_rng([seed, RECIPE.stream, int(source.split == "test"), index])
    name, canvas = background(rng, source.photographs, RECIPE)
    label = index % len(CLASSES)
    names = sorted(source.masks)
    font = names[rng.integers(len(names))]
    alpha = _placed(rng, source.masks[font][label])[..., None]
    colour = _colour(rng, (canvas * alpha).sum((0, 1)) / alpha.sum())
    image = canvas * (1 - alpha) + colour * alpha
    return Picture(np.clip(np.rint(image), 0, 255).astype(np.uint8), label, font, name)


def _placed(rng: np.random.Generator, mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Opacity (64, 64) in [0, 1] of a letter scaled, stretched, turned, sheared and put where it fits."""
    side = rng.uniform(*RECIPE.scale) * SIDE
    angle, shear, stretch = np.deg2rad(rng.uniform(-TURN, TURN)), rng.uniform(-SHEAR, SHEAR), np.exp(rng.uniform(*np.log(STRETCH)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    zoom = side / max(mask.shape[1], mask.shape[0] * stretch)
    there = turn @ np.array([[1, shear], [0, stretch]]) * zoom
    half = np.abs(there) @ np.array([mask.shape[1], mask.shape[0]]) / 2  # of what the letter fills, across and down
    room = np.maximum(0, SIDE / 2 - half) * RECIPE.spread
    back = np.linalg.inv(there)
    offset = np.array([mask.shape[1], mask.shape[0]]) / 2 - back @ (SIDE / 2 + rng.uniform(-room, room))
    affine = (*back[0] / FINE, offset[0], *back[1] / FINE, offset[1])
    warped = Image.fromarray(mask).transform((SIDE * FINE, SIDE * FINE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(warped.reduce(FINE), dtype=np.float32) / np.float32(255)


def _colour(rng: np.random.Generator, covered: NDArray[np.float32]) -> NDArray[np.float32]:
    """RGB in [0, 255] that stands out, in grey, against the mean colour that it covers."""
    for _ in range(TRIES):
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        if abs((colour - covered) @ GREY) >= CONTRAST:
            break
    return colour
