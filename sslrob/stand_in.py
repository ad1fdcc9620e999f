"""Classes that stand for others while a checkpoint is read: they keep what it gives them, import nothing and run nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StandIn:
    """An object whose class is not here: what the pickle passed to it, and its attributes as they were."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> StandIn:
        made = super().__new__(cls)
        made.__dict__["arguments"] = (*arguments, *keywords.values())
        return made

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """Nothing but what `__new__` kept."""

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.__dict__.update({str(name): value for name, value in part.items()})


def stand_in(dotted: str) -> tuple[type[StandIn], str]:
    """A class for one dotted name, as `torch.serialization.safe_globals` takes it."""
    return type(dotted.rpartition(".")[2], (StandIn,), {}), dotted
