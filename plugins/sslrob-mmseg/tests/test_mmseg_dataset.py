"""Folders of images and masks, right and wrong ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sslrob_mmseg.dataset import IGNORED
from sslrob_mmseg.task import Segmentation

from sslrob.errors import SslrobError

CLASSES = ("road", "sky", "tree")
MASK = np.array([[0, 1, 2, 255], [2, 2, 0, 0], [1, 1, 1, 7]], dtype=np.uint8)


def read(root, classes=CLASSES, **settings):
    return Segmentation().dataset(root, format="masks", classes=classes, settings={"ignore": 7, **settings})


def save(pixels, path: Path, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path) if mode is None else Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    mask = np.where(MASK == 255, 7, MASK).astype(np.uint8)
    for name in ("a.png", "deep/b.png"):
        save(image, tmp_path / "images" / name)
        save(mask, tmp_path / "masks" / name)
    return tmp_path


def test_samples_are_images_and_masks(root):
    data = read(root)
    assert data.ids == ("a", "deep/b")
    assert len(data) == 2
    assert data.classes == CLASSES
    sample = data[1]
    assert sample.id == "deep/b"
    torch.testing.assert_close(sample.image, torch.arange(36).reshape(3, 4, 3).permute(2, 0, 1) / 255)
    assert sample.target.dtype == torch.uint8
    assert sample.target.tolist() == [[0, 1, 2, IGNORED], [2, 2, 0, 0], [1, 1, 1, IGNORED]]


def test_zero_may_mean_unlabelled(root):
    target = read(root, classes=CLASSES[:2], reduce_zero_label=True)[0].target
    assert target.tolist() == [[IGNORED, 0, 1, IGNORED], [1, 1, IGNORED, IGNORED], [0, 0, 0, IGNORED]]


def test_palettes_and_sixteen_bits_are_read_as_numbers(root):
    palette = Image.fromarray(MASK.clip(max=2)).convert("P")
    palette.putdata(MASK.clip(max=2).flatten().tolist())
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(root / "masks/a.png")
    assert read(root)[0].target.tolist() == MASK.clip(max=2).tolist()
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(root / "masks/a.png")
    assert (read(root, ignore=300)[0].target == IGNORED).all()


def test_masks_may_end_in_something_else(root):
    (root / "labels").mkdir()
    for name in ("a", "deep/b"):
        save(MASK.clip(max=2), root / "labels" / f"{name}_gt.png")
    assert len(read(root, masks="labels", suffix="_gt.png")) == 2


def test_the_fingerprint_knows_the_data_and_what_it_means(root):
    first = read(root).fingerprint
    assert read(root).fingerprint == first
    assert read(root, ignore=8).fingerprint != first
    assert read(root, classes=[*CLASSES, "car"]).fingerprint != first
    before = (root / "masks/a.png").read_bytes()
    (root / "masks/a.png").write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # no other size
    assert read(root).fingerprint != first


def spoil_mask(root, content):
    (root / "masks/a.png").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: save(np.full((3, 4), 3, np.uint8), root / "masks/a.png"),
            "mask '.*a.png' holds label 3, but the data set has 3 classes",
        ),
        (lambda root: save(np.zeros((4, 3), np.uint8), root / "masks/a.png"), "mask '.*a.png' has 3 × 4 pixels, its image 4 × 3"),
        (lambda root: save(np.zeros((3, 4, 3), np.uint8), root / "masks/a.png"), "mask '.*a.png' is an image of mode 'RGB'"),
        (lambda root: spoil_mask(root, b""), "mask '.*a.png' is empty"),
        (lambda root: spoil_mask(root, b"not an image"), "mask '.*a.png' cannot be read"),
        (lambda root: spoil_mask(root, (root / "masks/deep/b.png").read_bytes()[:50]), "mask '.*a.png' cannot be read"),
        (lambda root: (root / "images/a.png").write_bytes(b""), "image '.*a.png' is empty"),
        (lambda root: (root / "images/a.png").write_bytes(b"not an image"), "image '.*a.png' cannot be read"),
    ],
)
def test_a_spoilt_file_is_named_when_it_is_read(root, spoil, message):
    spoil(root)
    data = read(root)
    with pytest.raises(SslrobError, match=message) as caught:
        data[0]
    assert caught.value.hint


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (lambda root: (root / "masks/a.png").unlink(), {}, "image '.*a.png' has no mask '.*masks.a.png'"),
        (lambda root: save(np.zeros((3, 4, 3), np.uint8), root / "images/a.jpg"), {}, "'a.jpg' and 'a.png' of '.*' share a mask"),
        (lambda root: None, {"images": "img"}, "no folder '.*img'"),
        (lambda root: None, {"masks": "labels"}, "no folder '.*labels'"),
        (lambda root: (root / "empty").mkdir(), {"images": "empty"}, "no image below '.*empty'"),
        (lambda root: None, {"suffix": "_gt.png"}, "has no mask '.*a_gt.png'"),
        (lambda root: None, {"sufix": "_gt.png"}, "data set format 'masks' has no setting 'sufix'"),
        (lambda root: None, {"ignore": -1}, "setting 'ignore' of data set format 'masks': .* got -1"),
        (lambda root: None, {"classes": ()}, "has 0 classes; masks need 1 to 255"),
        (lambda root: None, {"classes": [str(i) for i in range(256)]}, "has 256 classes; masks need 1 to 255"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_at_once(root, spoil, settings, message):
    spoil(root)
    with pytest.raises(SslrobError, match=message) as caught:
        read(root, **settings)
    assert caught.value.hint


def test_an_unknown_format_is_refused(root):
    with pytest.raises(SslrobError, match="no segmentation format is named 'coco'"):
        Segmentation().dataset(root, format="coco", classes=CLASSES, settings={})


def test_a_prediction_is_drawn_where_it_is():
    image, prediction = Image.new("RGB", (60, 60)), torch.zeros(20, 20, dtype=torch.uint8)
    prediction[10:, 12:] = 2
    Segmentation().draw(ImageDraw.Draw(image), prediction, classes=CLASSES, scale=3)
    corners = {image.getpixel(place) for place in ((59, 59), (37, 31))}
    assert len(corners) == 1
    assert image.getpixel((59, 59)) != image.getpixel((59, 28)) != (0, 0, 0)
