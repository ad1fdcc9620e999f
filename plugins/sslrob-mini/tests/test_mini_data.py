"""The shipped data set is what it says it is, and its builder is reproducible (on made-up items and photographs: no downloads)."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sslrob_mini
from PIL import Image
from sslrob_mini.build import CROP_COUNT, QUALITY, SCENE_COUNT, SPLITS, main, run_lengths, write_crops, write_scenes
from sslrob_mini.items import CLASSES, Items, read_items, silhouettes
from sslrob_mini.photographs import PHOTOGRAPHS, read_photographs
from sslrob_mini.scenes import CROPS, POOL, SCENES, VOID, Source, pool, scene
from sslrob_mini.textures import FIELDS, texture

from sslrob.errors import SslrobError

DATA = Path(sslrob_mini.__file__).parent / "data"


@pytest.fixture(scope="module")
def source() -> Source:
    """Forty discs of random shade and radius, and two small photographs, one of them grey."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:28, :28]
    radius = rng.uniform(6, 13, (40, 1, 1))
    shade = rng.integers(60, 256, (40, 1, 1))
    pictures = np.where(np.hypot(y - 13.5, x - 13.5) <= radius, shade, 0).astype(np.uint8)
    grey = np.repeat(rng.integers(0, 256, (150, 170, 1), dtype=np.uint8), 3, axis=2)
    photographs = {"grey.png": grey, "colour.png": rng.integers(0, 256, (140, 130, 3), dtype=np.uint8)}
    return Source(
        "train",
        Items.of(pictures, np.arange(40) % len(CLASSES)),
        {name: Image.fromarray(pixels) for name, pixels in photographs.items()},
    )


def read_annotations(split: str) -> dict[str, Any]:
    return json.loads((DATA / "scenes" / "annotations" / f"{split}.json").read_text(encoding="utf-8"))


def read_crop_records(split: str) -> list[dict[str, Any]]:
    return json.loads((DATA / "crops" / f"{split}.json").read_text(encoding="utf-8"))["images"]


# The shipped data set


def test_shipped_data_fits_its_budget() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 12e6


@pytest.mark.parametrize("split", SPLITS)
def test_crops_are_balanced_image_folders(split: str) -> None:
    folder = DATA / "crops" / split
    assert sorted(path.name for path in folder.iterdir()) == sorted(CLASSES)
    for name in CLASSES:
        assert len(list((folder / name).glob("*.jpg"))) == CROP_COUNT[split] // len(CLASSES)
    for record in read_crop_records(split)[::50]:
        with Image.open(folder / record["file_name"]) as image:
            assert (image.mode, image.size) == ("RGB", (CROPS.size, CROPS.size))
    assert {record["file_name"] for record in read_crop_records(split)} == {f"{p.parent.name}/{p.name}" for p in folder.glob("*/*.jpg")}


@pytest.mark.parametrize("split", SPLITS)
def test_every_scene_has_image_mask_and_annotation(split: str) -> None:
    content = read_annotations(split)
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(enumerate(CLASSES, start=1))
    stems = [Path(image["file_name"]).stem for image in content["images"]]
    assert len(stems) == len(set(stems)) == SCENE_COUNT[split]
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        assert sorted(path.name for path in (DATA / "scenes" / folder / split).iterdir()) == sorted(f"{stem}.{suffix}" for stem in stems)
    assert min(annotation["id"] for annotation in content["annotations"]) > 0
    counts = np.bincount([annotation["category_id"] for annotation in content["annotations"]], minlength=11)[1:]
    assert counts.max() < 1.5 * counts.min()


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_lie_in_their_image_and_match_its_mask(split: str) -> None:
    """A box that touches no other one ends exactly where its class does in the mask; any other holds some of its class."""
    content = read_annotations(split)
    exact = crowds = 0
    for image in content["images"]:
        found = [annotation for annotation in content["annotations"] if annotation["image_id"] == image["id"]]
        mask = np.asarray(Image.open(DATA / "scenes" / "masks" / split / Path(image["file_name"]).with_suffix(".png")))
        assert mask.shape == (image["height"], image["width"]) == (SCENES.size, SCENES.size)
        counted = {annotation["category_id"] for annotation in found if not annotation["iscrowd"]}
        assert set(np.unique(mask)) <= {0, VOID, *counted}
        assert VOID in mask
        for annotation in found:
            x, y, width, height = annotation["bbox"]
            assert 0 <= x < x + width <= image["width"]
            assert 0 <= y < y + height <= image["height"]
            assert 0 < annotation["area"] <= width * height
            inside = mask[y : y + height, x : x + width]
            if annotation["iscrowd"]:
                crowds += 1
                assert sum(annotation["segmentation"]["counts"][1::2]) == annotation["area"]
                continue
            own = inside == annotation["category_id"]
            assert own.any()
            if not any(overlap(annotation["bbox"], other["bbox"]) for other in found if other is not annotation):
                exact += 1
                assert own.sum() == annotation["area"]
                assert own.any(axis=0)[[0, -1]].all()
                assert own.any(axis=1)[[0, -1]].all()
    assert exact > len(content["annotations"]) / 4
    assert crowds > 0


def overlap(first: list[int], second: list[int]) -> bool:
    """Whether two x y width height boxes meet, or nearly do."""
    return all(first[i] <= second[i] + second[i + 2] + 1 and second[i] <= first[i] + first[i + 2] + 1 for i in (0, 1))


def test_train_and_test_share_neither_items_nor_backgrounds() -> None:
    photographs = {split: {p.file for p in PHOTOGRAPHS if p.split == split} for split in SPLITS}
    assert not photographs["train"] & photographs["test"]
    for split, items in (("train", 60_000), ("test", 10_000)):
        scenes = read_annotations(split)
        assert scenes["info"]["split"] == split  # items index Fashion-MNIST's file of this split
        assert {image["background"] for image in scenes["images"]} == photographs[split]
        assert {record["background"] for record in read_crop_records(split)} == photographs[split]
        used = [annotation["item"] for annotation in scenes["annotations"]] + [record["item"] for record in read_crop_records(split)]
        assert 0 <= min(used) <= max(used) < items


def test_provenance_names_every_photograph_licence_and_count() -> None:
    text = (DATA / "PROVENANCE.md").read_text(encoding="utf-8")
    for split in SPLITS:
        crowds = [annotation["iscrowd"] for annotation in read_annotations(split)["annotations"]]
        assert f"| {len(crowds):,} items, {sum(crowds)} of them crowd regions |" in text
        assert f"| {SCENE_COUNT[split]:,} |" in text
        assert f"| {CROP_COUNT[split]:,} ({CROP_COUNT[split] // len(CLASSES)} a class) |" in text
    assert f"quality {QUALITY}" in text
    for photograph in PHOTOGRAPHS:
        row = next(line for line in text.splitlines() if f"`{photograph.file}`" in line)
        for value in (photograph.split, photograph.licence, photograph.author, photograph.source):
            assert value in row
    assert "Zalando SE" in (DATA / "LICENSES" / "MIT-Fashion-MNIST.txt").read_text(encoding="utf-8")
    assert "CC0 1.0 Universal" in (DATA / "LICENSES" / "CC0-1.0.txt").read_text(encoding="utf-8")


# The builder


def test_a_scene_depends_on_seed_split_stream_and_index_alone(source: Source) -> None:
    one = pool(source, 3, 48, seed=1)[0]
    assert np.array_equal(one, pool(source, 7, 48, seed=1)[0][:3])
    assert not np.array_equal(one, pool(source, 3, 48, seed=2)[0])
    image = scene(source, SCENES, 0, 5).image
    assert np.array_equal(image, scene(source, SCENES, 0, 5).image)
    assert not np.array_equal(image, scene(source, SCENES, 0, 15).image)
    assert not np.array_equal(image, scene(replace(source, split="test"), SCENES, 0, 5).image)
    assert not np.array_equal(image, scene(source, replace(SCENES, stream=9), 0, 5).image)


def test_pool_labels_are_those_of_its_items(source: Source) -> None:
    images, labels = pool(source, 12, 32, seed=0)
    assert images.shape == (12, 32, 32, 3)
    assert images.dtype == np.uint8
    recipe = replace(POOL, size=32)
    built = [scene(source, recipe, 0, index) for index in range(12)]
    assert labels.tolist() == [int(s.labels[0]) for s in built] == [int(source.items.labels[s.items[0]]) for s in built]
    assert {s.background for s in built} > {"texture"}


def test_masks_instances_and_boxes_agree(source: Source) -> None:
    recipe = replace(SCENES, items=(2, 4), scale=(0.4, 0.7), tries=1)
    crowds = 0
    for index in range(40):
        built = scene(source, recipe, 0, index)
        for k in range(len(built.labels)):
            region = built.instances == k + 1
            x1, y1, x2, y2 = built.boxes[k]
            assert region[y1:y2, x1:x2].sum() == region.sum() == built.areas[k]
            assert region[[y1, y2 - 1], :].any(axis=1).all()
            assert region[:, [x1, x2 - 1]].any(axis=0).all()
            expected = VOID if built.crowd[k] else built.labels[k] + 1
            assert set(np.unique(built.mask[region])) <= {expected, VOID}
        crowds += built.crowd.sum()
        assert set(np.unique(built.mask[built.instances == 0])) <= {0, VOID}
    assert crowds > 0


def test_written_twice_the_files_are_the_same(source: Source, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_crops(source, tmp_path / name / "crops", 4)
        write_scenes(source, tmp_path / name / "scenes", 3)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file())
    assert len(files) == 4 + 1 + 3 + 3 + 1
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)


def test_silhouettes_fill_holes_and_drop_specks() -> None:
    picture = np.zeros((1, 28, 28), dtype=np.uint8)
    picture[0, 8:20, 8:20] = 200
    picture[0, 12:15, 12:15] = 0  # a hole
    picture[0, 2, 2] = 200  # a speck
    expected = np.zeros((28, 28), dtype=bool)
    expected[8:20, 8:20] = True
    assert np.array_equal(silhouettes(picture)[0], expected)
    assert not silhouettes(np.zeros((1, 28, 28), dtype=np.uint8)).any()


def test_run_lengths_are_cocos() -> None:
    region = np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)
    assert run_lengths(region) == [1, 4, 1]
    assert run_lengths(np.ones((2, 2), dtype=bool)) == [0, 4]
    assert run_lengths(np.zeros((2, 2), dtype=bool)) == [4]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
def test_texture_fields_stay_in_range(field: Any) -> None:
    for seed in range(5):
        values = field(np.random.default_rng(seed), 40)
        assert values.shape == (40, 40)
        assert 0 <= values.min() <= values.max() <= 1 + 1e-6
    assert texture(np.random.default_rng(0), 40).shape == (40, 40, 3)


def test_builder_tells_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fashion", str(tmp_path), "--photos", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz" in told
    assert "dataset-fashion-mnist" in told
    with pytest.raises(SslrobError, match=r"astronaut\.png") as missing:
        read_photographs(tmp_path, "train")
    assert "scikit-image" in missing.value.hint
    (tmp_path / "astronaut.png").write_bytes(b"another")
    with pytest.raises(SslrobError, match="sha256"):
        read_photographs(tmp_path, "train")
    whole = gzip.compress(bytes(100))
    for content, told in (
        (gzip.compress(b"\0\0\x08\x03 too short"), "no idx file"),
        (gzip.compress(b"\0\0\x08\x03" + bytes([0, 0, 0, 1] * 3)), "no idx file"),
        (b"plain", "no gzip file"),
        (whole[:-9], "no gzip file"),
        (whole[:12] + bytes([255] * 20), "no gzip file"),
    ):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(SslrobError, match=told):
            read_items(tmp_path, "test")


def test_builder_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "crops").mkdir()
    assert main(["--fashion", "f", "--photos", "p", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
