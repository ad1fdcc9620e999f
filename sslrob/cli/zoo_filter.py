"""Which entries `sslrob zoo list` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sslrob import license as licenses
from sslrob.cli.zoo_rows import task_of, tasks_of
from sslrob.errors import SslrobError, unknown
from sslrob.zoo import KINDS, section

if TYPE_CHECKING:
    from sslrob.zoo import Backbone, Zoo

OF_BACKBONES = ("backbone", "head")  # what a family and a factor are of
LICENSED = ("backbone", "head", "dataset", "victim")


@dataclass(frozen=True)
class Filter:
    """What was asked for; None where nothing was.

    Raises:
        SslrobError: a family, a factor or a licence that no entry has.
    """

    zoo: Zoo
    family: str | None = None
    factor: str | None = None
    license: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        backbones = self.zoo.backbones.values()
        offered: dict[str, set[str]] = {
            "family": set(self.zoo.families()),
            "factor": {factor for record in backbones for factor in record.factors},
            "license": {
                *licenses.USES,
                *(record.license for kind in ("backbone", "dataset", "victim") for record in self.zoo.of(kind).values()),
            },
        }
        for what, known in offered.items():
            wanted = getattr(self, what)
            if wanted is not None and wanted.casefold() not in {word.casefold() for word in known}:
                raise unknown(what, wanted, known - {""}, broken=self.zoo.complaints())

    @property
    def empty(self) -> bool:
        """Whether everything is wanted."""
        return (self.family, self.factor, self.license, self.task) == (None, None, None, None)

    def keeps(self, kind: str, name: str) -> bool:
        """Whether an entry is wanted."""
        record = self.zoo.recorded(kind)[name]
        backbone = self.zoo.backbones.get(record.backbone) if kind == "head" else record
        return self._serves(kind, name) and (kind not in OF_BACKBONES or self._of(backbone)) and self._allowed(kind, backbone)

    def _of(self, backbone: Backbone | None) -> bool:
        if backbone is None:  # a head of a reference
            return self.family is None and self.factor is None
        return self.family in (None, backbone.family) and (self.factor is None or self.factor in backbone.factors)

    def _allowed(self, kind: str, record: Any) -> bool:
        """A head is under the licence of its backbone."""
        if self.license is None or kind not in LICENSED:
            return True
        return record is not None and licenses.permits(record.license, self.license)

    def _serves(self, kind: str, name: str) -> bool:
        """Whether an entry has to do with the task; attacks and defenses have to do with all."""
        zoo = self.zoo
        match kind:
            case _ if self.task is None:
                return True
            case "backbone":
                return self.task in tasks_of(name, zoo)
            case "head":
                return bool(task_of(zoo.datasets[zoo.recorded(kind)[name].dataset]) == self.task)
            case "study":
                return any(task_of(zoo.datasets[dataset]) == self.task for dataset in zoo.studies[name].datasets)
            case "dataset" | "victim" | "recipe":
                return task_of(zoo.of(kind)[name]) == self.task
        return True


def kinds_of(words: Sequence[str], asked: Filter) -> list[str]:
    """The kinds of entries that are listed: those that are named, else backbones, and data sets where these can pass the filter.

    Raises:
        SslrobError: no such kind, or one that has no family or no factor, which is asked for.
    """
    sections = {section(kind): kind for kind in KINDS}
    narrow = next((what for what in ("family", "factor") if getattr(asked, what) is not None), None)
    for word in words:
        if word not in sections:
            raise unknown("kind of zoo entry", word, sections)
        if narrow and sections[word] not in OF_BACKBONES:
            raise SslrobError(f"{word} have no {narrow}", hint=f"leave out --{narrow}, or list backbones or heads")
    return [sections[word] for word in words] or (["backbone"] if narrow else ["backbone", "dataset"])
