"""What a universal attack learns from, batch by batch, and how far it has got."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor

from sslrob.errors import SslrobError
from sslrob.objective import Objective

Goal = tuple[Objective, Tensor]  # on n images, and the images (n, 3, h, w)


class Lesson(NamedTuple):
    """A batch to learn from.

    Attributes:
        images: (n, 3, h, w).
        progress: how much of the learning is over, in [0, 1).
        left: how many steps, or images, are to go.
    """

    objective: Objective
    images: Tensor
    progress: float
    left: int


class Draft(NamedTuple):
    """A move that is not finished.

    Attributes:
        move: (3, h, w).
        done: how many steps, or images, it was learned in.
        place: of the next batch among those of one pass through the images.
        stream: where the random numbers are, see `Streams.state`.
    """

    move: Tensor
    done: int
    place: int
    stream: list[Any]


class Lessons:
    """Batches that can be gone through again.  Those of a run keep what was learned, see `sslrob.learning`; these forget it."""

    def __init__(self, goals: Iterable[Goal]) -> None:
        self._goals = goals

    def __iter__(self) -> Iterator[Goal]:
        return self.after(0)

    def after(self, place: int) -> Iterator[Goal]:
        """Those of one pass but the first `place`."""
        return islice(self._goals, place, None)

    def first(self) -> Goal:
        """Raises:
        SslrobError: there are none.
        """
        for goal in self:
            return goal
        raise SslrobError("there are no images to learn a universal move from", hint="check the data set's fit split")

    def around(self, place: int) -> Iterator[tuple[int, Objective, Tensor]]:
        """Endlessly, from batch `place` on: each with the place of the next."""
        while True:
            for number, (objective, images) in enumerate(self.after(place), 1):
                yield place + number, objective, images
            place = 0

    def draft(self) -> Draft | None:
        """What was learned before the run was stopped."""
        return None

    def keep(self, draft: Draft, length: int) -> None:
        """Take note of how far the learning is.

        Args:
            length: of all of it, as `draft.done` counts.
        """
