"""What a defense makes of a backbone: its name, its record, and what it is made from.  Nothing here imports torch by itself."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sslrob import zoo as records
from sslrob.attack import Attack
from sslrob.choice import for_task, member, trusted, usual_dataset
from sslrob.errors import SslrobError
from sslrob.plugins import Component, Plugins
from sslrob.references import chosen, file_safe
from sslrob.resolve import summed
from sslrob.resolve_attack import find, registered, require_norm, threat_model
from sslrob.settings import complete
from sslrob.zoo import Hardening, Zoo

NAME = r"[a-z0-9][a-z0-9.+_-]*"
USUAL_TASK = "classification"  # whose usual data set is hardened on


@dataclass(frozen=True)
class Words:
    """What was typed; None where nothing was.

    Attributes:
        backbone: a backbone or a family, or a reference.
        weights: "random", or a checkpoint, instead of its own.
        defense: a preset, or a registered defense.
        attack: inside the training.
        settings: of the defense, each `KEY=VALUE`.
        name: of the hardened backbone.
    """

    backbone: str
    defense: str
    attack: str | None = None
    epsilon: str | None = None
    norm: str | None = None
    dataset: str | None = None
    settings: Sequence[str] = ()
    seed: int = 0
    weights: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Plan:
    """A hardening that can be done.

    Attributes:
        name: of the hardened backbone.
        natural: the backbone that it starts from.
        hardening: the record of it.
        defense, attack: registered, with all settings in `hardening`.
        restarts: of the attack.
    """

    name: str
    natural: records.Backbone
    hardening: Hardening
    defense: Component
    attack: Component
    restarts: int

    def sentence(self) -> str:
        """What will be done, in a line."""
        made = self.hardening
        inner = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in made.attack_settings.items() if type(value) is int)
        parts = [
            f"{made.backbone} → {self.name}",
            f"{made.defense} ({made.settings['steps']} steps of {made.settings['batch_size']} images)",
            f"against {made.attack}" + (f" ({inner})" if inner else ""),
            made.threat_model,
            f"{made.dataset} (its fit split)",
        ]
        return " · ".join(parts)


def plan(asked: Words, zoo: Zoo, plugins: Plugins) -> Plan:
    """The one hardening that the words mean.  Imports the classes of the defense and the attack.

    Raises:
        SslrobError: a name that nothing has, a choice left open, a setting that is wrong, a name that is taken.
    """
    dataset = asked.dataset or usual_dataset(plugins.find("task", USUAL_TASK), zoo)
    word, zoo = chosen(zoo, plugins, asked.backbone, dataset, asked.weights)
    backbone = member(word, dataset, zoo)
    natural: records.Backbone = zoo.backbones[backbone]
    preset = zoo.defenses.get(asked.defense) or records.Defense(use=registered("defense", asked.defense, zoo, plugins), attack="pgd")
    defense = find(plugins, "defense", preset.use, asked.defense, zoo)
    data: records.Dataset = zoo.get("dataset", dataset)
    if data.fit is None:
        raise SslrobError(
            f"dataset {dataset!r} has no fit split", hint="add `fit: {path: …}` to its zoo entry: a defense learns from other images"
        )
    attacked = asked.attack or preset.attack
    inner, attack, attack_settings = _attack(attacked, zoo, plugins)
    settings = complete(defense.load(), preset.settings, asked.settings, f"defense {asked.defense!r}")
    radius = threat_model(asked.norm, asked.epsilon, preset.threat_model or data.threat_model)
    require_norm(attacked, attack.load(), radius)
    hardening = Hardening(
        backbone=backbone,
        defense=asked.defense,
        settings=settings,
        attack=attacked,
        attack_settings=attack_settings,
        threat_model=radius,
        dataset=dataset,
        seed=asked.seed,
    )
    bare = asked.defense.rpartition("/")[2]
    usual = f"{file_safe(backbone)}-{bare}"
    name = asked.name or usual
    told = {
        "made_from": _digest(natural, hardening, inner, defense, attack, data),
        "recipe": _command(asked, backbone, name, usual),
    }
    made = Plan(name, natural, hardening.model_copy(update=told), defense, attack, inner.restarts)
    _require_free(made, zoo)
    return made


def done(made: Plan, zoo: Zoo) -> bool:
    """Whether the zoo has the backbone already."""
    there = zoo.backbones.get(made.name)
    return there is not None and there.hardening is not None and there.hardening.made_from == made.hardening.made_from


def usual_recipes(zoo: Zoo, plugins: Plugins) -> list[str]:
    """The first choices among the recipes that leave the backbone as it is, for the tasks that are installed and have data."""
    tasks = [task for task in plugins.of("task") if for_task(task, zoo.datasets)]
    ready = {name for task in tasks for name in for_task(task, zoo.recipes)}
    return [name for name, recipe in zoo.recipes.items() if name in ready and recipe.default and recipe.protocol != "finetuned"]


def _attack(name: str, zoo: Zoo, plugins: Plugins) -> tuple[records.Attack, Component, dict[str, Any]]:
    preset = zoo.attacks.get(name) or records.Attack(use=registered("attack", name, zoo, plugins))
    component = find(plugins, "attack", preset.use, name, zoo)
    kind = component.load()
    if kind.tasks is not None:
        raise SslrobError(
            f"attack {name!r} is for {', '.join(sorted(kind.tasks))} alone, and hardening is no task",
            hint="choose another: sslrob attacks list",
        )
    if kind.objectives is not None or not kind.bounded:
        alone = f"is for objective {' or '.join(sorted(kind.objectives))} alone, and hardening has its own" if kind.objectives else ""
        told = alone or "keeps to no epsilon, and hardening needs one"
        raise SslrobError(f"attack {name!r} {told}", hint="choose another: sslrob attacks list")
    if kind.fit is not Attack.fit:
        raise SslrobError(
            f"attack {name!r} learns from images first, which a training cannot wait for", hint="choose another: sslrob attacks list"
        )
    return preset, component, complete(kind, preset.settings, (), f"attack {name!r}")


def _require_free(made: Plan, zoo: Zoo) -> None:
    """Raises:
    SslrobError: the name is none, or means something else already.
    """
    if made.name in zoo.backbones and not done(made, zoo):
        where = zoo.origins.get(("backbones", made.name))
        raise SslrobError(
            f"backbone {made.name!r} is already in {str(where)!r}, made otherwise",
            hint="choose another name: --name NAME, or remove its folder",
        )
    if not re.fullmatch(NAME, made.name):
        raise SslrobError(f"{made.name!r} is no name for a backbone", hint="use lower case letters, digits and . + _ -")
    if made.name in zoo.families():
        raise SslrobError(f"{made.name!r} is a family of backbones", hint="choose another name: --name NAME")


def _command(asked: Words, backbone: str, name: str, usual: str) -> str:
    words = ["sslrob harden", f"--backbone {shlex.quote(backbone)}{trusted(backbone)}", f"--defense {asked.defense}"]
    given = {"attack": asked.attack, "epsilon": asked.epsilon, "norm": asked.norm, "dataset": asked.dataset, "seed": asked.seed or None}
    words += [f"--{option} {value}" for option, value in given.items() if value is not None]
    words += [f"--set {shlex.quote(setting)}" for setting in asked.settings]
    return " ".join([*words, *([f"--name {name}"] if name != usual else [])])


def _digest(
    natural: records.Backbone, hardening: Hardening, attack: records.Attack, defense: Component, inner: Component, data: records.Dataset
) -> str:
    """Changes with whatever changes the weights; not with names, or where files lie."""
    weights = summed(natural.weights)
    described = {
        "backbone": {**natural.model_dump(mode="json", include={"use", "settings", "seed"}), "weights": weights and weights.sha256},
        "hardening": hardening.model_dump(mode="json", include={"settings", "attack_settings", "threat_model", "seed"}),
        "components": [defense.distribution, defense.name, inner.distribution, inner.name, attack.restarts],
        "dataset": data.model_dump(mode="json", include={"task", "format", "classes", "settings"}),
        "fit": data.fit and data.fit.model_dump(mode="json", include={"settings", "images"}),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
