"""The pretraining pool: items and backgrounds of the training split, from which scenes are composed anew at every step."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sslrob.errors import SslrobError
from sslrob_mini.items import SIDE
from sslrob_mini.scenes import Recipe, Source, background, pool

FILE = "pool.safetensors"
SEED = 1
BACKGROUNDS = 16384
CROPS = 3000
RECIPE = Recipe(stream=4, size=64, textures=0.6)
FINER = 2  # items are kept this much larger than Fashion-MNIST has them, resized as smoothly as in the shipped images


@dataclass(frozen=True)
class Pool:
    """What is trained on, all uint8 but the labels.

    `items` (n, 2, 56, 56) are grey pictures with silhouettes, `labels` (n,) their classes (SwAV does not see them), `backgrounds`
    (m, 3, 64, 64) photographs and textures. `crops` (k, 3, 64, 64) with `crop_labels` (k,) watch the training: ready scenes of
    the training split.
    """

    items: Tensor
    labels: Tensor
    backgrounds: Tensor
    crops: Tensor
    crop_labels: Tensor


def build(fashion: Path, photos: Path, backgrounds: int = BACKGROUNDS, crops: int = CROPS) -> Pool:
    """The pool of Fashion-MNIST's training items and the photographs of the training split.

    Raises:
        SslrobError: a file is missing or is not what it should be.
    """
    source = Source.read(fashion, photos, "train")
    pictures = [_finer(picture, Image.Resampling.BICUBIC) for picture in source.items.pictures]
    shapes = [_finer(shape.astype(np.uint8) * 255, Image.Resampling.BILINEAR) for shape in source.items.silhouettes]
    painted = np.empty((backgrounds, RECIPE.size, RECIPE.size, 3), dtype=np.uint8)
    for index in range(backgrounds):
        rng = np.random.default_rng([SEED, RECIPE.stream, index])
        painted[index] = np.clip(np.rint(background(rng, source.photographs, RECIPE)[1]), 0, 255)
    images, labels = pool(source, crops, RECIPE.size, SEED)
    return Pool(
        items=torch.from_numpy(np.stack([np.stack(pictures), np.stack(shapes)], 1)),
        labels=torch.from_numpy(source.items.labels),
        backgrounds=torch.from_numpy(painted).permute(0, 3, 1, 2).contiguous(),
        crops=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        crop_labels=torch.from_numpy(labels),
    )


def write(contents: Pool, folder: Path) -> Path:
    """The file that holds a pool, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f.name: getattr(contents, f.name) for f in fields(Pool)}, folder / FILE)
    return folder / FILE


def read(folder: Path) -> Pool:
    """The pool written to a folder.

    Raises:
        SslrobError: there is none, or its file is damaged.
    """
    if not (folder / FILE).is_file():
        raise SslrobError(f'no pool "{folder / FILE}"', hint="build it: python -m sslrob_mini.pretrain pool --help")
    try:
        tensors = load_file(folder / FILE)
        return Pool(**{f.name: tensors[f.name] for f in fields(Pool)})
    except (SafetensorError, KeyError) as error:
        raise SslrobError(f'"{folder / FILE}" is no pool: {error}', hint="remove it and build the pool again") from error


def _finer(picture: np.ndarray, how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIDE * FINER, SIDE * FINER), how))
