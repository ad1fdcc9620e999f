"""The one interface that an attack implements.  Torch is imported only when an attack runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from sslrob.objective import Access, Feedback, Objective
    from sslrob.streams import Streams
    from sslrob.threat_model import ThreatModel


class Attack(ABC):
    """A search for images that raise an objective.  Subclasses are frozen dataclasses whose fields are settings.

    Attributes:
        access: what the objective reveals to it.
        tasks: the tasks it is defined for; None: any.
        objectives: the kinds of objectives it is defined for, such as "task"; None: any.
        norms: the norms it is defined for, such as "l2"; None: any.
        bounded: whether it keeps within an epsilon; if not, its threat model is "linf:1", every image in [0, 1].
        randomised: whether it draws random numbers: if not, a restart only repeats it.
    """

    access: ClassVar[Access] = "white-box"
    tasks: ClassVar[frozenset[str] | None] = None
    objectives: ClassVar[frozenset[str] | None] = None
    norms: ClassVar[frozenset[str] | None] = None
    bounded: ClassVar[bool] = True
    randomised: ClassVar[bool] = True  # settings may decide: then a property
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # a misspelt setting is an error

    def fit(self, batches: Iterable[tuple[Objective, Tensor]], threat_model: ThreatModel, *, streams: Streams) -> Attack:
        """Learn from images other than those attacked, and return the fitted attack.  Most attacks have nothing to learn."""
        del batches, threat_model, streams
        return self

    @abstractmethod
    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        """Images like `images`, inside the threat model around them, without a graph.

        Args:
            images: (n, 3, h, w) in [0, 1]; left as they are.
            streams: the images' random numbers, the only ones an attack may use.
        """


class Best:
    """The best candidate seen for each image: once done it stays, see `Feedback`; before that, the lowest quality wins.

    Until a first update it is the clean images.

    Attributes:
        images: (n, 3, h, w).
        quality: (n,) of the victim on them; infinite before the first update.
        fooled: (n,) bool, done.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.quality = images.new_full((len(images),), float("inf"))
        self.fooled = self.quality < 0

    def __getitem__(self, keep: Tensor) -> Best:
        """The same for the images where `keep`, (n,) bool, is true."""
        part = object.__new__(Best)
        part.images, part.quality, part.fooled = self.images[keep], self.quality[keep], self.fooled[keep]
        return part

    def update(self, images: Tensor, feedback: Feedback, where: Tensor | None = None) -> None:
        """Take the candidates that are better.

        Args:
            images: candidates, for all images or for those where `where`, (n,) bool, is true.
        """
        self._take(images.detach(), feedback.quality.to(self.quality), feedback.done, where)

    def merge(self, other: Best, where: Tensor) -> None:
        """Take what another search found, for the images at `where`, (n,) bool or their indices, if it is better."""
        self._take(other.images, other.quality, other.fooled, where)

    def _take(self, images: Tensor, quality: Tensor, done: Tensor, where: Tensor | None) -> None:
        index = slice(None) if where is None else where
        better = ~self.fooled[index] & (done | (quality < self.quality[index]))
        own = self.images[index]  # all of them, in place, or a copy of a part
        overwrite(own, better, images)
        if where is not None:
            self.images[where] = own
        self.quality[index] = quality.where(better, self.quality[index])
        self.fooled[index] = self.fooled[index] | done


def overwrite(into: Tensor, where: Tensor, images: Tensor) -> None:
    """Put images (n, …) in the places of others where `where`, (n,) bool, is true, without waiting for a device."""
    if into.device.type == "cpu":
        into[where] = images[where]  # few are better than the best so far: the others are not touched
    else:
        into.copy_(images.where(where.view(-1, *[1] * (images.ndim - 1)), into))
