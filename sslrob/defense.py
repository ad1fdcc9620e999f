"""A defense maps a backbone to a hardened backbone, one batch of images after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from sslrob.attack import Attack
    from sslrob.backbone import Backbone
    from sslrob.data import Batch
    from sslrob.streams import Streams
    from sslrob.threat_model import ThreatModel


class Training(ABC):
    """A hardening under way.  What `step` does follows from its arguments and `state` alone, so that it can go on in another process.

    Attributes:
        backbone: the one being hardened, on the device and of the kind that the natural one was.
    """

    backbone: Backbone

    @abstractmethod
    def step(self, batch: Batch, streams: Streams, progress: float) -> dict[str, float]:
        """Learn from a batch; returns what was measured meanwhile, `loss` among it.

        Args:
            batch: training images, on the backbone's device; defenses without labels ignore the targets.
            streams: the images' random numbers in this step, the only ones that it may use.
            progress: how much of the training is over, in [0, 1), for settings that anneal.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that steps change: weights, running statistics, the optimizer; tensors, numbers and texts in dicts, lists and tuples."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` said, perhaps in another process, and on another device."""


class Defense(ABC):
    """A way to harden a backbone.  Subclasses are frozen dataclasses whose fields are settings.

    `sslrob.hardening.harden` shows the images, keeps checkpoints and counts steps.

    Attributes:
        steps: how many batches the training is shown.
        batch_size: images in each.
    """

    steps: int
    batch_size: int
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @abstractmethod
    def begin(self, backbone: Backbone, attack: Attack, threat_model: ThreatModel) -> Training:
        """A training of a copy of the backbone, before its first step; the given backbone is left as it is.

        Args:
            backbone: the natural one, in eval mode.
            attack: inside the training.
        """

    def adaptive_attack(self) -> str | None:
        """The zoo's attack that sees through this defense; one that hides gradients must name it."""
        return None
