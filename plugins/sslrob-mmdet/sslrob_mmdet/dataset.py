"""Images with boxes, from annotations in COCO's or Pascal VOC's format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sslrob import images as files
from sslrob.data import Sample
from sslrob.errors import SslrobError, unknown
from sslrob.settings import checked
from sslrob_mmdet import coco, voc
from sslrob_mmdet.annotations import Annotated, Annotation, Picture, by
from sslrob_mmdet.objects import Objects


class DetectionDataset:
    """A sequence of samples whose targets are `Objects`; images without objects belong to it.

    Attributes:
        classes: names, in the order of the labels.
        fingerprint: SHA-256 over the annotations' bytes, the images' names and file sizes, the classes and the resizing.
    """

    def __init__(self, annotated: Annotated, *, fit: tuple[int, int] | None) -> None:
        """Args:
        fit: longer and shorter side in pixels; images are resized to the largest size within, as mmdet's test pipelines do.
        """
        self.classes, self.pictures, self.fit = annotated.classes, annotated.pictures, fit
        self.ids = tuple(p.id for p in self.pictures)
        digest = hashlib.sha256(f"{annotated.sha256}\0{self.classes}\0{fit}".encode())
        for picture in self.pictures:
            digest.update(f"\0{picture.id}\0{_bytes(picture)}".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        picture = self.pictures[index]
        image = files.open_rgb(picture.path)
        if image.size != picture.size:
            raise SslrobError(
                f"image {str(picture.path)!r} has {by(image.size)} pixels, but {picture.source!r} says {by(picture.size)}",
                hint="use the images that the annotations were made for",
            )
        image, scale = _fitted(image, self.fit)
        return Sample(picture.id, files.to_tensor(image), _objects(picture.annotations, scale))


def _bytes(picture: Picture) -> int:
    """The size of the image's file."""
    try:
        return picture.path.stat().st_size
    except FileNotFoundError:
        raise SslrobError(
            f"image {str(picture.path)!r} of {picture.source!r} does not exist", hint="check the setting images, or complete the data set"
        ) from None


def _fitted(image: Image.Image, fit: tuple[int, int] | None) -> tuple[Image.Image, tuple[float, float]]:
    """The image in its new size, and by how much x and y grew."""
    if fit is None:
        return image, (1.0, 1.0)
    factor = min(max(fit) / max(image.size), min(fit) / min(image.size))
    size = tuple(int(side * factor + 0.5) for side in image.size)
    return image.resize(size, Image.Resampling.BILINEAR), (size[0] / image.width, size[1] / image.height)


def _objects(annotations: Sequence[Annotation], scale: tuple[float, float]) -> Objects:
    true, crowd = ([a for a in annotations if a.crowd is flag] for flag in (False, True))
    factor = torch.tensor([*scale, *scale])

    def boxes(some: Sequence[Annotation]) -> torch.Tensor:
        return torch.tensor([a.box for a in some], dtype=torch.float32).reshape(-1, 4) * factor

    def labels(some: Sequence[Annotation]) -> torch.Tensor:
        return torch.tensor([a.label for a in some], dtype=torch.long)

    return Objects(boxes(true), labels(true), torch.tensor([a.area for a in true]), boxes(crowd), labels(crowd), scale)


@dataclass(frozen=True)
class CocoSettings:
    """Where COCO annotations and their images are.

    Args:
        annotations: the JSON file, below the data set's root.
        images: the folder that file names in it are relative to, below the root.
        fit: longer and shorter side in pixels that images are resized to fit, such as [1333, 800]; None: as they are.
    """

    annotations: str = "annotations.json"
    images: str = "images"
    fit: tuple[int, int] | None = None


@dataclass(frozen=True)
class VocSettings:
    """Where the images of a Pascal VOC data set are listed.

    Args:
        split: the list is ImageSets/Main/SPLIT.txt.
        fit: longer and shorter side in pixels that images are resized to fit, such as [1000, 600]; None: as they are.
    """

    split: str = "test"
    fit: tuple[int, int] | None = None


FORMATS: dict[str, type[CocoSettings] | type[VocSettings]] = {"coco": CocoSettings, "voc": VocSettings}


def read(root: Path, *, format: str, classes: Sequence[str], settings: Mapping[str, Any]) -> DetectionDataset:
    """The data set below `root`.

    Raises:
        SslrobError: an unknown format or setting, or annotations that are missing, unreadable or inconsistent.
    """
    if format not in FORMATS:
        raise unknown("detection format", format, FORMATS)
    layout: CocoSettings | VocSettings = checked(FORMATS[format], settings, f"data set format {format!r}")
    if not root.is_dir():
        raise SslrobError(f"no folder {str(root)!r}", hint="check the data set's path: sslrob zoo show NAME")
    if isinstance(layout, CocoSettings):
        annotated = coco.read(root / layout.annotations, root / layout.images, classes)
    else:
        annotated = voc.read(root, layout.split, classes)
    if not annotated.pictures:
        raise SslrobError(f"the data set in {str(root)!r} has no images", hint="check its settings")
    return DetectionDataset(annotated, fit=layout.fit)
