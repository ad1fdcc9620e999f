"""Annotations in Pascal VOC's layout: ImageSets/Main, Annotations, JPEGImages (Everingham et al. 2010)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as Xml

from sslrob.errors import SslrobError
from sslrob_mmdet.annotations import Annotated, Annotation, Box, Picture, inside

IMAGES = ".jpg", ".jpeg", ".png"


class _Tree(Xml.TreeBuilder):
    """Elements only: a document type could define entities that grow or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it has a document type")


def read(root: Path, split: str, classes: Sequence[str]) -> Annotated:
    """Every image that ImageSets/Main/SPLIT.txt lists; `difficult` objects are regions where detections do not count.

    Args:
        classes: names in the order of the labels, any other name is an error; empty: the names found, in alphabetical order.
    """
    names = _listed(root / "ImageSets" / "Main" / f"{split}.txt")
    digest, trees = hashlib.sha256(), {}
    for name in names:
        trees[name], raw = _parsed(_file(root, name))
        digest.update(raw)
    known = tuple(classes) or tuple(sorted({kind for name, tree in trees.items() for kind in _kinds(tree, _file(root, name))}))
    labels = {name: label for label, name in enumerate(known)}
    pictures = tuple(_picture(root, name, tree, labels) for name, tree in trees.items())
    return Annotated(known, pictures, digest.hexdigest())


def _listed(file: Path) -> list[str]:
    """The names in a list of images; lists of one class have a second column, which is not read."""
    if not file.is_file():
        raise SslrobError(f"no list of images {str(file)!r}", hint="check the setting split and the data set's path")
    names = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise SslrobError(f"image {twice!r} is listed twice in {str(file)!r}", hint="list every image once")
    return names


def _parsed(file: Path) -> tuple[Xml.Element, bytes]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise SslrobError(f"no annotation file {str(file)!r}", hint="complete the data set, or take the image off the list") from None
    try:
        return Xml.fromstring(raw, Xml.XMLParser(target=_Tree())), raw
    except (Xml.ParseError, ValueError) as error:
        raise SslrobError(f"annotation file {str(file)!r} cannot be read: {error}", hint="restore the file") from None


def _file(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"


def _kinds(tree: Xml.Element, file: Path) -> list[str]:
    return [_text(one, "name", str(file)) for one in tree.iter("object")]


def _picture(root: Path, name: str, tree: Xml.Element, labels: dict[str, int]) -> Picture:
    file = str(_file(root, name))
    size = tree.find("size")
    if size is None:
        raise SslrobError(f"annotation file {file!r} has no <size>", hint="add the image's width and height")
    width, height = (int(_value(size, key, file)) for key in ("width", "height"))
    found = []
    for number, one in enumerate(tree.iter("object"), start=1):
        which, kind = f"object {number}", _text(one, "name", file)
        if kind not in labels:
            raise SslrobError(
                f"{which} in {file!r} is a {kind!r}, which is none of the {len(labels)} classes", hint=f"classes: {', '.join(labels)}"
            )
        box = inside(_box(one, which, file), (width, height), source=file, which=which)
        difficult = one.findtext("difficult", "0").strip() == "1"
        found.append(Annotation(box, labels[kind], (box[2] - box[0]) * (box[3] - box[1]), difficult))
    folder = root / "JPEGImages"
    path = next((p for suffix in IMAGES if (p := folder / f"{name}{suffix}").is_file()), folder / f"{name}.jpg")
    return Picture(name, path, (width, height), tuple(found), file)


def _box(one: Xml.Element, which: str, file: str) -> Box:
    """x1 y1 x2 y2 where pixels end; VOC counts pixels from 1 and names the last one inside."""
    box = one.find("bndbox")
    if box is None:
        raise SslrobError(f"{which} in {file!r} has no <bndbox>", hint="correct or remove the object")
    x1, y1, x2, y2 = (_value(box, key, file) for key in ("xmin", "ymin", "xmax", "ymax"))
    return x1 - 1, y1 - 1, x2, y2


def _text(element: Xml.Element, key: str, file: str) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise SslrobError(f"a <{element.tag}> in {file!r} has no <{key}>", hint=f"add <{key}>")
    return text


def _value(element: Xml.Element, key: str, file: str) -> float:
    text = _text(element, key, file)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise SslrobError(f"<{key}> in {file!r} is {text!r}, not a number", hint="correct the file")
    return value
