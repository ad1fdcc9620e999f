"""A study's record → its cells, each an ordinary evaluation in an ordinary run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sslrob import recipes
from sslrob.errors import SslrobError, unknown
from sslrob.plugins import Plugins
from sslrob.resolve import Words, resolve
from sslrob.runs import Run
from sslrob.spec import Spec
from sslrob.zoo import Study, Zoo

KEYS = ("dataset", "recipe", "backbone", "attack")
State = Literal["done", "open", "headless"]


@dataclass(frozen=True)
class HeadKey:
    """A head that a study needs: a backbone's, by a recipe, on a data set."""

    backbone: str
    recipe: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.backbone} · {self.dataset} · {self.recipe}"


@dataclass(frozen=True)
class Cell:
    """One question of a study.

    Attributes:
        limit: how many images it asks for; None: all.
    """

    head: HeadKey
    attack: str
    threat_model: str
    limit: int | None
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.head} · {self.attack} · {self.threat_model}"

    def words(self, head: str) -> Words:
        """What `sslrob eval` would be asked.

        Args:
            head: its name in the zoo.
        """
        norm, _, epsilon = self.threat_model.partition(":")
        key = self.head
        return Words(attack=self.attack, backbone=key.backbone, dataset=key.dataset, head=head, norm=norm, epsilon=epsilon, seed=self.seed)


@dataclass(frozen=True)
class Placed:
    """A cell, where its run lies, and how far it is.

    Attributes:
        state: "headless": its head has to be trained before anything else can be said.
        images: how many are there, and
        total: how many are wanted; None where the zoo does not say how many there are.
    """

    cell: Cell
    state: State
    spec: Spec | None = None
    folder: Path | None = None
    images: int = 0
    total: int | None = None


def cells(study: Study, *, limit: int | None = None) -> list[Cell]:
    """All cells of a study, each once, in the order of their runs: data set by data set, victim by victim.

    Args:
        limit: images of each run, instead of what the record says.
    """
    found: dict[Cell, None] = {}
    compared = dict.fromkeys([*study.backbones, *study.hardened, *study.hardened.values()])
    varied = dict.fromkeys(backbone for variants in study.factors.values() for backbone in variants)
    for dataset, asked in study.datasets.items():
        keys = [HeadKey(backbone, recipe, dataset) for recipe in asked.recipes for backbone in compared]
        keys += [HeadKey(backbone, recipe, dataset) for recipe in asked.factor_recipes for backbone in varied]
        for key in keys:
            for attack in study.attacks:
                for threat_model in asked.epsilons:
                    found[Cell(key, attack, threat_model, limit or asked.limit, study.seed)] = None
    return list(found)


@dataclass(frozen=True)
class Only:
    """A part of a grid: for each key that is given, the values that are wanted."""

    wanted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str], among: Sequence[Cell]) -> Only:
        """Of `key=value,key=value`; a key that is given twice means either value.

        Raises:
            SslrobError: a word that is no such pair, or a value that no cell has.
        """
        wanted: dict[str, set[str]] = {}
        for pair in (pair for text in texts for pair in text.split(",") if pair):
            key, equals, value = pair.partition("=")
            if not equals:
                raise SslrobError(f"--only {pair!r} is not KEY=VALUE", hint=f"write such as {KEYS[0]}={among[0].head.dataset}")
            if key not in KEYS:
                raise unknown("key of --only", key, KEYS)
            known = {_value(cell, key) for cell in among}
            if value not in known:
                raise unknown(f"{key} of this study", value, known)
            wanted.setdefault(key, set()).add(value)
        return cls({key: frozenset(values) for key, values in wanted.items()})

    def __call__(self, cell: Cell) -> bool:
        return all(_value(cell, key) in values for key, values in self.wanted.items())


def _value(cell: Cell, key: str) -> str:
    return cell.attack if key == "attack" else str(getattr(cell.head, key))


class Places:
    """Where the runs of cells lie, by one state of the zoo."""

    def __init__(self, zoo: Zoo, plugins: Plugins, runs: Path) -> None:
        self.zoo, self.plugins, self.runs = zoo, plugins, runs
        self._plans: dict[HeadKey, recipes.Plan] = {}

    def plan(self, key: HeadKey) -> recipes.Plan:
        """How a head is made.

        Raises:
            SslrobError: it cannot be.
        """
        if key not in self._plans:
            self._plans[key] = recipes.plan(self.zoo, self.plugins, key.backbone, key.recipe, key.dataset)
        return self._plans[key]

    def __call__(self, cell: Cell) -> Placed:
        """The cell's run, if its head is in the zoo.

        Raises:
            SslrobError: the cell means nothing: its attack is not for its task, a setting is wrong.
        """
        plan = self.plan(cell.head)
        total = min((n for n in (cell.limit, self.zoo.datasets[cell.head.dataset].images) if n is not None), default=None)
        if recipes.made(plan, self.zoo) is None:
            return Placed(cell, "headless", total=total)
        spec = resolve(cell.words(plan.name), self.zoo, self.plugins)
        folder = self.runs / spec.name
        images = finished_images(folder)
        return Placed(cell, "done" if total is not None and images >= total else "open", spec, folder, images, total)


def finished_images(folder: Path) -> int:
    """How many images the results of a run are of; 0 where there are none."""
    run = Run(folder)
    record = run.record() if run.record_path.exists() else {}
    return int(record.get("results", {}).get("images", 0)) if record.get("status") == "finished" else 0
