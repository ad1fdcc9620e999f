"""One stream of random numbers an image, so that no image's draws depend on its batch, its shard or a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Streams:
    """Counter-based random streams (Philox), each keyed by (seed, image id, purpose).

    A subset shares its images' streams with the whole: numbers drawn by one are not drawn again by the other.
    Numbers are drawn on the CPU, so every device sees the same ones.
    """

    def __init__(self, seed: int, ids: Sequence[str], purpose: str = "attack") -> None:
        self._generators = [np.random.Generator(np.random.Philox(key=_key(seed, id, purpose))) for id in ids]

    def __len__(self) -> int:
        return len(self._generators)

    def __getitem__(self, keep: Tensor) -> Streams:
        """The streams of the images where `keep`, (n,) bool, is true."""
        if keep.dtype != torch.bool or keep.shape != (len(self),):
            raise ValueError(f"keep is {keep.dtype} {tuple(keep.shape)}, not bool ({len(self)},)")
        subset = object.__new__(Streams)
        subset._generators = [g for g, k in zip(self._generators, keep.tolist(), strict=True) if k]
        return subset

    @property
    def state(self) -> list[Any]:
        """Where each stream is, in a form that JSON takes."""
        return [_plain(generator.bit_generator.state) for generator in self._generators]

    def resume(self, state: Sequence[Any]) -> None:
        """Go on from where streams of a `state` were."""
        for generator, one in zip(self._generators, state, strict=True):
            generator.bit_generator.state = one

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
        """(n, *shape) float32, uniform in [low, high)."""
        return self._stack(shape, [low + (high - low) * g.random(tuple(shape), dtype=np.float32) for g in self._generators])

    def normal(self, shape: Sequence[int]) -> Tensor:
        """(n, *shape) float32, standard normal."""
        return self._stack(shape, [g.standard_normal(tuple(shape), dtype=np.float32) for g in self._generators])

    def integers(self, shape: Sequence[int], high: int) -> Tensor:
        """(n, *shape) int64, uniform in 0 .. high - 1."""
        drawn = [g.integers(high, size=tuple(shape)) for g in self._generators]
        return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty((0, *shape), dtype=torch.int64)

    def _stack(self, shape: Sequence[int], drawn: Sequence[np.ndarray]) -> Tensor:
        if not drawn:
            return torch.empty((0, *shape))
        return torch.from_numpy(np.stack(drawn).astype(np.float32, copy=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _key(seed: int, id: str, purpose: str) -> int:
    text = "\0".join((str(seed), id, purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
