"""The items that scenes show: Fashion-MNIST's grey pictures of clothes, with a silhouette for each."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sslrob.errors import SslrobError
from sslrob_mini.photographs import Split

CLASSES = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIDE = 28
CHUNK = 256  # pictures whose silhouettes are found at once: few enough for the processor's cache
INK = 12  # grey values up to this one are the empty surroundings of an item


@dataclass(frozen=True)
class Items:
    """Pictures (n, 28, 28) uint8, their silhouettes (n, 28, 28) bool and labels (n,) in 0..9."""

    pictures: NDArray[np.uint8]
    silhouettes: NDArray[np.bool_]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> "Items":
        """Items of pictures and labels, silhouettes found."""
        parts = [silhouettes(pictures[start : start + CHUNK]) for start in range(0, len(pictures), CHUNK)]
        return cls(pictures, np.concatenate(parts), labels)


def read_items(folder: Path, split: Split) -> Items:
    """Fashion-MNIST's 60,000 training or 10,000 test items, read from its four idx files.

    Raises:
        SslrobError: a file is missing or is not the idx file its name promises.
    """
    stem = "train" if split == "train" else "t10k"
    pictures = _read_idx(folder / f"{stem}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", dimensions=1)
    return Items.of(pictures, labels.astype(np.int64))


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Array of an idx file: two zero bytes, the type (8 = uint8), the number of dimensions, each length, the values."""
    if not path.is_file():
        raise SslrobError(
            f'no Fashion-MNIST file "{path}"',
            hint="apt-get install dataset-fashion-mnist (or clone github.com/zalandoresearch/fashion-mnist) and give the folder "
            "of its four idx files as --fashion",
        )
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise SslrobError(f'"{path}" is no gzip file: {error}', hint="download it again") from error
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header].ljust(4 * dimensions, b"\0"), dtype=">u4")
    values = np.frombuffer(content, dtype=np.uint8)[header:]
    if content[:4] != bytes([0, 0, 8, dimensions]) or values.size != np.prod(shape):
        raise SslrobError(f'"{path}" is no idx file of {dimensions} dimensions', hint="download it again")
    return values.reshape(shape)


def silhouettes(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The region of each picture (n, h, w) that its item covers: holes filled, specks beside the main part left out."""
    framed = np.pad(pictures > INK, ((0, 0), (1, 1), (1, 1)))
    frame = np.zeros_like(framed)
    frame[:, 0] = True
    filled = ~_spread(frame, ~framed)[:, 1:-1, 1:-1]
    return _spread(_nearest_to_centre(filled), filled)


def _spread(seed: NDArray[np.bool_], free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of `free` joined to `seed` by steps up, down, left or right."""
    reached = seed & free
    while True:
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= free
        if np.array_equal(grown, reached):
            return reached
        reached = grown


def _nearest_to_centre(regions: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel of each region: that nearest to the centre of the picture (none of an empty region)."""
    n, height, width = regions.shape
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    nearest = np.where(regions, distance, np.inf).reshape(n, -1).argmin(axis=1)
    seed = np.zeros((n, height * width), dtype=bool)
    seed[np.arange(n), nearest] = True
    return seed.reshape(regions.shape) & regions
