"""What an attack tries to raise.  It hides the victim, the task and the labels from the attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from sslrob.data import Batch
from sslrob.errors import SslrobError, close_names
from sslrob.task import Victim

Access = Literal["white-box", "score", "decision"]
Guide = Callable[[Batch], Tensor]  # for each image another one: (n, 3, h, w) in [0, 1], of the batch's shape
REPRESENTATION = ("embedding", "activation")  # kinds of objectives of `sslrob.representation`, on the backbone inside


class Feedback:
    """One look at the victim.

    Attributes:
        loss: (n,) the attack raises it.  It carries a graph to the images only if access is white-box.
        fooled: (n,) bool.  Computed when first read.
        quality: (n,) how right the victim still is; lower is better for the adversary.  Computed when first read.
        final: whether whoever was looked at is the judge, so that an image that is fooled is done.
    """

    def __init__(self, loss: Tensor, fooled: Callable[[], Tensor], quality: Callable[[], Tensor], *, final: bool = True) -> None:
        self.loss = loss
        self._fooled = fooled
        self._quality = quality
        self.final = final

    @cached_property
    def fooled(self) -> Tensor:
        with torch.no_grad():
            return self._fooled()

    @cached_property
    def quality(self) -> Tensor:
        with torch.no_grad():
            return self._quality()

    @property
    def done(self) -> Tensor:
        """(n,) bool, nothing left to gain: fooled, unless another victim judges, whom a larger margin fools sooner."""
        return self.fooled if self.final else torch.zeros_like(self.loss, dtype=torch.bool)


class Cost:
    """What an attack spent on each of n images.

    Attributes:
        forwards, backwards: (n,) passes through the victim, and gradients taken back through it.
        dead: (n,) gradients that were zero or not finite.
        fooled_by: for the images that an attack of a cascade fooled, by their places: its name and its access.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.forwards, self.backwards, self.dead = (torch.zeros(n, dtype=torch.long, device=device) for _ in range(3))
        self.fooled_by: dict[int, tuple[str, Access]] = {}

    def credit(self, name: str, access: Access, index: Tensor) -> None:
        """Say that attack `name`, which has `access`, fooled the images at `index`."""
        self.fooled_by.update(dict.fromkeys(index.tolist(), (name, access)))


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

    @property
    def name(self) -> str:
        """The loss that it raises, for reports."""
        return type(self).__name__.removesuffix("Objective").lower()

    def __call__(self, images: Tensor, *, progress: float = 1.0) -> Feedback:
        """A look at the victim.

        Args:
            images: (n, 3, h, w) in [0, 1].
            progress: how much of the attack is over, in [0, 1], for losses that anneal.
        """
        self._count_look(images)
        if self.access == "white-box":
            return self._look(images, progress)
        with torch.no_grad():
            feedback = self._look(images, progress)
        if self.access == "decision":  # all that right or wrong can tell
            verdict = feedback.fooled
            return Feedback(verdict.float(), lambda: verdict, lambda: -verdict.float(), final=feedback.final)
        return feedback

    def __getitem__(self, keep: Tensor) -> Objective:
        """The same goal for the images where `keep`, (n,) bool, is true."""
        return replace(self._subset(keep), index=self.index[keep])

    def granting(self, access: Access) -> Objective:
        """The same goal, for an attack that has `access`: it reveals no more than that, and no more than before."""
        return replace(self, access=max(access, self.access, key=get_args(Access).index))

    def raising(self, loss: str) -> Objective:
        """The same goal by another of the victim's losses.

        Raises:
            SslrobError: the victim has no such loss, or the goal is none of its losses.
        """
        raise SslrobError(f"{type(self).__name__} has no loss {loss!r}", hint="use --objective task")

    @property
    def named(self) -> bool:
        """Whether this very loss was asked for, so that no attack chooses another."""
        return True

    def strongest(self) -> tuple[Objective, ...]:
        """The same goal by each of the losses that a cascade tries in turn; itself alone, where the loss was asked for."""
        return (self,)

    @property
    def rivals(self) -> int:
        """How many wrong answers each image has; 0: no finite list of them, hence no margins and no targets."""
        return 0

    def margins(self, images: Tensor) -> tuple[Tensor, Feedback]:
        """One look at the victim: its margins, see `Victim.margins`, with a graph if access is white-box; and what `objective(images)` gives.

        Raises:
            SslrobError: there is no finite list of wrong answers.
        """
        if self.access == "decision":
            raise ValueError("right or wrong has no margins: the attack's access must be 'score' or 'white-box'")
        self._count_look(images)
        if self.access == "white-box":
            return self._margins(images)
        with torch.no_grad():
            return self._margins(images)

    def towards(self, rank: int) -> Objective:
        """Targeted: its loss pulls towards the wrong answer that is the `rank`-th likeliest on the clean image, 1 being the likeliest.

        It is the targeted form of a loss that was asked for by name, else the victim's first.  The clean images are looked at once for all
        ranks.

        Raises:
            SslrobError: there is no finite list of wrong answers, or it is shorter.
        """
        del rank
        raise SslrobError(f"{type(self).__name__} has no finite list of wrong answers", hint="use an attack without targets")

    @abstractmethod
    def _look(self, images: Tensor, progress: float) -> Feedback: ...

    @abstractmethod
    def _subset(self, keep: Tensor) -> Objective: ...

    def _margins(self, images: Tensor) -> tuple[Tensor, Feedback]:
        del images
        raise SslrobError(f"{type(self).__name__} has no finite list of wrong answers", hint="use an attack that needs no margins")

    def _count_look(self, images: Tensor) -> None:
        if len(images) != len(self):
            raise ValueError(f"this objective is about {len(self)} images, not {len(images)}; take objective[keep] with images[keep]")
        self.cost.forwards[self.index] += 1
        if self.access == "white-box" and images.requires_grad:
            images.register_hook(self._count)  # type: ignore[no-untyped-call]

    def _count(self, gradient: Tensor) -> Tensor:
        """The gradient, laid out as images are, whatever layout the victim computes in."""
        gradient = gradient.detach().contiguous()
        self.cost.backwards[self.index] += 1
        peak = gradient.flatten(1).abs().amax(1)
        self.cost.dead[self.index] += ~((peak > 0) & peak.isfinite())
        return gradient


def names(victim: Victim) -> list[str]:
    """What `--objective` may be with this victim."""
    return ["task", *(f"task:{loss}" for loss in victim.losses), *(REPRESENTATION if victim.backbone is not None else ())]


def require_known(name: str, victim: Victim) -> None:
    """Raises:
    SslrobError: this victim has no objective of that name.
    """
    known = names(victim)
    if victim.backbone is not None and name.partition(":")[0] in REPRESENTATION:
        from sslrob.representation import require_levels

        require_levels(name, victim.backbone)
    elif name not in known:
        close = close_names(name, known)
        raise SslrobError(
            f"no objective of this victim is named {name!r}",
            hint=f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"known: {', '.join(known)}",
        )


def build(name: str, victim: Victim, batch: Batch, access: Access, guide: Guide | None = None) -> Objective:
    """An objective on the images of one batch.

    Args:
        name: "task" (the victim's first loss), "task:LOSS", or on the backbone alone, "embedding" and "activation" with more words after
            them; see `sslrob.representation`.
        access: what it reveals; see `Objective.__call__`.
        guide: gives the images that "embedding:target" pulls towards.
    """
    require_known(name, victim)
    kind, _, loss = name.partition(":")
    if kind in REPRESENTATION and victim.backbone is not None:
        from sslrob import representation

        return representation.build(representation.Goal.parse(name), victim.backbone, batch, access, guide)
    from sslrob.task_objective import Clean, TaskObjective

    device = batch.images.device
    cost, index = Cost(len(batch), device), torch.arange(len(batch), device=device)
    clean, every = Clean(batch.images), victim.read_every
    return TaskObjective(access, cost, index, victim, batch.targets, loss or victim.losses[0], clean, bool(loss), read_every=every)
