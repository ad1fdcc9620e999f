"""What an attack tries to raise.  It hides the victim, the task and the labels from the attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sslrob.backbone import Backbone
from sslrob.data import Batch
from sslrob.errors import SslrobError, close_names
from sslrob.task import Victim

Access = Literal["white-box", "score", "decision"]
ROUNDING = 1e-5  # of an embedding's length: nearer ones are the same; another batch size moves it by some 1e-7


class Feedback:
    """One look at the victim.

    Attributes:
        loss: (n,) the attack raises it.  It carries a graph to the images only if access is white-box.
        fooled: (n,) bool, nothing left to gain.  Computed when first read.
        quality: (n,) how right the victim still is; lower is better for the adversary.  Computed when first read.
    """

    def __init__(self, loss: Tensor, fooled: Callable[[], Tensor], quality: Callable[[], Tensor]) -> None:
        self.loss = loss
        self._fooled = fooled
        self._quality = quality

    @cached_property
    def fooled(self) -> Tensor:
        with torch.no_grad():
            return self._fooled()

    @cached_property
    def quality(self) -> Tensor:
        with torch.no_grad():
            return self._quality()


class Cost:
    """What an attack spent on each of n images.

    Attributes:
        forwards, backwards: (n,) passes through the victim, and gradients taken back through it.
        dead: (n,) gradients that were zero or not finite.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.forwards, self.backwards, self.dead = (torch.zeros(n, dtype=torch.long, device=device) for _ in range(3))


@dataclass(frozen=True)
class Objective(ABC):
    """`objective(images) → Feedback`; `objective[keep]` is the same goal for a part of the images.

    Attributes:
        read_every: see `Victim.read_every`.
        index: (n,) the images' places in `cost`.
    """

    access: Access
    cost: Cost
    index: Tensor
    read_every: int = field(default=1, kw_only=True)

    def __len__(self) -> int:
        return len(self.index)

    def __call__(self, images: Tensor, *, progress: float = 1.0) -> Feedback:
        """A look at the victim.

        Args:
            images: (n, 3, h, w) in [0, 1].
            progress: how much of the attack is over, in [0, 1], for losses that anneal.
        """
        if len(images) != len(self):
            raise ValueError(f"this objective is about {len(self)} images, not {len(images)}; take objective[keep] with images[keep]")
        self.cost.forwards[self.index] += 1
        if self.access == "white-box":
            if images.requires_grad:
                images.register_hook(self._count)  # type: ignore[no-untyped-call]
            return self._look(images, progress)
        with torch.no_grad():
            feedback = self._look(images, progress)
        if self.access == "decision":  # all that right or wrong can tell
            verdict = feedback.fooled
            return Feedback(verdict.float(), lambda: verdict, lambda: -verdict.float())
        return feedback

    def __getitem__(self, keep: Tensor) -> Objective:
        """The same goal for the images where `keep`, (n,) bool, is true."""
        return replace(self._subset(keep), index=self.index[keep])

    @abstractmethod
    def _look(self, images: Tensor, progress: float) -> Feedback: ...

    @abstractmethod
    def _subset(self, keep: Tensor) -> Objective: ...

    def _count(self, gradient: Tensor) -> None:
        self.cost.backwards[self.index] += 1
        peak = gradient.detach().flatten(1).abs().amax(1)
        self.cost.dead[self.index] += ~((peak > 0) & peak.isfinite())


@dataclass(frozen=True)
class TaskObjective(Objective):
    """Raise one of a victim's own losses."""

    victim: Victim
    targets: tuple[Any, ...]
    loss: str

    def _look(self, images: Tensor, progress: float) -> Feedback:
        outputs = self.victim(images)
        loss = self.victim.loss(outputs, self.targets, self.loss, progress)
        return Feedback(loss, lambda: self.victim.fooled(outputs, self.targets), lambda: self.victim.quality(outputs, self.targets))

    def _subset(self, keep: Tensor) -> Objective:
        return replace(self, targets=tuple(t for t, k in zip(self.targets, keep.tolist(), strict=True) if k))


@dataclass(frozen=True)
class EmbeddingObjective(Objective):
    """Push the pooled embedding away from that of the clean image (cosine distance).

    It needs no labels, so it cannot judge: nothing is ever fooled, and the farther the better.  The task judges afterwards.
    The clean image itself is a stationary point of the cosine: attacks need a random start.  There the gradient is rounding alone, and is
    told as the zero that it means, so that an attack which starts there is flagged instead of following noise.
    """

    backbone: Backbone
    anchors: Tensor  # (n, width)

    def _look(self, images: Tensor, progress: float) -> Feedback:
        del progress
        pooled = self.backbone(images).pooled
        there = (pooled.detach() - self.anchors).norm(dim=1) <= ROUNDING * self.anchors.norm(dim=1)
        loss = (1 - F.cosine_similarity(pooled, self.anchors)).masked_fill(there, 0)
        return Feedback(loss, lambda: torch.zeros_like(loss, dtype=torch.bool), lambda: -loss)

    def _subset(self, keep: Tensor) -> Objective:
        return replace(self, anchors=self.anchors[keep])


def names(victim: Victim) -> list[str]:
    """What `--objective` may be with this victim."""
    return ["task", *(f"task:{loss}" for loss in victim.losses), *(["embedding"] if victim.backbone is not None else [])]


def require_known(name: str, victim: Victim) -> None:
    """Raises:
    SslrobError: this victim has no objective of that name.
    """
    known = names(victim)
    if name not in known:
        close = close_names(name, known)
        raise SslrobError(
            f"no objective of this victim is named {name!r}",
            hint=f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"known: {', '.join(known)}",
        )


def build(name: str, victim: Victim, batch: Batch, access: Access) -> Objective:
    """An objective on the images of one batch.

    Args:
        name: "task" (the victim's first loss), "task:LOSS" or "embedding".
        access: what it reveals; see `Objective.__call__`.
    """
    require_known(name, victim)
    device = batch.images.device
    cost, index = Cost(len(batch), device), torch.arange(len(batch), device=device)
    kind, _, loss = name.partition(":")
    if kind == "embedding":
        backbone = victim.backbone
        assert backbone is not None  # require_known() saw to it
        with torch.no_grad():
            anchors = backbone(batch.images).pooled
        return EmbeddingObjective(access, cost, index, backbone, anchors)
    return TaskObjective(access, cost, index, victim, batch.targets, loss or victim.losses[0], read_every=victim.read_every)
