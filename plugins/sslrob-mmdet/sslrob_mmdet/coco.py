"""Annotations in COCO's JSON format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from sslrob.errors import SslrobError, unknown
from sslrob_mmdet.annotations import Annotated, Annotation, Box, Picture, inside


def read(file: Path, folder: Path, classes: Sequence[str]) -> Annotated:
    """Every image that `file` lists, with its objects; `iscrowd` marks regions where detections do not count.

    Args:
        folder: where the images are.
        classes: category names in the order of the labels, objects of other categories are left out; empty: all, ordered by id.
    """
    raw = _bytes(file, folder)
    content = _parsed(raw, file)
    labels = _labels(content, classes, file)
    pictures = {}
    sizes: dict[Any, tuple[int, int]] = {}
    for record in content["images"]:
        number, name, width, height = _fields(record, ("id", "file_name", "width", "height"), "an image", file)
        if number in pictures:
            raise SslrobError(f"two images in {str(file)!r} have the id {number!r}", hint="give every image an id of its own")
        if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise SslrobError(
                f"file_name {name!r} of image {number!r} in {str(file)!r} is not a path below the images",
                hint="write it relative to the folder of the images",
            )
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise SslrobError(
                f"image {number!r} in {str(file)!r} has a size of {width!r} × {height!r} pixels", hint="correct width and height"
            )
        pictures[number], sizes[number] = name, (width, height)
    names = list(pictures.values())
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SslrobError(f"two images in {str(file)!r} have the file_name {twice!r}", hint="list every image once")
    found: dict[Any, list[Annotation]] = defaultdict(list)
    for record in content["annotations"]:
        which = f"annotation {record.get('id')!r}" if isinstance(record, dict) else "an annotation"
        number, category, box = _fields(record, ("image_id", "category_id", "bbox"), which, file)
        if number not in pictures:
            raise SslrobError(
                f"{which} in {str(file)!r} is of image {number!r}, which is not listed", hint="list the image or remove the annotation"
            )
        if category not in labels:
            raise SslrobError(
                f"{which} in {str(file)!r} has the unknown category_id {category!r}",
                hint=f"categories have the ids {', '.join(map(str, list(labels)[:12]))}{', …' if len(labels) > 12 else ''}",
            )
        corners = inside(_corners(box, which, file), sizes[number], source=str(file), which=which)
        label = labels[category]
        if label is not None:
            area = record.get("area", (corners[2] - corners[0]) * (corners[3] - corners[1]))
            if not _number(area):
                raise SslrobError(f"area {area!r} of {which} in {str(file)!r} is not a number", hint="correct the annotation")
            found[number].append(Annotation(corners, label, float(area), bool(record.get("iscrowd", 0))))
    return Annotated(
        tuple(classes) or tuple(c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])),
        tuple(Picture(name, folder / name, sizes[n], tuple(found[n]), str(file)) for n, name in pictures.items()),
        hashlib.sha256(raw).hexdigest(),
    )


def _bytes(file: Path, folder: Path) -> bytes:
    if not file.is_file():
        raise SslrobError(f"no annotation file {str(file)!r}", hint="check the setting annotations")
    if not folder.is_dir():
        raise SslrobError(f"no folder {str(folder)!r}", hint="check the setting images")
    return file.read_bytes()


def _parsed(raw: bytes, file: Path) -> dict[str, Any]:
    """The file's content: a mapping with lists of images, annotations and categories."""
    try:
        content = json.loads(raw)
    except json.JSONDecodeError as error:
        raise SslrobError(
            f"annotation file {str(file)!r} is not JSON: {error.msg.lower()} in line {error.lineno}, column {error.colno}",
            hint="restore the file",
        ) from None
    except UnicodeDecodeError:
        raise SslrobError(f"annotation file {str(file)!r} is not text", hint="restore the file") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise SslrobError(f"annotation file {str(file)!r} has no list {key!r}", hint="give annotations in COCO's format for detection")
    return content


def _labels(content: dict[str, Any], classes: Sequence[str], file: Path) -> dict[Any, int | None]:
    """From category ids to labels; None for categories that are none of the classes."""
    pairs = [tuple(_fields(c, ("id", "name"), "a category", file)) for c in content["categories"]]
    ids, names = [i for i, _ in pairs], [n for _, n in pairs]
    for what, values in (("id", ids), ("name", names)):
        twice = next((v for v in values if values.count(v) > 1), None)
        if twice is not None:
            raise SslrobError(f"two categories in {str(file)!r} have the {what} {twice!r}", hint=f"give every category a {what} of its own")
    if not classes:
        return {number: label for label, number in enumerate(sorted(ids))}
    for name in classes:
        if name not in names:
            raise unknown(f"category of {str(file)!r}", name, names)
    return {number: list(classes).index(name) if name in classes else None for number, name in sorted(pairs)}


def _fields(record: Any, keys: Sequence[str], which: str, file: Path) -> list[Any]:
    if not isinstance(record, dict):
        raise SslrobError(f"{which} in {str(file)!r} is not a mapping: {str(record)[:40]!r}", hint="correct the file")
    missing = next((key for key in keys if key not in record), None)
    if missing is not None:
        raise SslrobError(f"{which} in {str(file)!r} has no {missing!r}: {json.dumps(record)[:60]}", hint=f"add {missing!r}")
    values = [record[key] for key in keys]
    for key, value in zip(keys, values, strict=True):
        if key.endswith("id") and not isinstance(value, int):
            raise SslrobError(f"{key} {value!r} of {which} in {str(file)!r} is not a whole number", hint="correct the file")
    return values


def _corners(box: Any, which: str, file: Path) -> Box:
    """x1 y1 x2 y2 of x y width height."""
    if not (isinstance(box, list) and len(box) == 4 and all(map(_number, box))):
        raise SslrobError(f"bbox {str(box)[:60]!r} of {which} in {str(file)!r} is not four numbers", hint="give x, y, width and height")
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
