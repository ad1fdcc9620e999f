"""A toy of each task: data that its victim gets right, to attack in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslrob.backbone import Backbone
from sslrob.data import Batch, Sample, collate
from sslrob.errors import unknown
from sslrob.task import Aggregator, Row, Task, Victim
from sslrob.testing.toy_victims import LinearVictim, ToyDetector, ToySegmenter

SIZE = 8  # pixels
VICTIMS: dict[str, type[LinearVictim | ToySegmenter | ToyDetector]] = {
    "classification": LinearVictim,
    "segmentation": ToySegmenter,
    "detection": ToyDetector,
}


class ToyDataset:
    """Samples in memory."""

    def __init__(self, images: Tensor, targets: Sequence[Any], fingerprint: str) -> None:
        self.images, self.targets, self.fingerprint = images, tuple(targets), fingerprint
        self.ids = tuple(f"toy-{i:03}" for i in range(len(images)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self.images[index].clone(), self.targets[index])


class ToyTask(Task):
    """What share of the true things (classes, pixels, objects) is found, in percent.

    Args:
        kind: "classification", "segmentation" or "detection".
    """

    headline = "right"
    heads = ("toy",)

    def __init__(self, kind: str = "classification") -> None:
        if kind not in VICTIMS:
            raise unknown("toy", kind, VICTIMS)
        self.kind = kind

    def dataset(
        self, root: Path = Path(), *, format: str = "toy", classes: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> ToyDataset:
        """The toy's own images, whatever is asked for; its victim is right about all of them."""
        del root, format, classes, settings
        images = {"classification": _two_classes, "segmentation": _stripes, "detection": _bright_cells}[self.kind]()
        victim = self.victim()
        with torch.no_grad():
            targets = victim.predict(victim(images))
        return ToyDataset(images, targets, f"toy {self.kind}")

    def victim(
        self, backbone: Backbone | None = None, *, kind: str = "toy", classes: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> Victim:
        """The toy's own victim, whatever is asked for."""
        del backbone, kind, classes, settings
        return VICTIMS[self.kind]().eval()

    def measure(self, prediction: Any, target: Any) -> Row:
        if isinstance(target, Tensor):
            return {"right": int((prediction == target).sum()), "of": target.numel()}
        if isinstance(target, frozenset):
            return {"right": len(prediction & target), "of": len(target)}
        return {"right": int(prediction == target), "of": 1}

    def aggregator(self, rows: Sequence[Row]) -> Aggregator:
        right, of = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("right", "of"))
        return lambda weights: {"right": float(100 * (weights @ right) / (weights @ of))}


class Toy(NamedTuple):
    """A task with its victim, in eval mode, and data that the victim gets right."""

    kind: str
    task: ToyTask
    victim: Victim
    dataset: ToyDataset

    def batch(self) -> Batch:
        """All of its samples."""
        return collate(self.dataset[i] for i in range(len(self.dataset)))


def toys() -> dict[str, Toy]:
    """A new toy of each task."""
    tasks = [ToyTask(kind) for kind in VICTIMS]
    return {task.kind: Toy(task.kind, task, task.victim(), task.dataset()) for task in tasks}


def _two_classes() -> Tensor:
    """Six greyish images at known distances from the border, three of each class."""
    victim = LinearVictim(SIZE)
    with torch.no_grad():
        images = 0.5 + 0.05 * torch.randn(6, 3, SIZE, SIZE, generator=_seeded()).clamp(-2, 2)
        wanted = torch.tensor([2.0, -2.5, 3.0, -3.5, 4.0, -4.5])
        shift = (wanted - victim(images)) / victim.weight.square().sum()
        moved: Tensor = images + shift[:, None, None, None] * victim.weight
        return moved.clamp(0, 1)


def _stripes() -> Tensor:
    """Four images of three coloured stripes, the last two with black and white pixels."""
    images = 0.45 + 0.1 * torch.rand(4, 3, SIZE, SIZE, generator=_seeded())
    for channel, columns in enumerate((slice(0, 3), slice(3, 5), slice(5, SIZE))):
        images[:, channel, :, columns] += 0.05
    images[2:, :, 0, 0], images[2:, :, -1, -1] = 0.0, 1.0
    return images


def _bright_cells() -> Tensor:
    """Three dark images with one, two and one bright cell, the last one's white."""
    images = torch.full((3, 3, SIZE, SIZE), 0.45)
    images += 0.02 * torch.rand(images.shape, generator=_seeded())
    images[:, :, :4, :4] += 0.08
    images[1, :, 4:, 4:] += 0.08
    images[2, :, :2, :2] = 1.0
    images[2, :, 2:4, 2:4] = 0.0
    return images


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
