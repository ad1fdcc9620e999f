"""A task says what it means to be right; a victim is a backbone with that task's head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw
from torch import Tensor, nn

from sslrob.backbone import Backbone
from sslrob.data import Batch, Dataset, Sample
from sslrob.errors import SslrobError
from sslrob.stats import bootstrap

if TYPE_CHECKING:
    from sslrob.zoo import Weights

Row = dict[str, Any]  # what one image contributes to the metrics; JSON as it is
Aggregator = Callable[[NDArray[np.float64]], dict[str, float]]


class Victim(nn.Module, ABC):
    """Images in [0, 1] in; outputs that only its own methods understand out.

    Attributes:
        losses: names of its losses; the first is the default.
        strongest: those that a cascade of attacks tries, in this order; none: all.
        targeted: names of its losses towards a chosen wrong answer, see `pull`; the first is the default.
        read_every: how many attack steps may pass between two readings of `fooled` and `quality`, where these are costly.
        backbone: the backbone inside, for objectives on embeddings; None for a whole model that shows none.
    """

    losses: ClassVar[tuple[str, ...]]
    strongest: ClassVar[tuple[str, ...]] = ()
    targeted: ClassVar[tuple[str, ...]] = ()
    read_every: ClassVar[int] = 1

    @property
    @abstractmethod
    def backbone(self) -> Backbone | None: ...

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """One pass, from which loss, verdict and predictions all follow.

        Args:
            images: (n, 3, h, w) RGB in [0, 1].
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Sequence[Any], name: str, progress: float) -> Tensor:
        """(n,) how wrong, per image, differentiable; no image's loss depends on another image.

        Args:
            name: one of `losses`.
            progress: how much of the attack is over, in [0, 1], for losses that anneal.
        """

    @abstractmethod
    def fooled(self, outputs: Any, targets: Sequence[Any]) -> Tensor:
        """(n,) bool: an adversary has nothing left to gain.  Each task documents its criterion."""

    @abstractmethod
    def quality(self, outputs: Any, targets: Sequence[Any]) -> Tensor:
        """(n,) how right: free of schedules, comparable between steps and losses; an adversary wants it low."""

    @abstractmethod
    def predict(self, outputs: Any) -> Sequence[Any]:
        """One prediction an image, on the CPU."""

    def prepared(self, targets: Sequence[Any]) -> Sequence[Any]:
        """The same targets in a form that is quicker to read many times, such as a tensor on the device; all methods take either."""
        return targets

    def margins(self, outputs: Any, targets: Sequence[Any]) -> Tensor:
        """(n, k) the true answer's score minus each answer's, differentiable; infinite in the true one's own column.

        Victims whose wrong answers are no finite list, the same for every image, have none; those that have, have `pull` too.

        Raises:
            SslrobError: there are none.
        """
        del outputs, targets
        raise SslrobError(f"{type(self).__name__} has no finite list of wrong answers", hint="use an attack that needs no margins")

    def pull(self, outputs: Any, targets: Sequence[Any], aims: Tensor, name: str) -> Tensor:
        """(n,) how near the answer is to `aims`, differentiable: the losses of targeted attacks.

        Args:
            aims: (n,) columns of the margins, none of them the true one's.
            name: one of `targeted`.

        Raises:
            SslrobError: there is no finite list of wrong answers.
        """
        del outputs, targets, aims, name
        raise SslrobError(f"{type(self).__name__} has no finite list of wrong answers", hint="use an attack without targets")


class Remembering(Victim):
    """A victim whose head has no weights but a memory, made of the data set's fit split when the victim is assembled."""

    @abstractmethod
    def remember(self, batches: Iterable[Batch]) -> None:
        """Forget what was remembered, and take these in; the backbone is put into eval mode.

        Args:
            batches: of the fit split, in an order and of a size that do not change, or the rounding of the embeddings would.
        """


class Task(ABC):
    """Data, victims and metrics of one kind of question.

    Attributes:
        version: raised when the meaning of a number changes; part of every run's identity.
        headline: the metric to quote, a key of `aggregate()`.
        heads: the kinds of heads that `victim()` can build.
        graded: an image may be more or less right; if not, the headline is the share of images that are not fooled.
        judged_by: what `Victim.quality` is, in words: the rule by which each image keeps the worst of all candidates.
    """

    version: ClassVar[int] = 1
    headline: ClassVar[str]
    heads: ClassVar[tuple[str, ...]] = ()
    graded: ClassVar[bool] = True
    judged_by: ClassVar[str] = ""

    @abstractmethod
    def dataset(self, root: Path, *, format: str, classes: Sequence[str], settings: Mapping[str, Any]) -> Dataset:
        """The images and targets under `root`, written in `format`.

        Args:
            classes: class names, in the order of the labels; empty: take the data's own.
            settings: what else the format needs (an annotation file, an image size).

        Raises:
            SslrobError: something is missing, unreadable or inconsistent; says what and where.
        """

    @abstractmethod
    def victim(self, backbone: Backbone, *, kind: str, classes: Sequence[str], settings: Mapping[str, Any]) -> Victim:
        """A backbone under an untrained head of this kind."""

    @staticmethod
    def losses(kind: str) -> tuple[str, ...]:
        """Names of the losses of the victims that have this kind of head; none: they are not known before one is built."""
        del kind
        return ()

    @staticmethod
    def described(reference: str) -> str:
        """All that a reference says of its model, as text that is the same wherever it lies; a run's id counts it.

        Raises:
            SslrobError: what it names is missing or broken.
        """
        return reference

    def whole(self, reference: str, *, weights: Weights | None, settings: Mapping[str, Any], classes: Sequence[str]) -> Victim:
        """A whole model, with its own backbone and preprocessing; see `sslrob.whole` for what reads its weights.

        Args:
            classes: the data set's names, in the order of its labels, which must be the model's; empty: not known.

        Raises:
            SslrobError: the model or its weights are missing or broken, or they do not fit each other or the classes.
        """
        del weights, settings, classes
        raise SslrobError(f"this task takes no whole models such as {reference!r}", hint="compose one: --backbone NAME --task TASK")

    @abstractmethod
    def measure(self, prediction: Any, target: Any) -> Row:
        """The sufficient statistics of one image; metrics can be recomputed from rows alone."""

    def mirrored(self, sample: Sample) -> Sample:
        """The sample as a mirror shows it, for training; as it is, where the task does not say what becomes of the target."""
        return sample

    def draw(self, canvas: ImageDraw.ImageDraw, prediction: Any, *, classes: Sequence[str], scale: int) -> None:
        """Draw a prediction over its image, for the pictures of a run.

        Args:
            scale: how many canvas pixels an image pixel takes.
        """
        del classes, scale
        canvas.text((2, 2), str(prediction), fill="white", stroke_width=1, stroke_fill="black")

    @abstractmethod
    def aggregator(self, rows: Sequence[Row]) -> Aggregator:
        """A function from (n,) row weights (how often each image counts) to metrics in percent; bootstrap calls it often."""

    def intervals(self, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
        """95 % intervals of the metrics, in percent."""
        return bootstrap(self.aggregator(rows), len(rows))

    def aggregate(self, rows: Sequence[Row]) -> dict[str, float]:
        """Metrics in percent, each row counted once."""
        return self.aggregator(rows)(np.ones(len(rows)))
