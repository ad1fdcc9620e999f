"""The fit split as an attack learns from it; what it has learned so far is kept on disk, so that a kill loses little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sslrob import universal
from sslrob.data import Dataset, batches, order
from sslrob.lessons import Draft, Goal, Lessons
from sslrob.objective import Access, Cost, build
from sslrob.representation import Guides, targeted
from sslrob.spec import Spec
from sslrob.task import Victim

SIZE = 32  # images a step of an attack that learns; it is part of what it learns, hence fixed
OFTEN = 30.0  # seconds between two drafts


class FitBatches(Lessons):
    """The fit split with the objective on each batch, in a fixed random order.

    Attributes:
        data: the fit split.
    """

    def __init__(
        self,
        spec: Spec,
        data: Dataset,
        victim: Victim,
        access: Access,
        path: Path | None = None,
        tell: Callable[[int, int], None] = lambda done, length: None,
    ) -> None:
        """Args:
        path: of the draft; None: nothing is kept.
        tell: takes how far the learning is, and how far it goes.
        """
        self.data = data
        self._spec, self._victim, self._access, self._path, self._tell = spec, victim, access, path, tell
        self._guide = Guides(data, spec.seed) if targeted(spec.attack.objective) else None
        self._costs: list[Cost] = []
        self._before: dict[str, int] = {}  # spent before the draft that this goes on from
        self._kept = time.monotonic()

    def after(self, place: int) -> Iterator[Goal]:
        device = next(self._victim.parameters()).device
        for number, found in enumerate(batches(self.data, SIZE, indices=order(self.data))):
            if number >= place:
                batch = found.to(device)
                objective = build(self._spec.attack.objective, self._victim, batch, self._access, self._guide)
                self._costs.append(objective.cost)
                yield objective, batch.images

    def spent(self) -> dict[str, int]:
        """Passes of single images through the victim, so far, and how many gradients were dead."""
        told = {"forwards": "forwards", "backwards": "backwards", "dead": "dead_gradients"}
        now = {name: sum(int(getattr(cost, key).sum()) for cost in self._costs) for key, name in told.items()}
        return {name: amount + self._before.get(name, 0) for name, amount in now.items()}

    def draft(self) -> Draft | None:
        if self._path is None or not self._path.exists():
            return None
        found = universal.told(self._path)
        if (found["run"], found["fit"]) != (self._spec.id, self.data.fingerprint):
            return None
        self._before = found["cost"]
        move = universal.load(self._path).move.to(next(self._victim.parameters()).device)
        return Draft(move, found["done"], found["place"], found["stream"])

    def keep(self, draft: Draft, length: int) -> None:
        self._tell(draft.done, length)
        if self._path is None or draft.done == length or time.monotonic() - self._kept < OFTEN:
            return
        told: dict[str, Any] = {"run": self._spec.id, "fit": self.data.fingerprint, "cost": self.spent()}
        universal.save(self._path, universal.Move(draft.move), told | {"done": draft.done, "place": draft.place, "stream": draft.stream})
        self._kept = time.monotonic()
