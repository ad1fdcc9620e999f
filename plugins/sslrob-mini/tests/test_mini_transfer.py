"""The transfer set is what it says it is, and its builder makes it again."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sslrob_mini
from PIL import Image, ImageFont, features
from sslrob_mini.build_letters import COUNT, QUALITY, SPLITS, main, write
from sslrob_mini.letters import CLASSES, CONTRAST, GREY, SIDE, Letters, fonts, picture, read_masks
from sslrob_mini.photographs import PHOTOGRAPHS, read_photographs

from sslrob import zoo_files
from sslrob.errors import SslrobError

DATA = Path(sslrob_mini.__file__).parent / "data" / "letters"
FONTS, PHOTOS = (os.environ.get(name, "") for name in ("SSLROB_FONTS", "SSLROB_PHOTOS"))


def records(split: str) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads((DATA / f"{split}.json").read_text(encoding="utf-8"))["images"]
    return images


@pytest.fixture(scope="module")
def source() -> Letters:
    """Pillow's own typeface under two names, and a grey and a coloured photograph."""
    rng = np.random.default_rng(7)
    masks = {}
    for name, size in (("small.ttf", 40), ("large.ttf", 90)):
        drawn = ImageFont.load_default(size)
        letters = [drawn.getmask(letter) for letter in CLASSES]
        masks[name] = tuple(np.array(mask, dtype=np.uint8).reshape(mask.size[::-1]) for mask in letters)
    pixels = {"grey.png": np.full((150, 170, 3), 90, dtype=np.uint8), "colour.png": rng.integers(0, 256, (140, 130, 3), dtype=np.uint8)}
    return Letters("train", masks, {name: Image.fromarray(photograph) for name, photograph in pixels.items()})


@pytest.mark.parametrize("split", SPLITS)
def test_letters_are_balanced_image_folders(split: str) -> None:
    assert sorted(path.name for path in (DATA / split).iterdir()) == sorted(CLASSES)
    for name in CLASSES:
        assert len(list((DATA / split / name).glob("*.webp"))) == COUNT // len(CLASSES)
    assert [r["file_name"] for r in records(split)] == [f"{CLASSES[i % 10]}/{i:04d}.webp" for i in range(COUNT)]
    for record in records(split)[::50]:
        with Image.open(DATA / split / record["file_name"]) as image:
            assert (image.format, image.mode, image.size) == ("WEBP", "RGB", (SIDE, SIDE))


def test_the_splits_share_neither_typefaces_nor_photographs() -> None:
    for key, table in (("font", fonts()), ("background", PHOTOGRAPHS)):
        used = {split: {record[key] for record in records(split)} for split in SPLITS}
        assert not used["train"] & used["test"]
        for split in SPLITS:
            assert used[split] == {entry.file for entry in table if entry.split == split}
    assert not {f.name for f in fonts() if f.split == "train"} & {f.name for f in fonts() if f.split == "test"}


def test_transfer_is_not_the_default_data_set_and_small() -> None:
    record = zoo_files.load().datasets["mini-letters"]
    assert not record.default
    assert (record.images, record.classes) == (COUNT, CLASSES)
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 1.2e6


def test_provenance_names_counts_and_licences() -> None:
    text = (DATA / "PROVENANCE.md").read_text(encoding="utf-8")
    assert f"{COUNT} ({COUNT // len(CLASSES)} a class)" in text
    assert f"quality {QUALITY}" in text
    with (DATA / "fonts.csv").open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            assert row["licence"] in {"OFL-1.0", "OFL-1.1", "Apache-2.0", "MIT", "public domain"}
            assert all(row.values())


def test_a_picture_depends_on_seed_split_and_index_alone(source: Letters, tmp_path: Path) -> None:
    made = picture(source, 0, 13)
    assert (made.label, made.image.shape, made.image.dtype) == (3, (SIDE, SIDE, 3), np.uint8)
    assert np.array_equal(made.image, picture(source, 0, 13).image)
    assert not np.array_equal(made.image, picture(source, 1, 13).image)
    assert not np.array_equal(made.image, picture(Letters("test", source.masks, source.photographs), 0, 13).image)
    for name in ("first", "second"):
        write(source, tmp_path / name, 6)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file())
    assert len(files) == 6 + 1
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)


def test_letters_stand_out_and_stay_inside(source: Letters) -> None:
    """On a photograph of one colour: what differs from it is the letter, off the border, and differs enough."""
    plain = Letters("train", source.masks, {"grey.png": source.photographs["grey.png"]})
    for index in range(20):
        image = picture(plain, 0, index).image.astype(np.float32)
        ground = image[0, 0]
        assert all(np.array_equal(edge, np.broadcast_to(ground, edge.shape)) for edge in (image[0], image[-1], image[:, 0], image[:, -1]))
        assert np.abs((image - ground) @ GREY).max() >= CONTRAST - 1


def test_builder_tells_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fonts", str(tmp_path), "--photos", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "Andika-Regular.ttf" in told
    assert "apt-get install fonts-sil-andika" in told
    (tmp_path / "Andika-Regular.ttf").write_bytes(b"another")
    with pytest.raises(SslrobError, match="sha256"):
        read_masks(tmp_path, "train")
    (tmp_path / "train").mkdir()
    assert main(["--fonts", "f", "--photos", "p", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.skipif(not (FONTS and PHOTOS), reason="set SSLROB_FONTS and SSLROB_PHOTOS to the builder's --fonts and --photos")
@pytest.mark.parametrize("split", SPLITS)
def test_the_shipped_pictures_are_made_again(split: Any, tmp_path: Path) -> None:
    """To the byte where Pillow's libraries are the recorded ones, else as seen."""
    write(Letters(split, read_masks(Path(FONTS), split), read_photographs(Path(PHOTOS), split)), tmp_path, 20)
    for record in records(split)[:20]:
        made, shipped = (folder / split / record["file_name"] for folder in (tmp_path, DATA))
        difference = np.abs(np.asarray(Image.open(made)).astype(int) - np.asarray(Image.open(shipped)).astype(int))
        assert difference.mean() < 2, features.version("freetype2")
