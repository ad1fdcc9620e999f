"""Which entries `sslrob zoo list` shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """What was asked for; where several of one kind were, any of them will do.

    Raises:
        SslrobError: a family, a factor, a licence or a task that no entry has.
    """

    zoo: Zoo
    family: Sequence[str] = ()
    factor: Sequence[str] = ()
    license: Sequence[str] = ()
    task: Sequence[str] = ()

    def __post_init__(self) -> None:
        backbones = self.zoo.backbones.values()
        offered: dict[str, set[str]] = {
            "family": set(self.zoo.families()),
            "factor": {factor for record in backbones for factor in record.factors},
            "license": {
                *licenses.USES,
                *(record.license for kind in ("backbone", "dataset", "victim") for record in self.zoo.of(kind).values()),
            },
            "task": {task_of(record) for kind in ("dataset", "victim", "recipe") for record in self.zoo.of(kind).values()},
        }
        for what, known in offered.items():
            for wanted in getattr(self, what):
                if not _among(wanted, known):
                    raise unknown(what, wanted, known - {""}, broken=self.zoo.complaints())

    @property
    def empty(self) -> bool:
        """Whether everything is wanted."""
        return not (self.family or self.factor or self.license or self.task)

    def keeps(self, kind: str, name: str) -> bool:
        """Whether an entry is wanted."""
        record = self.zoo.recorded(kind)[name]
        backbone = self.zoo.backbones.get(record.backbone) if kind == "head" else record
        return self._serves(kind, name) and (kind not in OF_BACKBONES or self._of(backbone)) and self._allowed(kind, backbone)

    def _of(self, backbone: Backbone | None) -> bool:
        if backbone is None:  # a head of a reference
            return not self.family and not self.factor
        of_family = not self.family or _among(backbone.family or "", self.family)
        return of_family and (not self.factor or any(_among(factor, self.factor) for factor in backbone.factors))

    def _allowed(self, kind: str, record: Any) -> bool:
        """A head is under the licence of its backbone."""
        if not self.license or kind not in LICENSED:
            return True
        return record is not None and any(licenses.permits(record.license, wanted) for wanted in self.license)

    def _serves(self, kind: str, name: str) -> bool:
        """Whether an entry has to do with the task; attacks and defenses have to do with all."""
        zoo = self.zoo
        match kind:
            case _ if not self.task:
                return True
            case "backbone":
                tasks = tasks_of(name, zoo)
            case "head":
                tasks = [task_of(zoo.datasets[zoo.recorded(kind)[name].dataset])]
            case "study":
                tasks = [task_of(zoo.datasets[dataset]) for dataset in zoo.studies[name].datasets]
            case "dataset" | "victim" | "recipe":
                tasks = [task_of(zoo.of(kind)[name])]
            case _:
                return True
        return any(_among(task, self.task) for task in tasks)


def _among(word: str, words: Iterable[str]) -> bool:
    """Whether a word is one of them, in whatever case."""
    return word.casefold() in {other.casefold() for other in words}


def kinds_of(words: Sequence[str], asked: Filter) -> list[str]:
    """The kinds of entries that are listed: those that are named, else backbones, and data sets where these can pass the filter.

    Raises:
        SslrobError: no such kind, or one that has no family or no factor, which is asked for.
    """
    sections = {section(kind): kind for kind in KINDS}
    narrow = next((what for what in ("family", "factor") if getattr(asked, what)), None)
    for word in words:
        if word not in sections:
            raise unknown("kind of zoo entry", word, sections)
        if narrow and sections[word] not in OF_BACKBONES:
            raise SslrobError(f"{word} have no {narrow}", hint=f"leave out --{narrow}, or list backbones or heads")
    return [sections[word] for word in words] or (["backbone"] if narrow else ["backbone", "dataset"])
