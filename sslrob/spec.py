"""A `Spec` says everything about an evaluation, and has an id.  `sslrob.resolve` makes one of the words on a command line."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from sslrob import license as licenses
from sslrob.epsilon import EVERY_IMAGE
from sslrob.precision import Precision
from sslrob.zoo import FitSplit, Record, Settings, ThreatModelText, Weights

LAYOUT = "who reads the weights: the layout's plugin with its version, and the layout's own; null: they have no layout"
SINGULAR = {"ies": "y", "ches": "ch", "s": ""}  # of the names of settings, for one of them
# What does not change a number: names, where files lie (their sha256 counts), and what is only told.
_SOURCE = {"file", "url", "hf", "mirrors", "size", "published_hash", "format"}
_COMPOSED: Any = {
    "backbone": {"id": True, "notes": True, "license": True, "weights": _SOURCE},
    "head": {"id": True, "protocol": True, "clean": True, "published": True, "alone": True, "weights": _SOURCE},
}
_NOT_IN_ID: Any = {
    "asked": True,
    "dataset": {"path": True, "images": True, "fit": {"path", "images"}},
    **_COMPOSED,
    "victim": {"id": True, "reference": True, "clean": True, "notes": True, "license": True, "weights": _SOURCE},
    "attack": {"id"},
    "surrogates": {"__all__": _COMPOSED},
    "perturbation": {"weights": _SOURCE, "threat_model": True, "learned_on": True},
}


class TaskSpec(Record):
    name: str
    plugin: str = Field(description="distribution and version")
    version: int = Field(description="raised by the task when the meaning of a number changes")


class DatasetSpec(Record):
    id: str
    format: str
    path: Path
    split: str
    images: int | None
    classes: tuple[str, ...]
    settings: Settings
    fit: FitSplit | None


class BackboneSpec(Record):
    id: str
    use: str
    plugin: str
    settings: Settings
    weights: Weights | None = Field(description="with its sha256; null: random weights")
    layout: str | None = Field(None, exclude_if=lambda found: found is None, description=LAYOUT)
    seed: int | None = Field(description="of random weights; null for trained ones")
    notes: str = Field("", exclude_if=lambda found: not found, description="what else to know, such as how a reference was understood")
    license: str = Field("", exclude_if=lambda found: not found, description="of the weights")


class HeadSpec(Record):
    id: str
    kind: str
    protocol: str
    settings: Settings
    weights: Weights | None
    layout: str | None = Field(None, exclude_if=lambda found: found is None, description=LAYOUT)
    clean: dict[str, float] = Field(description="what the metrics are without an attack, in percent, in a run of the zoo's own")
    published: dict[str, float] = Field({}, exclude_if=lambda found: not found, description="what others measured, in percent")
    alone: bool = Field(True, description="whether the zoo has no other head of the backbone on the data set; if not, its id is told")

    @property
    def told(self) -> str:
        """What it is called where the backbone is told too: its kind, if that is enough."""
        return self.kind if self.alone else self.id


class SurrogateSpec(Record):
    """Whom the attack sees instead of the victim."""

    backbone: BackboneSpec
    head: HeadSpec

    @property
    def told(self) -> str:
        return self.backbone.id if self.head.alone else self.head.id


class VictimSpec(Record):
    id: str = Field(description="its name in the zoo, or the reference itself")
    reference: str
    config: str = Field(description="sha256 of all that the reference says of the model, which counts in its place")
    settings: Settings
    weights: Weights | None
    layout: str | None = Field(None, exclude_if=lambda found: found is None, description=LAYOUT)
    classes: tuple[str, ...]
    clean: dict[str, float]
    notes: str = Field("", exclude_if=lambda found: not found, description="what else to know, such as how a reference was understood")
    license: str = Field("", exclude_if=lambda found: not found, description="of the weights")


class AttackSpec(Record):
    id: str = Field(description="the preset's name, or the component's own")
    use: str
    plugin: str
    objective: str
    settings: Settings = Field(description="all of them, defaults included")
    restarts: int


class PerturbationSpec(Record):
    """A universal move that an earlier run learned; `Spec.attack` is the attack that learned it."""

    weights: Weights
    threat_model: ThreatModelText = Field(description="in which it was learned")
    learned_on: str = Field(description="the head, or the whole victim")


class Spec(Record):
    """Everything that an evaluation is, except what cannot change a number: device, batch size, shards, how many images.

    Either `backbone` and `head` are there, or `victim`.
    """

    sslrob: str = Field(default_factory=lambda: version("sslrob"), description="version of the evaluator")
    task: TaskSpec
    dataset: DatasetSpec
    backbone: BackboneSpec | None = None
    head: HeadSpec | None = None
    victim: VictimSpec | None = None
    attack: AttackSpec
    perturbation: PerturbationSpec | None = Field(None, exclude_if=lambda found: found is None, description="null: the attack itself runs")
    surrogates: tuple[SurrogateSpec, ...] = Field((), exclude_if=lambda found: not found, description="none: the attack sees the victim")
    threat_model: ThreatModelText
    precision: Precision = Field(
        "float32", exclude_if=lambda found: found == "float32", description="in which the search multiplies; the victim judges in float32"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    asked: str = Field("", description="the word that was typed for the victim")

    @property
    def id(self) -> str:
        """8 hex digits, the same for the same question on every machine."""
        text = json.dumps(self.model_dump(mode="json", exclude=_NOT_IN_ID), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def unpinned(self) -> list[str]:
        """Whose weights have a checksum that nobody knows before they are downloaded; until then neither is the id known."""
        seen = [self.backbone, self.head, self.victim, *(part for one in self.surrogates for part in (one.backbone, one.head))]
        return [part.id for part in seen if part is not None and part.weights is not None and part.weights.sha256 == "unknown"]

    @property
    def name(self) -> str:
        """What a run of it is called, with the id: `mini-swav-mini-scenes-pgd-0123abcd`."""
        return f"{_word(self.subject)}-{self.dataset.id}-{self.attack.id.rpartition('/')[2]}-{self.id}"

    @property
    def subject(self) -> str:
        """Id of the backbone, or of the whole victim."""
        subject = self.backbone or self.victim
        return subject.id if subject else ""

    @property
    def notes(self) -> list[str]:
        """What else to know of the backbone, or the whole victim, and of the surrogates, each in a line or several; and of their licences."""
        told = [one for one in (self.backbone or self.victim, *(one.backbone for one in self.surrogates)) if one is not None]
        return [*(one.notes for one in told if one.notes), *licenses.warnings((one.id, one.license) for one in told)]

    @property
    def clean(self) -> dict[str, float]:
        """The metrics, in percent, that the zoo promises without an attack; empty if it promises none."""
        promised = self.head or self.victim
        return promised.clean if promised else {}

    @property
    def published(self) -> dict[str, float]:
        """The metrics, in percent, that others measured of the head without an attack."""
        return self.head.published if self.head else {}

    def sentence(self) -> str:
        """What was chosen, in a line."""
        asked = f"{self.asked} → " if self.asked not in ("", self.subject) else ""
        size = f", {self.dataset.images} images" if self.dataset.images else ""
        parts = [f"{asked}{self.subject}", f"{self.dataset.id} ({self.dataset.split}{size})"]
        if self.head:
            parts.append(", ".join(dict.fromkeys([self.head.told, *([] if self.head.alone else [self.head.kind]), self.head.protocol])))
        allowed = f"{EVERY_IMAGE} (every image)" if self.threat_model == EVERY_IMAGE else self.threat_model
        lowered = [] if self.precision == "float32" else [f"searched in {self.precision}"]
        return " · ".join([*parts, self._attack(), allowed, *lowered])

    def _attack(self) -> str:
        attack = self.attack
        amounts = {name: value for name, value in attack.settings.items() if isinstance(value, int) and not isinstance(value, bool)}
        if attack.restarts > 1:
            amounts["restarts"] = attack.restarts
        words = [str(attack.settings[name]) for name in ("type", "version") if isinstance(attack.settings.get(name), str)]
        words += [_amount(value, name) for name, value in amounts.items() if value]
        told = ", ".join(words).replace("_", " ")
        goal = "" if attack.objective == "task" else f" on {attack.objective}"
        source = "" if self.perturbation is None else f", learned on {self.perturbation.learned_on}"
        through = f" through {', '.join(one.told for one in self.surrogates)}" if self.surrogates else ""
        return f"{attack.id}{goal}" + (f" ({told})" if told else "") + source + through


def _amount(value: int, name: str) -> str:
    """`20 steps`, `1 query`, or `severity 3` of what is not counted."""
    if not name.endswith("s"):
        return f"{name} {value}"
    ending = next(ending for ending in SINGULAR if name.endswith(ending))
    return f"1 {name.removesuffix(ending)}{SINGULAR[ending]}" if value == 1 else f"{value} {name}"


def _word(text: str) -> str:
    """A reference such as `mmdet:configs/fcos/fcos_r50.py` as part of a folder's name."""
    stem = text.rpartition(":")[2].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    return "".join(c if c.isascii() and (c.isalnum() or c in ".+_-") else "-" for c in stem) or "victim"
