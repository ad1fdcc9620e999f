"""Image classification: a folder of images a class, linear and nearest-neighbour heads, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob import images as files
from sslrob import references
from sslrob.backbone import Backbone
from sslrob.builtin import scores
from sslrob.builtin.knn import NearestNeighbours, Neighbours
from sslrob.data import Sample
from sslrob.errors import SslrobError, unknown
from sslrob.plugins import installed
from sslrob.settings import checked
from sslrob.stats import wilson
from sslrob.task import Aggregator, Row, Task, Victim
from sslrob.whole import require_classes
from sslrob.zoo import Weights


@dataclass(frozen=True)
class FolderSettings:
    """How images are brought to size.

    Args:
        resize: pixels of the shorter side; None: as they are.
        crop: side of the square cut from the centre; None: all of it.
        classes: which list of names the labels are counted in, where the folder may hold only some of them: imagenet-1k, the 1,000 WordNet
            ids; None: the data set's classes, or else the folder's own.
    """

    resize: int | None = None
    crop: int | None = None
    classes: Literal["imagenet-1k"] | None = field(default=None, repr=False)  # the names themselves are in the fingerprint


class ImageFolder:
    """`ROOT/CLASS/…/NAME.jpg`; a sample's id is its path below the root, its target the index of its class."""

    def __init__(self, root: Path, classes: Sequence[str], settings: FolderSettings) -> None:
        self.root, self.settings = root, settings
        self.paths = files.listed(root)
        found = sorted({p.relative_to(root).parts[0] for p in self.paths if len(p.relative_to(root).parts) > 1})
        loose = [p for p in self.paths if p.parent == root]
        if loose:
            raise SslrobError(f"image {str(loose[0])!r} is in no class folder", hint=f"put it at {root}/CLASS/{loose[0].name}")
        self.classes = tuple(classes) or _listed(settings.classes) or tuple(found)
        strangers = sorted(set(found) - set(self.classes))
        if strangers:
            raise SslrobError(
                f"folder {strangers[0]!r} of {str(root)!r} is none of the {len(self.classes)} classes",
                hint=f"the data set's classes are {', '.join(self.classes[:12])}{', …' if len(self.classes) > 12 else ''}",
            )
        index = {name: i for i, name in enumerate(self.classes)}
        self.labels = [index[p.relative_to(root).parts[0]] for p in self.paths]
        self.ids = tuple(p.relative_to(root).as_posix() for p in self.paths)
        self.fingerprint = files.fingerprint(self.paths, root, repr(settings), *self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        image = files.resized(files.open_rgb(self.paths[index]), shorter=self.settings.resize, crop=self.settings.crop)
        return Sample(self.ids[index], files.to_tensor(image), self.labels[index])


def _listed(name: str | None) -> tuple[str, ...]:
    """The names of a list that comes with sslrob, a line each; none for None."""
    return () if name is None else tuple(Path(__file__).with_name(f"{name}.txt").read_text(encoding="ascii").split())


class Classifier(Victim):
    """Whatever gives a logit a class.

    Outputs: logits (n, classes).  Fooled: the true class does not have the highest logit alone.  Quality: its margin.
    """

    losses = ("ce", "margin", "dlr")
    strongest = ("ce", "dlr")
    targeted = scores.TARGETED

    def loss(self, outputs: Tensor, targets: Sequence[int], name: str, progress: float) -> Tensor:
        """`ce`: cross-entropy.  `margin`: best wrong logit minus the true one (Carlini & Wagner 2017).  `dlr`: see `scores.dlr`."""
        del progress
        labels = self._labels(outputs, targets)
        if name == "ce":
            return F.cross_entropy(outputs, labels, reduction="none")
        return scores.dlr(outputs, labels) if name == "dlr" else -scores.lead(outputs, labels)

    def fooled(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return ~(self.quality(outputs, targets) > 0)

    def quality(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return scores.lead(outputs, self._labels(outputs, targets))

    def prepared(self, targets: Sequence[int]) -> Any:
        return torch.as_tensor(targets, device=next(self.parameters()).device)

    def margins(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return scores.margins(outputs, self._labels(outputs, targets))

    def pull(self, outputs: Tensor, targets: Sequence[int], aims: Tensor, name: str) -> Tensor:
        return scores.pull(outputs, self._labels(outputs, targets), aims, name)

    def predict(self, outputs: Tensor) -> list[Tensor]:
        return list(outputs.cpu())

    def _labels(self, outputs: Tensor, targets: Sequence[int]) -> Tensor:
        return torch.as_tensor(targets, device=outputs.device)


class LinearClassifier(Classifier):
    """A linear layer on the pooled embedding."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.body = backbone
        self.head = nn.Linear(backbone.width, classes)

    @property
    def backbone(self) -> Backbone:
        return self.body

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images).pooled)
        return logits


class WholeClassifier(Classifier):
    """A module of somebody else's, from images in [0, 1] to logits, which shows no backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def backbone(self) -> None:
        return None

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


class Classification(Task):
    """Which of k classes an image shows."""

    headline = "top1"
    graded = False
    heads = ("linear", "knn")

    @staticmethod
    def losses(kind: str) -> tuple[str, ...]:
        return {"linear": LinearClassifier.losses, "knn": NearestNeighbours.losses}.get(kind, ())

    def dataset(self, root: Path, *, format: str, classes: Sequence[str], settings: Mapping[str, Any]) -> ImageFolder:
        if format != "imagefolder":
            raise unknown("classification format", format, ["imagefolder"])
        return ImageFolder(root, classes, checked(FolderSettings, settings, "data set format 'imagefolder'"))

    def victim(self, backbone: Backbone, *, kind: str, classes: Sequence[str], settings: Mapping[str, Any]) -> Victim:
        if kind == "knn":
            return NearestNeighbours(backbone, len(classes), checked(Neighbours, settings, "head 'knn'"))
        if kind != "linear":
            raise unknown("classification head", kind, self.heads)
        if settings:
            raise SslrobError(f"a linear head has no setting {next(iter(settings))!r}", hint="remove it from the head's settings")
        return LinearClassifier(backbone, len(classes))

    @staticmethod
    def described(reference: str) -> str:
        """A file counts by its checksum, wherever it lies."""
        return references.FILE if reference.startswith(references.FILE) else reference

    def whole(self, reference: str, *, weights: Weights | None, settings: Mapping[str, Any], classes: Sequence[str]) -> Victim:
        """A classifier that a plugin builds; see the hook `build_classifier`."""
        plugins = installed()
        built = plugins.classifier(reference, weights, dict(settings))
        if built is None:
            raise references.misunderstood(reference, plugins)
        if isinstance(built, LinearClassifier):
            require_classes(reference, built.head.out_features, classes)
        return built

    def measure(self, prediction: Tensor, target: int) -> Row:
        """`rank`: how many wrong classes score at least as high as the true one."""
        beaten = int((prediction[target] > prediction).sum())
        return {"label": target, "predicted": int(prediction.argmax()), "rank": len(prediction) - 1 - beaten}

    def aggregator(self, rows: Sequence[Row]) -> Aggregator:
        ranks = np.array([row["rank"] for row in rows])
        return lambda weights: {f"top{k}": float(100 * np.average(ranks < k, weights=weights)) for k in (1, 5)}

    def intervals(self, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
        """Wilson's, for shares of independent images: unlike the bootstrap's, never of zero width."""
        ranks = np.array([row["rank"] for row in rows])
        bounds = {f"top{k}": wilson(int((ranks < k).sum()), len(rows)) for k in (1, 5)}
        return {name: (100 * low, 100 * high) for name, (low, high) in bounds.items()}

    def mirrored(self, sample: Sample) -> Sample:
        return sample._replace(image=sample.image.flip(-1))

    def draw(self, canvas: ImageDraw.ImageDraw, prediction: Tensor, *, classes: Sequence[str], scale: int) -> None:
        del scale
        best = int(prediction.argmax())
        share = float(prediction.softmax(0)[best])
        canvas.text((3, 3), f"{classes[best]} {share:.0%}", fill="white", stroke_width=1, stroke_fill="black")
