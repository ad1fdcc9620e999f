"""A defense maps a backbone to a hardened backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from sslrob.attack import Attack
    from sslrob.backbone import Backbone
    from sslrob.data import Batch
    from sslrob.streams import Streams
    from sslrob.threat_model import ThreatModel


class Defense(ABC):
    """A way to harden a backbone.  Subclasses are frozen dataclasses whose fields are settings."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @abstractmethod
    def harden(
        self,
        backbone: Backbone,
        batches: Iterable[Batch],
        attack: Attack,
        threat_model: ThreatModel,
        *,
        streams: Callable[[tuple[str, ...]], Streams],
        log: Callable[[dict[str, float]], None],
    ) -> Backbone:
        """The hardened backbone; the given one is left as it is.

        Args:
            batches: training images; defenses without labels ignore the targets.
            attack: the inner attack of the training.
            streams: the random numbers of the images with these ids, a new draw at each call.
            log: takes the measures of a step.
        """

    def adaptive_attack(self) -> str | None:
        """The zoo's attack that sees through this defense; one that hides gradients must name it."""
        return None
