"""Objectives on what a backbone makes of an image: they know neither task nor labels, so that any head of the backbone can judge.

    embedding[:cosine|l2][:PLACE][:target]      how far what the backbone sees is from what it saw in the clean image, or in another one
    activation[:lift|log-lift|dispersion][:PLACE]   how large, or how even, what it sees is: no other image is needed

PLACE is `pooled`, the embedding itself; `tokens`, each position of the coarsest map (of a transformer: its patch tokens); `middle`, the map
in the middle; `all` maps; or maps by number, the finest first, such as `map1` or `map0+map2`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sslrob.backbone import Backbone, Features
from sslrob.data import Batch
from sslrob.errors import SslrobError, close_names
from sslrob.objective import Access, Cost, Feedback, Guide, Objective
from sslrob.streams import Streams

if TYPE_CHECKING:
    from sslrob.data import Dataset

ROUNDING = 1e-5  # of an embedding's length: nearer ones are the same; another batch size moves it by some 1e-7
USUAL = {  # the place of each measure, where none is named
    "embedding": {"cosine": "pooled", "l2": "pooled"},
    "activation": {"lift": "map0", "log-lift": "all", "dispersion": "middle"},
}
PLACES = ("pooled", "tokens", "middle", "all", "map0")
MAPS = re.compile(r"map\d+(\+map\d+)*")


@dataclass(frozen=True)
class Goal:
    """What a name such as `embedding:l2:map1` says.

    Attributes:
        kind, measure: of `USUAL`.
        target: towards another image's embedding, not away from the clean image's.
    """

    kind: str
    measure: str
    place: str
    target: bool = False

    @classmethod
    def parse(cls, name: str) -> Goal:
        """The words after the kind may stand in any order.

        Raises:
            SslrobError: a word that means nothing here, or two of one sort.
        """
        kind, *words = name.split(":")
        said: dict[str, str] = {}
        for word in words:
            sort = _sort(kind, word, name)
            if sort in said:
                raise SslrobError(f"objective {name!r} names two of a sort, {said[sort]!r} and {word!r}", hint="keep one of them")
            said[sort] = word
        measure = said.get("measure", next(iter(USUAL[kind])))
        return cls(kind, measure, said.get("place", USUAL[kind][measure]), "target" in said)

    def __str__(self) -> str:
        """The shortest name of the same meaning: one question has one id."""
        usual = USUAL[self.kind]
        measure = "" if self.measure == next(iter(usual)) and self.kind == "embedding" else f":{self.measure}"
        place = "" if self.place == usual[self.measure] else f":{self.place}"
        return f"{self.kind}{measure}{place}" + (":target" if self.target else "")

    def levels(self, count: int) -> list[int]:
        """Places of the maps meant, among `count`; none for the embedding itself.

        Raises:
            SslrobError: there are not so many.
        """
        if self.place in ("pooled", "tokens", "middle", "all"):
            return {"pooled": [], "tokens": [count - 1], "middle": [count // 2], "all": list(range(count))}[self.place]
        wanted = [int(word.removeprefix("map")) for word in self.place.split("+")]
        if max(wanted) >= count:
            there = "map0" if count == 1 else f"map0 to map{count - 1}"
            raise SslrobError(f"objective '{self}' asks for map{max(wanted)}, but the backbone has {there}", hint=f"use {there}")
        return wanted

    def parts(self, features: Features) -> list[Tensor]:
        """What it is about: the embedding (n, width), or maps (n, channels, h, w)."""
        return [features.maps[i] for i in self.levels(len(features.maps))] or [features.pooled]


@dataclass(frozen=True)
class OfBackbone(Objective):
    """It needs no labels, so it cannot judge: nothing is ever fooled, and the higher the better.  The task judges afterwards."""

    backbone: Backbone
    goal: Goal

    def _look(self, images: Tensor, progress: float) -> Feedback:
        del progress
        loss = torch.stack(self._losses(self.goal.parts(self.backbone(images)))).sum(0)
        return Feedback(loss, lambda: torch.zeros_like(loss, dtype=torch.bool), lambda: -loss)

    @abstractmethod
    def _losses(self, parts: list[Tensor]) -> list[Tensor]:
        """(n,) of each part."""

    def _subset(self, keep: Tensor) -> Objective:
        return replace(self)


@dataclass(frozen=True)
class EmbeddingObjective(OfBackbone):
    """Away from what the backbone sees in the clean image, or, targeted, towards what it sees in another.

    `cosine`: 1 − cosine; `l2`: the Euclidean distance; of maps, the mean over their positions.
    The clean image itself is a stationary point: attacks need a random start.  There the gradient is rounding alone, and is told as the
    zero that it means, so that an attack which starts there is flagged instead of following noise.
    """

    anchors: tuple[Tensor, ...]  # shaped as the parts

    def _losses(self, parts: list[Tensor]) -> list[Tensor]:
        sign = -1 if self.goal.target else 1
        return [sign * self._distance(part, anchor) for part, anchor in zip(parts, self.anchors, strict=True)]

    def _distance(self, part: Tensor, anchor: Tensor) -> Tensor:
        there = (part.detach() - anchor).norm(dim=1) <= ROUNDING * anchor.norm(dim=1)
        apart = (part - anchor).norm(dim=1) if self.goal.measure == "l2" else 1 - F.cosine_similarity(part, anchor)
        return apart.masked_fill(there, 0).reshape(len(part), -1).mean(1)

    def _subset(self, keep: Tensor) -> Objective:
        return replace(self, anchors=tuple(anchor[keep] for anchor in self.anchors))


@dataclass(frozen=True)
class ActivationObjective(OfBackbone):
    """The size or the evenness of what the backbone sees, whatever the image: it can be raised on images that show nothing.

    `lift`: the mean square (L4A: Ban & Dong, NeurIPS 2022).  `log-lift`: its logarithm, so that large maps do not outweigh small ones
    (fast feature fool: Mopuri et al., BMVC 2017).  `dispersion`: minus the standard deviation (Lu et al., CVPR 2020).
    """

    def _losses(self, parts: list[Tensor]) -> list[Tensor]:
        flat = [part.flatten(1) for part in parts]
        if self.goal.measure == "dispersion":
            return [-values.std(1) for values in flat]
        squares = [values.square().mean(1) for values in flat]
        return squares if self.goal.measure == "lift" else [s.clamp_min(torch.finfo(s.dtype).tiny).log() for s in squares]


@dataclass(frozen=True)
class Guides:
    """For each image one of the fit split, of whatever class, drawn by the seed and the image's id, and resized to its shape.

    Another image of the batch would do, too, but then the batch size would change the result.
    """

    data: Dataset
    seed: int

    def __call__(self, batch: Batch) -> Tensor:
        drawn = Streams(self.seed, batch.ids, "guide").integers((), len(self.data)).tolist()
        return torch.cat([resized(self.data[i].image[None], batch.images) for i in drawn]).to(batch.images.device)


def resized(images: Tensor, like: Tensor) -> Tensor:
    """Images, or moves, of the height and width of others; as they are if they have them already."""
    size = like.shape[-2:]
    return images if images.shape[-2:] == size else F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def build(goal: Goal, backbone: Backbone, batch: Batch, access: Access, guide: Guide | None = None) -> Objective:
    """The objective on the images of one batch; an embedding to move from, or towards, costs a pass.

    Args:
        guide: gives the images that `target` pulls towards.
    """
    cost, index = Cost(len(batch), batch.images.device), torch.arange(len(batch), device=batch.images.device)
    if goal.kind == "activation":
        return ActivationObjective(access, cost, index, backbone, goal)
    if goal.target and guide is None:
        raise ValueError(f"objective '{goal}' needs images to pull towards: give guide=...")
    with torch.no_grad():
        anchors = goal.parts(backbone(guide(batch) if goal.target and guide else batch.images))
    cost.forwards += 1
    return EmbeddingObjective(access, cost, index, backbone, goal, tuple(anchors))


def targeted(name: str) -> bool:
    """Whether an objective pulls towards other images."""
    return name.startswith("embedding") and Goal.parse(name).target


def require_levels(name: str, backbone: Backbone) -> Goal:
    """Raises:
    SslrobError: the name means nothing, or maps that the backbone does not have.
    """
    goal = Goal.parse(name)
    goal.levels(len(backbone.channels))
    return goal


def _sort(kind: str, word: str, name: str) -> str:
    """What a word of a name tells: its measure, its place, or that it is targeted."""
    if word in USUAL[kind]:
        return "measure"
    if word in PLACES or MAPS.fullmatch(word):
        return "place"
    if word == "target" and kind == "embedding":
        return "target"
    known = [*USUAL[kind], *PLACES, *(["target"] if kind == "embedding" else [])]
    close = close_names(word, known)
    raise SslrobError(
        f"objective {name!r} has no word {word!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"the words after {kind!r} are {', '.join(known)}, map1 and so on",
    )
