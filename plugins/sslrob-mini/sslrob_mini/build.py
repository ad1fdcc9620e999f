"""`python -m sslrob_mini.build`: the shipped data set, made again from Fashion-MNIST and the photographs."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sslrob.errors import SslrobError
from sslrob_mini.items import CLASSES
from sslrob_mini.photographs import Split
from sslrob_mini.scenes import CROPS, SCENES, Scene, Source, scene

SEED = 0
SPLITS: tuple[Split, ...] = ("train", "test")
CROP_COUNT = {"train": 1000, "test": 1000}
SCENE_COUNT = {"train": 1100, "test": 300}
QUALITY = 88


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0, or 2 with the error told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.build", description=__doc__)
    parser.add_argument("--fashion", type=Path, required=True, metavar="DIR", help="Fashion-MNIST's four idx.gz files")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="skimage/data of scikit-image 0.18.3")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the folders crops and scenes are written")
    for part, counts in (("crops", CROP_COUNT), ("scenes", SCENE_COUNT)):
        text = "of the train split; %(default)s are shipped, and more of them (6000 crops, 4000 scenes) train the heads"
        parser.add_argument(f"--train-{part}", type=int, default=counts["train"], metavar="N", help=text)
    options = parser.parse_args(arguments)
    try:
        for part in ("crops", "scenes"):
            if (options.out / part).exists():
                raise SslrobError(f'"{options.out / part}" exists already', hint="remove it, or give another folder as --out")
        for split in SPLITS:
            source = Source.read(options.fashion, options.photos, split)
            train = split == "train"
            write_crops(source, options.out / "crops", options.train_crops if train else CROP_COUNT[split])
            write_scenes(source, options.out / "scenes", options.train_scenes if train else SCENE_COUNT[split])
    except SslrobError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


def write_crops(source: Source, folder: Path, count: int) -> None:
    """SPLIT/CLASS/NUMBER.jpg for classification, and SPLIT.json saying which item and photograph each shows."""
    records = []
    for index in range(count):
        crop = scene(source, CROPS, SEED, index)
        name = f"{CLASSES[crop.labels[0]]}/{index:04d}.jpg"
        _save_jpeg(crop.image, folder / source.split / name)
        records.append({"file_name": name, "item": int(crop.items[0]), "background": crop.background})
    _save_json({"info": _info(source, "crops of one item"), "images": records}, folder / f"{source.split}.json")


def write_scenes(source: Source, folder: Path, count: int) -> None:
    """images/SPLIT/NUMBER.jpg, masks/SPLIT/NUMBER.png and annotations/SPLIT.json in COCO's format."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        built = scene(source, SCENES, SEED, index)
        name = f"{index:04d}"
        _save_jpeg(built.image, folder / "images" / source.split / f"{name}.jpg")
        _save_mask(built.mask, folder / "masks" / source.split / f"{name}.png")
        height, width = built.mask.shape
        image_id = index + 1
        images.append({"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height, "background": built.background})
        for fields in _annotations(built):  # pycocotools takes an annotation of id 0 for none
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fields})
    content = {
        "info": _info(source, "scenes of one to three items"),
        "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)],
        "images": images,
        "annotations": annotations,
    }
    _save_json(content, folder / "annotations" / f"{source.split}.json")


def _annotations(built: Scene) -> list[dict[str, Any]]:
    """COCO's fields of each object; crowd regions carry their pixels as run lengths, as COCO's own do."""
    found = []
    for k, (x1, y1, x2, y2) in enumerate(built.boxes.tolist()):
        fields = {
            "category_id": int(built.labels[k]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(built.areas[k]),
            "iscrowd": int(built.crowd[k]),
            "item": int(built.items[k]),
        }
        if built.crowd[k]:
            fields["segmentation"] = {"size": list(built.mask.shape), "counts": run_lengths(built.instances == k + 1)}
        found.append(fields)
    return found


def run_lengths(region: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of a region (h, w): pixels down the columns, alternately outside and inside."""
    pixels = np.concatenate([[False], region.ravel(order="F"), [False]])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs: list[int] = np.diff(np.concatenate([[0], changes, [region.size]])).tolist()
    return runs if runs[-1] else runs[:-1]


def _info(source: Source, what: str) -> dict[str, Any]:
    return {"description": f"sslrob-mini, {what}", "split": source.split, "seed": SEED}


def _save_jpeg(image: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=QUALITY, optimize=True)


def _save_mask(mask: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path, optimize=True)


def _save_json(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
