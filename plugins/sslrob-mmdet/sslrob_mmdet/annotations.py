"""Images and their annotations, before any image is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sslrob.errors import SslrobError

Box = tuple[float, float, float, float]
SLACK = 1.0  # pixels that a box may reach out of its image, and is then cut; annotation tools round


@dataclass(frozen=True)
class Annotation:
    """One object of an image: x1 y1 x2 y2 and area in pixels; of a crowd, detections do not count."""

    box: Box
    label: int
    area: float
    crowd: bool


@dataclass(frozen=True)
class Picture:
    """An annotated image: its file, its width and height as annotated, and what is on it."""

    id: str
    path: Path
    size: tuple[int, int]
    annotations: tuple[Annotation, ...]
    source: str  # the annotation file, for errors


@dataclass(frozen=True)
class Annotated:
    """What a reader makes of annotation files: the classes in the order of the labels, the images, and a hash of what was read."""

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    sha256: str


def inside(box: Box, size: tuple[int, int], *, source: str, which: str) -> Box:
    """The box, cut to its image of width and height `size`.

    Raises:
        SslrobError: it has no area, is not finite, or lies outside its image by more than rounding explains.
    """
    x1, y1, x2, y2 = box
    width, height = size
    written = f"[{', '.join(f'{value:g}' for value in box)}]"
    if not (x1 < x2 and y1 < y2):
        raise SslrobError(f"box {written} (x1 y1 x2 y2) of {which} in {source!r} has no area", hint="correct or remove the annotation")
    if min(x1, y1) < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
        raise SslrobError(
            f"box {written} (x1 y1 x2 y2) of {which} in {source!r} lies outside its image of {by(size)} pixels",
            hint="correct the annotation, or use the images that it was made for",
        )
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if not (cut[0] < cut[2] and cut[1] < cut[3]):
        raise SslrobError(
            f"box {written} (x1 y1 x2 y2) of {which} in {source!r} lies outside its image of {by(size)} pixels",
            hint="correct or remove the annotation",
        )
    return cut


def by(size: tuple[int, int]) -> str:
    """Width and height, as people write them."""
    return f"{size[0]} × {size[1]}"
