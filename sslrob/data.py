"""Images on their way through an evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Sample(NamedTuple):
    """One image of a dataset.

    Attributes:
        id: stable name of the image within its dataset.
        image: (3, h, w) RGB in [0, 1], after resize and crop, before normalisation.
        target: what is true of it; only the task looks inside.
    """

    id: str
    image: Tensor
    target: Any


class Dataset(Protocol):
    """A sequence of samples whose ids are known before any image is read.

    Attributes:
        ids: (n) the sample ids, in the order of the samples.
        fingerprint: changes when the images or the annotations change; recorded with every run.
    """

    ids: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Batch:
    """Images of one shape, never padded: every pixel in it is one the adversary may change.

    Attributes:
        images: (n, 3, h, w) RGB in [0, 1].
    """

    ids: tuple[str, ...]
    images: Tensor
    targets: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, keep: Tensor) -> Batch:
        """The part where `keep`, (n,) bool, is true."""
        index = keep.nonzero()[:, 0].tolist()
        return Batch(tuple(self.ids[i] for i in index), self.images[keep], tuple(self.targets[i] for i in index))

    def to(self, device: torch.device) -> Batch:
        return Batch(self.ids, self.images.to(device), self.targets)


def order(dataset: Dataset) -> list[int]:
    """All indices in a fixed random order (by the hash of their ids): data sets lie sorted by class."""
    return sorted(range(len(dataset)), key=lambda i: hashlib.sha256(dataset.ids[i].encode()).digest())


def batches(dataset: Dataset, size: int, *, indices: Iterable[int] | None = None, done: Collection[str] = ()) -> Iterator[Batch]:
    """Consecutive samples of equal shape, at most `size` at a time.

    Args:
        indices: which samples, in which order; all of them by default.
        done: ids that are left out; their images are not read.
    """
    skip = set(done)
    group: list[Sample] = []
    for i in range(len(dataset)) if indices is None else indices:
        if dataset.ids[i] in skip:
            continue
        sample = dataset[i]
        if group and (len(group) == size or sample.image.shape != group[0].image.shape):
            yield collate(group)
            group = []
        group.append(sample)
    if group:
        yield collate(group)


def collate(samples: Iterable[Sample]) -> Batch:
    """Samples of one shape as a batch."""
    ids, images, targets = zip(*samples, strict=True)
    return Batch(ids, torch.stack(images), targets)
