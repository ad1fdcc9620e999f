"""Reading image files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sslrob.errors import SslrobError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def open_rgb(path: Path) -> Image.Image:
    """The image in RGB.

    Raises:
        SslrobError: the file is missing, empty, not an image, or not one of 8 bits a channel.
    """
    try:
        if path.stat().st_size == 0:
            raise SslrobError(f"image {str(path)!r} is empty", hint="restore the file or remove it from the data set")
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # Pillow would cut these off at 255
                raise SslrobError(f"image {str(path)!r} has more than 8 bits a channel", hint="convert it to 8 bits a channel")
            return image.convert("RGB")
    except FileNotFoundError:
        raise SslrobError(f"image {str(path)!r} does not exist", hint="check the data set's path and its annotations") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise SslrobError(f"image {str(path)!r} cannot be read: {error}", hint="restore the file or remove it from the data set") from None


def to_tensor(image: Image.Image) -> Tensor:
    """(3, h, w) float32 in [0, 1] of an RGB image."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255


def resized(image: Image.Image, *, shorter: int | None, crop: int | None) -> Image.Image:
    """The image with its shorter side brought to `shorter` pixels (bicubic), then its centre `crop` × `crop` cut out."""
    if shorter is not None:
        scale = shorter / min(image.size)
        width, height = (max(shorter, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if crop is not None:
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        if left < 0 or top < 0:
            raise SslrobError(f"cannot cut {crop} × {crop} pixels from an image of {image.width} × {image.height}", hint="set resize")
        image = image.crop((left, top, left + crop, top + crop))
    return image


def listed(folder: Path) -> list[Path]:
    """Every image file below `folder`, ordered by path.

    Raises:
        SslrobError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise SslrobError(f"no folder {str(folder)!r}", hint="check the data set's path: sslrob zoo show NAME")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise SslrobError(f"no image below {str(folder)!r}", hint=f"images end in {', '.join(sorted(SUFFIXES))}")
    return found


def fingerprint(paths: Iterable[Path], root: Path, *extra: str, annotations: Iterable[Path] = ()) -> str:
    """16 hex digits that change with the files' names or sizes, with `extra`, or with the bytes of `annotations`."""
    digest = hashlib.sha256("\0".join(extra).encode())
    for path in paths:
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{path.stat().st_size}".encode())
    for path in annotations:
        digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
