"""Pictures of a run: what the victim saw and said, clean and attacked, so that a person can look at what happened."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sslrob.runs import telling_of_the_disk

if TYPE_CHECKING:
    from torch import Tensor

    from sslrob.evaluate import Judged
    from sslrob.task import Task

SHOWN = 288  # pixels that the longer side of a panel has at least
GAP = 6
CAPTION, TEXT = 22, 13
PAPER, INK = "white", "black"
OVERVIEW = "overview.png"
MOST = 32  # pictures in the contact sheet
Pixels = NDArray[np.float64]


def save(judged: Judged, task: Task, *, classes: Sequence[str], folder: Path, ids: Collection[str]) -> int:
    """Write a picture of each image of the batch whose id is in `ids`, and a contact sheet of all that are there, `overview.png`.

    A picture that is there already is left alone, so a resumed run goes on where it stopped.

    Args:
        classes: names, in the order of the labels.

    Returns:
        how many pictures there are now.

    Raises:
        RunFailed: the disk does not take them.
    """
    wanted = [(i, folder / file_name(id)) for i, id in enumerate(judged.batch.ids) if id in ids]
    new = [(i, path) for i, path in wanted if not path.exists()]
    for i, path in new:
        _write(picture(judged, i, task, classes=classes), path)
    there = existing(folder)
    if new:
        _write(contact_sheet([_read(path) for path in there[:MOST]]), folder / OVERVIEW)
    return len(there)


def existing(folder: Path) -> list[Path]:
    """The pictures in `folder` but for the contact sheet, ordered by name."""
    return sorted(path for path in folder.glob("*.png") if path.name != OVERVIEW)


def file_name(id: str) -> str:
    """Where the picture of this image goes."""
    stem = re.sub(r"\.[A-Za-z]+$", "", id)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[-120:] + ".png"


def picture(judged: Judged, i: int, task: Task, *, classes: Sequence[str]) -> Image.Image:
    """Clean, adversarial and amplified difference, side by side, predictions drawn over the first two."""
    clean, adversarial = _pixels(judged.batch.images[i]), _pixels(judged.adversarial[i])
    row = judged.rows[i]
    scale = max(1, ceil(SHOWN / max(clean.shape[:2])))
    seen = [
        _panel(clean, _clean_caption(row), scale, task, judged.clean.predictions[i], classes),
        _panel(adversarial, _adversarial_caption(row), scale, task, judged.robust.predictions[i], classes),
    ]
    amplified, factor = amplify(adversarial - clean)
    last = _captioned(_enlarged(amplified, scale), f"difference, {factor} times" if factor else "no difference")
    return _joined([*seen, last], across=True)


def amplify(difference: Pixels) -> tuple[Pixels, int]:
    """The difference around mid-grey, times the largest whole factor that keeps it in [0, 1]; and that factor, 0 where there is none."""
    largest = float(np.abs(difference).max())
    factor = max(1, int(0.5 / largest)) if largest else 0
    return 0.5 + factor * difference, factor


def contact_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """All pictures, two a row where there are more than four."""
    columns = 2 if len(pictures) > 4 else 1
    rows = [_joined(pictures[k : k + columns], across=True) for k in range(0, len(pictures), columns)]
    return _joined(rows, across=False)


def _clean_caption(row: dict[str, Any]) -> str:
    return "clean: fooled already, so not attacked" if row["clean"]["fooled"] else "clean"


def _adversarial_caption(row: dict[str, Any]) -> str:
    if row["clean"]["fooled"]:
        return "the same image"
    if row["declined"]:
        return "attack only helped: clean image kept"
    return f"adversarial{', fooled' if row['robust']['fooled'] else ''}: moved {row['distance']:.4g}"


def _pixels(image: Tensor) -> Pixels:
    """(h, w, 3) in [0, 1]."""
    return image.detach().cpu().double().permute(1, 2, 0).numpy()


def _enlarged(pixels: Pixels, scale: int) -> Image.Image:
    image = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _panel(pixels: Pixels, caption: str, scale: int, task: Task, prediction: Any, classes: Sequence[str]) -> Image.Image:
    image = _enlarged(pixels, scale)
    canvas = ImageDraw.Draw(image, "RGBA")
    canvas.font = ImageFont.load_default(size=TEXT)
    task.draw(canvas, prediction, classes=classes, scale=scale)
    return _captioned(image, caption)


def _captioned(image: Image.Image, caption: str) -> Image.Image:
    framed = Image.new("RGB", (image.width, image.height + CAPTION), PAPER)
    framed.paste(image, (0, CAPTION))
    ImageDraw.Draw(framed).text((2, 3), caption, fill=INK, font=ImageFont.load_default(size=TEXT))
    return framed


def _joined(images: Sequence[Image.Image], *, across: bool) -> Image.Image:
    """The images in one row, or one column, on paper."""
    widths, heights = [image.width for image in images], [image.height for image in images]
    gaps = GAP * (len(images) - 1)
    size = (sum(widths) + gaps, max(heights)) if across else (max(widths), sum(heights) + gaps)
    joined, at = Image.new("RGB", size, PAPER), 0
    for image in images:
        joined.paste(image, (at, 0) if across else (0, at))
        at += (image.width if across else image.height) + GAP
    return joined


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def _write(image: Image.Image, path: Path) -> None:
    with telling_of_the_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")  # shards write the contact sheet at the same time
        image.save(part, format="PNG")
        part.replace(path)
