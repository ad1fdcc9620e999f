"""COCO and Pascal VOC annotations, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from sslrob_mmdet.dataset import read

from sslrob.errors import SslrobError


def coco_content() -> dict:
    return {
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20], "area": 150, "iscrowd": 0},
            {"id": 11, "image_id": 1, "category_id": 3, "bbox": [20.5, 5, 20, 25.5], "iscrowd": 0},
            {"id": 12, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
        ],
    }


def write_coco(root: Path, content: dict | None = None) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "annotations.json").write_text(json.dumps(content or coco_content(), indent=1))
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(root / "images" / name)
    return root


def object_xml(name: str = "dog", box: tuple = (1, 1, 10, 20), difficult: int = 0) -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def image_xml(*objects: str, prolog: str = "", size: str = "<size><width>40</width><height>30</height><depth>3</depth></size>") -> str:
    return f"{prolog}<annotation>{size}{''.join(objects)}</annotation>"


def write_voc(root: Path, first: str | None = None, names: str = "a\nb\n") -> Path:
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main/test.txt").write_text(names)
    (root / "Annotations/a.xml").write_text(
        first or image_xml(object_xml(), object_xml("cat", (21, 6, 40, 30)), object_xml("cat", (1, 1, 5, 5), 1))
    )
    (root / "Annotations/b.xml").write_text(image_xml())
    for name in "ab":
        Image.new("RGB", (40, 30), "red").save(root / f"JPEGImages/{name}.jpg")
    return root


def coco(root: Path, classes: tuple[str, ...] = (), **settings):
    return read(root, format="coco", classes=classes, settings=settings)


def voc(root: Path, classes: tuple[str, ...] = (), **settings):
    return read(root, format="voc", classes=classes, settings=settings)


def test_coco(tmp_path):
    data = coco(write_coco(tmp_path))
    assert (len(data), data.ids, data.classes) == (2, ("a.png", "b.png"), ("cat", "dog"))  # labels follow the ids
    id, image, target = data[0]
    assert (id, image.shape, image.max()) == ("a.png", (3, 30, 40), 1.0)
    assert target.boxes.tolist() == [[1, 2, 11, 22], [20.5, 5, 40, 30]]  # the second is cut by half a pixel
    assert (target.labels.tolist(), target.areas.tolist()) == ([1, 0], [150, 19.5 * 25])
    assert (target.crowd.tolist(), target.crowd_labels.tolist()) == ([[0, 0, 5, 5]], [0])
    assert (data[1].target.boxes.shape, data[1].target.crowd.shape) == ((0, 4), (0, 4))  # no objects: kept


def test_coco_with_given_classes(tmp_path):
    target = coco(write_coco(tmp_path), ("dog",))[0].target
    assert (target.boxes.tolist(), target.labels.tolist(), len(target.crowd)) == ([[1, 2, 11, 22]], [0], 0)
    assert coco(tmp_path, ("dog", "cat"))[0].target.labels.tolist() == [0, 1]


def test_voc(tmp_path):
    data = voc(write_voc(tmp_path))
    assert (data.ids, data.classes) == (("a", "b"), ("cat", "dog"))
    target = data[0].target
    assert target.boxes.tolist() == [[0, 0, 10, 20], [20, 5, 40, 30]]
    assert (target.labels.tolist(), target.areas.tolist()) == ([1, 0], [200, 500])
    assert (target.crowd.tolist(), target.crowd_labels.tolist()) == ([[0, 0, 5, 5]], [0])  # difficult
    assert len(data[1].target.boxes) == 0
    assert voc(tmp_path, ("dog", "cat"))[0].target.labels.tolist() == [0, 1]


def test_images_are_resized_to_fit(tmp_path):
    _, image, target = coco(write_coco(tmp_path), fit=[100, 60])[0]
    assert (image.shape, target.scale) == ((3, 60, 80), (2.0, 2.0))
    assert target.boxes[0].tolist() == [2, 4, 22, 44]
    assert target.areas[0] == 150  # of the annotation
    assert coco(tmp_path, fit=[60, 60])[0].image.shape == (3, 45, 60)


def test_the_fingerprint_follows_annotations_names_files_and_settings(tmp_path):
    data = coco(write_coco(tmp_path))
    assert data.fingerprint == coco(tmp_path).fingerprint
    prints = {data.fingerprint, coco(tmp_path, fit=[100, 60]).fingerprint, coco(tmp_path, ("dog", "cat")).fingerprint}
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "images/a.png")
    prints.add(coco(tmp_path).fingerprint)
    content = coco_content()
    content["annotations"][0]["area"] = 151
    write_coco(tmp_path, content)
    prints.add(coco(tmp_path).fingerprint)
    assert len(prints) == 5


def edited(*path, value) -> dict:
    content = coco_content()
    node = content
    for key in path[:-1]:
        node = node[key]
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            edited("annotations", 0, "bbox", value=[35, 2, 10, 20]),
            ["[35 2 45 22]".replace(" ", ", "), "annotation 10", "annotations.json", "40 × 30"],
        ),
        (edited("annotations", 0, "bbox", value=[-3, 2, 10, 20]), ["annotation 10", "outside its image"]),
        (edited("annotations", 0, "bbox", value=[1, 2, 0, 20]), ["annotation 10", "has no area"]),
        (edited("annotations", 0, "bbox", value=[40, 2, 1, 20]), ["annotation 10", "outside its image"]),
        (edited("annotations", 0, "bbox", value=[1, 2, 3]), ["annotation 10", "four numbers"]),
        (edited("annotations", 0, "bbox", value=[1, 2, float("nan"), 3]), ["annotation 10", "four numbers"]),
        (edited("annotations", 0, "bbox", value=KeyError), ["annotation 10", "no 'bbox'"]),
        (edited("annotations", 0, "area", value="big"), ["annotation 10", "'big'"]),
        (edited("annotations", 0, "category_id", value=5), ["annotation 10", "category_id 5"]),
        (edited("annotations", 0, "image_id", value=9), ["annotation 10", "image 9"]),
        (edited("annotations", 0, value=3), ["annotation", "not a mapping"]),
        (edited("images", 1, "id", value=1), ["two images", "id 1"]),
        (edited("images", 1, "file_name", value="a.png"), ["two images", "a.png"]),
        (edited("images", 1, "file_name", value="../b.png"), ["../b.png", "below the images"]),
        (edited("images", 1, "file_name", value="c.png"), ["c.png", "does not exist"]),
        (edited("images", 1, "width", value=0), ["image 2", "0 × 30"]),
        ({"categories": [], "images": [], "annotations": []}, ["no images"]),
        (edited("images", value=KeyError), ["no list 'images'"]),
        (edited("categories", 1, "id", value=7), ["two categories", "7"]),
        (edited("categories", 1, "name", value="dog"), ["two categories", "dog"]),
    ],
)
def test_wrong_coco_annotations(tmp_path, content, words):
    write_coco(tmp_path, content)
    with pytest.raises(SslrobError) as told:
        coco(tmp_path)
    assert all(word in str(told.value) for word in words), str(told.value)
    assert told.value.hint


def test_coco_files_that_are_missing_or_broken(tmp_path):
    with pytest.raises(SslrobError, match="no folder"):
        coco(tmp_path / "nowhere")
    with pytest.raises(SslrobError, match=r"no annotation file .*annotations\.json"):
        coco(tmp_path)
    write_coco(tmp_path)
    with pytest.raises(SslrobError, match=r"no folder .*pictures"):
        coco(tmp_path, images="pictures")
    with pytest.raises(SslrobError, match=r"no category of .* is named 'dig'") as told:
        coco(tmp_path, ("dig",))
    assert "dog" in told.value.hint
    (tmp_path / "annotations.json").write_text('{\n "images": [\n  {"id": 1,,}\n]}')
    with pytest.raises(SslrobError, match=r"not JSON: .* line 3"):
        coco(tmp_path)
    (tmp_path / "annotations.json").write_bytes(b"\xff\xfe\x00\xd8\xff")
    with pytest.raises(SslrobError, match=r"not (JSON|text)"):
        coco(tmp_path)


def test_images_that_are_empty_unreadable_or_of_another_size(tmp_path):
    data = coco(write_coco(tmp_path))
    Image.new("RGB", (41, 30)).save(tmp_path / "images/a.png")
    with pytest.raises(SslrobError, match=r"41 × 30.*40 × 30"):
        data[0]
    (tmp_path / "images/a.png").write_bytes(b"")
    with pytest.raises(SslrobError, match=r"a\.png.* is empty"):
        data[0]
    (tmp_path / "images/a.png").write_bytes(b"not an image")
    with pytest.raises(SslrobError, match=r"a\.png.* cannot be read"):
        data[0]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (image_xml(object_xml(box=(1, 1, 45, 20))), ["object 1", "a.xml", "40 × 30"]),
        (image_xml(object_xml(box=(5, 1, 4, 20))), ["object 1", "no area"]),
        (image_xml(object_xml(box=(5, 1, "x", 20))), ["<xmax>", "'x'"]),
        (image_xml(object_xml(box=(5, 1, "nan", 20))), ["<xmax>", "'nan'"]),
        (image_xml("<object><name>dog</name></object>"), ["object 1", "<bndbox>"]),
        (image_xml("<object></object>"), ["<name>"]),
        (image_xml(size=""), ["<size>"]),
        (image_xml(object_xml())[:-4], ["a.xml", "cannot be read"]),
        (image_xml(object_xml("&b;"), prolog=BOMB), ["a.xml", "document type"]),
        (image_xml(object_xml("&f;"), prolog=FILE), ["a.xml", "document type"]),
    ],
)
def test_wrong_voc_annotations(tmp_path, first, words):
    with pytest.raises(SslrobError) as told:
        voc(write_voc(tmp_path, first))
    assert all(word in str(told.value) for word in words), str(told.value)
    assert told.value.hint


def test_voc_files_that_are_missing(tmp_path):
    with pytest.raises(SslrobError, match=r"no list of images .*val\.txt"):
        voc(write_voc(tmp_path), split="val")
    with pytest.raises(SslrobError, match=r"no annotation file .*c\.xml"):
        voc(write_voc(tmp_path, names="a\nc\n"))
    with pytest.raises(SslrobError, match="'a' is listed twice"):
        voc(write_voc(tmp_path, names="a\na\n"))
    with pytest.raises(SslrobError, match=r"object 2 .* is a 'cat', which is none of the 1 classes"):
        voc(write_voc(tmp_path), ("dog",))
    (tmp_path / "JPEGImages/b.jpg").unlink()
    with pytest.raises(SslrobError, match=r"b\.jpg.* does not exist"):
        voc(tmp_path)


def test_unknown_formats_and_settings(tmp_path):
    with pytest.raises(SslrobError, match="no detection format is named 'koko'"):
        read(tmp_path, format="koko", classes=(), settings={})
    with pytest.raises(SslrobError, match="no setting 'anotations'") as told:
        coco(tmp_path, anotations="x.json")
    assert "did you mean 'annotations'?" in told.value.hint


def test_targets_are_floats_and_labels_are_whole_numbers(tmp_path):
    target = coco(write_coco(tmp_path))[0].target
    assert (target.boxes.dtype, target.labels.dtype, target.areas.dtype) == (torch.float32, torch.int64, torch.float32)
