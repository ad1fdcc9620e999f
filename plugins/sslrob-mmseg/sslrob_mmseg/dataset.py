"""Images and label masks in two folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from sslrob import images as files
from sslrob.data import Sample
from sslrob.errors import SslrobError

IGNORED = 255
"""The label of pixels that do not count, in every target, whatever the files call them."""


@dataclass(frozen=True)
class MaskSettings:
    """Where masks lie and what their numbers mean: `images/A/B.jpg` has the mask `masks/A/B` + suffix."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    images: Annotated[str, Field(description="folder of the images, below the data set's")] = "images"
    masks: Annotated[str, Field(description="folder of the masks, below the data set's")] = "masks"
    suffix: Annotated[str, Field(description="how the names of masks end, after the image's without its own ending")] = ".png"
    ignore: Annotated[int, Field(ge=0, description="the number of pixels that do not count")] = IGNORED
    reduce_zero_label: Annotated[bool, Field(description="0 does not count either, and the classes count from 1, as in ADE20K")] = False


class Masks:
    """Samples whose target is a mask: (h, w) uint8, the class of each pixel or `IGNORED`.  Ids are paths below `images`, without suffix."""

    def __init__(self, root: Path, classes: Sequence[str], settings: MaskSettings) -> None:
        if not 0 < len(classes) <= IGNORED:
            raise SslrobError(
                f"the data set {str(root)!r} has {len(classes)} classes; masks need 1 to {IGNORED}",
                hint="list the names of the classes, in the order of the labels",
            )
        folders = [root / name for name in (settings.images, settings.masks)]
        for folder, setting in zip(folders, ("images", "masks"), strict=True):
            if not folder.is_dir():
                raise SslrobError(f"no folder {str(folder)!r}", hint=f"check the data set's path, and its setting {setting!r}")
        self.classes, self.settings = tuple(classes), settings
        self.images = files.listed(folders[0])
        stems = [path.relative_to(folders[0]).with_suffix("") for path in self.images]
        self.ids = tuple(stem.as_posix() for stem in stems)
        self.masks = [folders[1] / f"{id}{settings.suffix}" for id in self.ids]
        self._require_masks()
        self.fingerprint = files.fingerprint(self.images, root, repr(settings), *self.classes, annotations=self.masks)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image, mask = files.to_tensor(files.open_rgb(self.images[index])), self._mask(self.masks[index])
        if tuple(image.shape[1:]) != mask.shape:
            (h, w), (height, width) = image.shape[1:], mask.shape
            raise SslrobError(
                f"mask {str(self.masks[index])!r} has {width} × {height} pixels, its image {w} × {h}", hint="bring both to the same size"
            )
        return Sample(self.ids[index], image, torch.from_numpy(mask))

    def _require_masks(self) -> None:
        owners: dict[str, Path] = {}
        for id, image, mask in zip(self.ids, self.images, self.masks, strict=True):
            if id in owners:
                raise SslrobError(f"images {owners[id].name!r} and {image.name!r} of {str(image.parent)!r} share a mask", hint="rename one")
            owners[id] = image
            if not mask.is_file():
                raise SslrobError(
                    f"image {str(image)!r} has no mask {str(mask)!r}", hint="add the mask, or set how masks end: suffix", note=self._count()
                )

    def _count(self) -> str:
        return f"{sum(mask.is_file() for mask in self.masks)} of {len(self.masks)} images have a mask"

    def _mask(self, path: Path) -> NDArray[np.uint8]:
        labels = read_labels(path)
        ignored = labels == self.settings.ignore
        if self.settings.reduce_zero_label:
            ignored |= labels == 0
            labels = labels - 1
        highest = int(labels[~ignored].max(initial=0))
        if highest >= len(self.classes):
            raise SslrobError(
                f"mask {str(path)!r} holds label {highest + self.settings.reduce_zero_label}, but the data set has {len(self.classes)} classes",
                hint="list all classes, or set what does not count: ignore",
            )
        return np.where(ignored, IGNORED, labels).astype(np.uint8)


def read_labels(path: Path) -> NDArray[np.int64]:
    """(h, w) the numbers in a mask: its grey values, or the indices of its palette.

    Raises:
        SslrobError: the file cannot be read, or holds colours.
    """
    hint = "restore the mask, or remove it together with its image"
    if path.stat().st_size == 0:
        raise SslrobError(f"mask {str(path)!r} is empty", hint=hint)
    try:
        with Image.open(path) as image:
            labels = np.array(image)
            mode = image.mode
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise SslrobError(f"mask {str(path)!r} cannot be read: {error}", hint=hint) from None
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise SslrobError(
            f"mask {str(path)!r} is an image of mode {mode!r}; a mask holds one whole number a pixel", hint="convert its colours to labels"
        )
    return labels.astype(np.int64)
