"""`python -m sslrob_mini.build_letters`: the shipped transfer set, made again from libre typefaces and the photographs."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from sslrob.errors import SslrobError
from sslrob_mini.letters import CLASSES, Letters, picture, read_masks
from sslrob_mini.photographs import Split, read_photographs

SEED = 0
SPLITS: tuple[Split, ...] = ("train", "test")
COUNT = 600  # of each split
QUALITY = 75  # of WebP


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0, or 2 with the error told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.build_letters", description=__doc__)
    parser.add_argument("--fonts", type=Path, required=True, metavar="DIR", help="anywhere below it the typefaces' files lie")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="skimage/data of scikit-image 0.18.3")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the folders train and test are written")
    options = parser.parse_args(arguments)
    try:
        for split in SPLITS:
            if (options.out / split).exists():
                raise SslrobError(f'"{options.out / split}" exists already', hint="remove it, or give another folder as --out")
        for split in SPLITS:
            write(Letters(split, read_masks(options.fonts, split), read_photographs(options.photos, split)), options.out)
    except SslrobError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


def write(source: Letters, folder: Path, count: int = COUNT) -> None:
    """SPLIT/CLASS/NUMBER.webp, and SPLIT.json saying which typeface and photograph each shows."""
    records = []
    for index in range(count):
        made = picture(source, SEED, index)
        name = f"{CLASSES[made.label]}/{index:04d}.webp"
        path = folder / source.split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.image).save(path, quality=QUALITY, method=6)
        records.append({"file_name": name, "font": made.font, "background": made.background})
    info = {"description": "sslrob-mini, letters", "split": source.split, "seed": SEED}
    content = json.dumps({"info": info, "images": records}, separators=(",", ":"))
    (folder / f"{source.split}.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
