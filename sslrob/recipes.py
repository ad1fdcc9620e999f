"""What a recipe makes of a backbone and a data set: the head's name, and what it is made from.  Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sslrob import zoo as records
from sslrob.choice import for_task, trusted, usual_dataset
from sslrob.errors import SslrobError, unknown
from sslrob.pins import UNKNOWN
from sslrob.plugins import Component, Plugins
from sslrob.references import file_safe
from sslrob.resolve import summed
from sslrob.zoo import Head, Zoo


@dataclass(frozen=True)
class Plan:
    """A head that can be made.

    Attributes:
        head: its record, without weights and clean metrics.
        recipe: of the zoo, and
        record: what it says.
        usual: whether the data set is the one that its task alone means.
    """

    name: str
    head: Head
    recipe: str
    record: records.Recipe
    usual: bool

    def evaluation(self, files: Sequence[Path] = ()) -> str:
        """The command that attacks the head.

        Args:
            files: zoo files that it has to name.
        """
        data = ["--task", self.record.task.rpartition("/")[2]] if self.usual else ["--dataset", self.head.dataset]
        words = ["sslrob", "eval", "--backbone", self.head.backbone, *trusted(self.head.backbone).split()]
        words += [*data, "--head", self.name, "--attack", "pgd"]
        return shlex.join([*words, *(word for file in files for word in ("--zoo", str(file)))])


def plan(zoo: Zoo, plugins: Plugins, backbone: str, recipe: str, dataset: str | None = None) -> Plan:
    """What a zoo recipe makes of a zoo backbone, on `dataset` or else the usual one of the recipe's task.

    Raises:
        SslrobError: a name that nothing has; a recipe and a data set of two tasks; a data set without fit split.
    """
    asked: records.Recipe = zoo.get("recipe", recipe)
    task = plugins.find("task", asked.task)
    chosen = dataset or usual_dataset(task, zoo)
    data: records.Dataset = zoo.get("dataset", chosen)
    fitting = for_task(task, zoo.datasets)
    if chosen not in fitting:
        hint = f"datasets of {task.name!r}: {', '.join(fitting)}" if fitting else "choose a recipe for its task: sslrob zoo list recipes"
        raise SslrobError(f"recipe {recipe!r} is for task {task.name!r}, but dataset {chosen!r} is for {data.task!r}", hint=hint)
    if data.fit is None:
        raise SslrobError(
            f"dataset {chosen!r} has no fit split", hint="add `fit: {path: …}` to its zoo entry: a head learns from other images"
        )
    usual = data.default or len(fitting) == 1
    elsewhere = [] if usual else [chosen]
    model: records.Backbone = zoo.get("backbone", backbone)
    weights = summed(model.weights)
    head = Head(
        backbone=backbone,
        backbone_sha256=None if weights is None or weights.sha256 == UNKNOWN else weights.sha256,
        dataset=chosen,
        kind=asked.kind,
        settings=asked.settings,
        protocol=asked.protocol,
        made_from=_digest(model, weights, asked, data),
        recipe=" --dataset ".join([f"sslrob train --backbone {shlex.quote(backbone)}{trusted(backbone)} --recipe {recipe}", *elsewhere]),
    )
    return Plan("-".join([file_safe(backbone), recipe, *elsewhere]), head, recipe, asked, usual)


def usual_recipe(task: Component, protocol: str | None, zoo: Zoo) -> str:
    """The first choice among the recipes for a task and a protocol; for no protocol, of those that train the head alone.

    Raises:
        SslrobError: there is none, or there are several and no default.
    """
    if protocol is not None and protocol not in get_args(records.Protocol):
        raise unknown("protocol", protocol, get_args(records.Protocol))
    of_task = {name: zoo.recipes[name] for name in for_task(task, zoo.recipes)}
    protocols = list(dict.fromkeys(record.protocol for record in of_task.values()))
    protocol = protocol or next((usual for usual in ("linear", "frozen") if usual in protocols), "frozen")
    fitting = {name: record for name, record in of_task.items() if record.protocol == protocol}
    if not fitting:
        hint = f"its protocols are {', '.join(protocols)}" if protocols else "add one to your zoo file, under recipes"
        raise SslrobError(f"no recipe for task {task.name!r} has protocol {protocol!r}", hint=hint)
    defaults = [name for name, record in fitting.items() if record.default]
    if len(fitting) > 1 and not defaults:
        names = " or ".join(sorted(fitting))
        raise SslrobError(f"{len(fitting)} recipes for {task.name!r} are {protocol}, and none is the default", hint=f"add --recipe {names}")
    return (defaults or list(fitting))[0]


def made(plan: Plan, zoo: Zoo) -> Head | None:
    """The zoo's head of that name, unless it says that it was made from something else."""
    head = zoo.heads.get(plan.name)
    return head if head is not None and head.made_from in ("", plan.head.made_from) else None


def require_free(plan: Plan, zoo: Zoo, home: Path) -> None:
    """Raise an SslrobError if the head's name is taken by an entry of another file than `home`, which will hold it."""
    taken = zoo.origins.get(("heads", plan.name))
    if taken is not None and taken.resolve() != home.resolve():
        raise SslrobError(
            f"head {plan.name!r} is already in {str(taken)!r}, made from other weights, by another recipe or on other data",
            hint="remove it there, or give the backbone or the recipe another name",
        )


def _digest(backbone: records.Backbone, weights: records.Weights | None, recipe: records.Recipe, dataset: records.Dataset) -> str:
    """Changes with whatever changes the head; not with where files lie."""
    described: dict[str, Any] = {
        "backbone": {**backbone.model_dump(mode="json", include={"use", "settings", "seed"}), "weights": weights and weights.sha256},
        "recipe": recipe.model_dump(mode="json", include={"kind", "protocol", "settings", "schedule", "batch_size"}),
        "dataset": dataset.model_dump(mode="json", include={"task", "format", "classes", "settings"}),
        "fit": dataset.fit and dataset.fit.model_dump(mode="json", include={"settings", "images"}),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
