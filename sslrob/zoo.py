"""The model zoo: which weights, heads, datasets and presets have which name.  `sslrob.zoo_files` reads it from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslrob.errors import SslrobError, unknown
from sslrob.records import (
    Attack,
    Backbone,
    Dataset,
    Defense,
    FitSplit,
    Hardening,
    Head,
    Pretraining,
    Protocol,
    Questions,
    Recipe,
    Record,
    Settings,
    Study,
    ThreatModelText,
    Victim,
    Weights,
    ZooFile,
)

__all__ = [
    "FIRST_PARTY",
    "KINDS",
    "OWN",
    "Attack",
    "Backbone",
    "Dataset",
    "Defense",
    "FitSplit",
    "Hardening",
    "Head",
    "Pretraining",
    "Protocol",
    "Questions",
    "Recipe",
    "Record",
    "Settings",
    "Study",
    "ThreatModelText",
    "Victim",
    "Weights",
    "Zoo",
    "ZooFile",
    "schema",
    "section",
]


@dataclass(frozen=True)
class Zoo:
    """The merged zoo.

    Attributes:
        untrained: heads that are recorded without weights: the command in `recipe` makes one, and then it is among `heads`.
        origins: the file of each entry, by section and name.
        collections: who brings each file: FIRST_PARTY, a plugin's distribution, or OWN.
        broken: why a plugin's file was left out, by file.
        absent: a phrase for each plugin that did not load, and whose entries may be missed.
    """

    backbones: Mapping[str, Backbone] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    untrained: Mapping[str, Head] = field(default_factory=dict)
    victims: Mapping[str, Victim] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    defenses: Mapping[str, Defense] = field(default_factory=dict)
    studies: Mapping[str, Study] = field(default_factory=dict)
    origins: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    collections: Mapping[Path, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def get(self, kind: str, name: str) -> Any:
        """The record called `name`.

        Args:
            kind: "backbone", "dataset", "head", "victim", "recipe", "attack", "defense" or "study".

        Raises:
            SslrobError: there is none; suggests close names.
        """
        records = self.of(kind)
        if kind == "head" and name in self.untrained and name not in records:
            raise SslrobError(f"head {name!r} is recorded, but not trained on this machine", hint=self.untrained[name].recipe)
        if name not in records:
            raise unknown(kind, name, records, broken=self.complaints())
        return records[name]

    def of(self, kind: str) -> Mapping[str, Any]:
        """All records of a kind, by name."""
        records: Mapping[str, Any] = getattr(self, section(kind))
        return records

    def recorded(self, kind: str) -> Mapping[str, Any]:
        """All records of a kind, by name, untrained heads among them."""
        return {**self.untrained, **self.heads} if kind == "head" else self.of(kind)

    def origin(self, kind: str, name: str) -> Path:
        """The file that a recorded entry stands in."""
        return self.origins[section(kind), name] if name in self.of(kind) else self.origins["untrained", name]

    def collection(self, kind: str, name: str) -> str:
        """Who brings an entry: FIRST_PARTY, a plugin's distribution, or OWN, as for an entry of no file."""
        origin = self.origins.get((section(kind), name))
        return OWN if origin is None else self.collections.get(origin, OWN)

    def families(self) -> dict[str, list[str]]:
        """The backbones of each family: your own default first, then sslrob's, then those of plugins, then all others by name."""
        ranks = {OWN: 0, FIRST_PARTY: 1}

        def order(name: str) -> tuple[bool, int, str]:
            default = self.backbones[name].default
            return not default, ranks.get(self.collection("backbone", name), len(ranks)) if default else 0, name

        found: dict[str, list[str]] = {}
        for name in sorted(self.backbones, key=order):
            family = self.backbones[name].family
            if family is not None:
                found.setdefault(family, []).append(name)
        return found

    def members(self, word: str, dataset: str | None = None) -> list[str]:
        """The backbones that a word means: the one of this name, else those of this family, the default first.

        On a data set, the members of its own collection are meant alone, where there are any: `swav` is another net on the embedded
        data than on ImageNet, whatever else has a head there.

        Raises:
            SslrobError: neither a backbone nor a family; suggests close names.
        """
        if word in self.backbones:
            return [word]
        families = self.families()
        if word not in families:
            raise unknown("backbone", word, {*self.backbones, *families}, broken=self.complaints())
        if dataset is None:
            return families[word]
        home = self.collection("dataset", dataset)
        return [name for name in families[word] if self.collection("backbone", name) == home] or families[word]

    def complaints(self) -> list[str]:
        """A phrase for each plugin that did not load, and for each zoo file that was left out."""
        return [*self.absent, *(f"{file} ({reason})" for file, reason in self.broken.items())]


FIRST_PARTY, OWN = "sslrob", "own"
KINDS = ("backbone", "dataset", "head", "victim", "recipe", "attack", "defense", "study")


def section(kind: str) -> str:
    """What the entries of a kind stand under in a zoo file: "backbones" for "backbone"."""
    return "studies" if kind == "study" else f"{kind}s"


def schema() -> dict[str, Any]:
    """JSON Schema of a zoo file, for editors and `sslrob zoo schema`."""
    return ZooFile.model_json_schema()
