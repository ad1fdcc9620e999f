"""What a word that names no single thing means: the default of a family, a task or a backbone's heads, or an error that says the choice."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sslrob import own
from sslrob import zoo as records
from sslrob.errors import SslrobError, unknown
from sslrob.pins import UNKNOWN
from sslrob.plugins import Component
from sslrob.zoo import Zoo

PLAINEST: tuple[records.Protocol, ...] = ("linear", "frozen", "finetuned", "knn")  # first: what a head means where none is the default


SHOWN = 6  # names that an error offers


class Choice(NamedTuple):
    backbone: str
    head: str


def choose(word: str, dataset: str, head: str | None, zoo: Zoo) -> Choice:
    """The member of a family and its head on a dataset: the default one, else that of the plainest protocol.

    Members of the data set's own collection come before all others; see `Zoo.members`.

    Args:
        word: backbone or family.
        head: id or kind; None: any.
    """
    members, usual = zoo.members(word), zoo.members(word, dataset)
    there = {name: record for name, record in zoo.heads.items() if record.dataset == dataset and record.backbone in members}
    if not there:
        raise _no_head(word, usual, dataset, zoo)
    wanted = {name: record for name, record in there.items() if head in (None, name, record.kind)}
    if not wanted:
        _require_trained(str(head), members, dataset, zoo)
        raise _unknown_head(word, str(head), members, dataset, zoo)
    able = [member for member in members if any(record.backbone == member for record in wanted.values())]
    candidates = [member for member in able if member in usual] or able
    backbone = one("backbone", candidates, zoo, f"members of family {word!r} have such a head on {dataset!r}")
    own = [name for name, record in wanted.items() if record.backbone == backbone]
    if not any(zoo.heads[name].default for name in own):
        plainest = min((zoo.heads[name].protocol for name in own), key=PLAINEST.index)
        own = [name for name in own if zoo.heads[name].protocol == plainest]
    return Choice(backbone, one("head", own, zoo, f"heads of backbone {backbone!r} on {dataset!r} are meant"))


def require_same(name: str, zoo: Zoo, weights: records.Weights | None) -> None:
    """Raise an SslrobError if a head was trained on another file than these weights of its backbone, whose sha256 was asked for."""
    head: records.Head = zoo.get("head", name)
    if head.backbone_sha256 in (None, there := weights.sha256 if weights is not None else "") or there == UNKNOWN:
        return
    origin = zoo.origins.get(("heads", name))
    elsewhere = origin is not None and origin.name == own.FILE and own.home() not in origin.parents
    out = f" --out {shlex.quote(str(origin.parent))}" if origin is not None and elsewhere else ""
    raise SslrobError(
        f"head {name!r} was trained on another file than {str(weights.file if weights and weights.file else head.backbone)!r}",
        hint=f"train it anew: {head.recipe}{out}" if head.recipe else "restore the file it was trained on, or train a head: sslrob train",
    )


def member(word: str, dataset: str, zoo: Zoo) -> str:
    """The backbone that a word means where a head is to be trained on a data set, or the backbone itself hardened on it."""
    return one("backbone", zoo.members(word, dataset), zoo, f"backbones are of family {word!r}")


def surrogate(word: str, dataset: str, zoo: Zoo) -> Choice:
    """Whom the attack sees instead of the victim: a head on its data set, or the usual one of a backbone or a family.

    Raises:
        SslrobError: there is none on this data set, or the choice is left open.
    """
    if word in zoo.recorded("head") and word not in zoo.backbones:
        head = zoo.get("head", word)
        if head.dataset != dataset:
            there = sorted(name for name, record in zoo.heads.items() if (record.backbone, record.dataset) == (head.backbone, dataset))
            hint = f"add --surrogate {' or '.join(there)}" if there else f"choose a backbone with a head on {dataset!r}: sslrob zoo list"
            raise SslrobError(f"surrogate {word!r} is a head on dataset {head.dataset!r}, not {dataset!r}", hint=hint)
        return Choice(head.backbone, word)
    if word not in (known := {*zoo.backbones, *zoo.families()}):
        heads = {name for name, record in zoo.recorded("head").items() if record.dataset == dataset}
        raise unknown("surrogate", word, known | heads, broken=zoo.complaints())
    try:
        return choose(word, dataset, None, zoo)
    except SslrobError as error:
        error.hint = re.sub("^add --(backbone|head) ", "add --surrogate ", error.hint)
        error.note = f"{error.note}; --surrogate {word} asked for it" if error.note else f"--surrogate {word} asked for it"
        raise


def _require_trained(head: str, members: Sequence[str], dataset: str, zoo: Zoo) -> None:
    """Raises:
    SslrobError: the head, by id or kind, is recorded for these backbones, but nobody has trained it here.
    """
    for name, record in zoo.untrained.items():
        if record.dataset == dataset and record.backbone in members and head in (name, record.kind):
            zoo.get("head", name)


def _unknown_head(word: str, head: str, members: Sequence[str], dataset: str, zoo: Zoo) -> SslrobError:
    """Where a recipe makes heads of this kind, its command is the hint."""
    there = {name: record for name, record in zoo.recorded("head").items() if record.dataset == dataset and record.backbone in members}
    error = unknown(f"head of {word!r} on {dataset!r}", head, {*there, *(record.kind for record in there.values())})
    if fitting := [name for name in _fitting(dataset, zoo) if zoo.recipes[name].kind == head]:
        error.hint = f"train one: {_training(fitting, members[0], dataset, zoo)}"
    return error


def _fitting(dataset: str, zoo: Zoo) -> list[str]:
    """The recipes that make heads on a data set."""
    data = zoo.datasets[dataset]
    return [name for name, recipe in zoo.recipes.items() if recipe.task == data.task and data.fit is not None]


def _training(recipes: Sequence[str], backbone: str, dataset: str, zoo: Zoo) -> str:
    """The command of the usual one of some recipes."""
    recipe = min(recipes, key=lambda name: (not zoo.recipes[name].default, PLAINEST.index(zoo.recipes[name].protocol)))
    return f"sslrob train --backbone {shlex.quote(backbone)}{trusted(backbone)} --recipe {recipe}" + (
        "" if zoo.datasets[dataset].default else f" --dataset {dataset}"
    )


def trusted(backbone: str) -> str:
    """` --trust-code` behind a reference in a command that is told, where this command was given it; else empty."""
    return " --trust-code" if ":" in backbone and os.environ.get("SSLROB_TRUST_CODE", "0") not in ("", "0") else ""


def one(kind: str, names: list[str], zoo: Zoo, situation: str) -> str:
    """The only name, or the default.

    Args:
        situation: what follows their number in the error, where several are left and none is the default.
    """
    defaults = [name for name in names if zoo.of(kind)[name].default]
    if len(names) > 1 and not defaults:
        raise SslrobError(f"{len(names)} {situation}, and none is the default", hint=f"add --{kind} {' or '.join(sorted(names))}")
    return (defaults or names)[0]


def _no_head(word: str, members: Sequence[str], dataset: str, zoo: Zoo) -> SslrobError:
    backbones = sorted({record.backbone for record in zoo.heads.values() if record.dataset == dataset})
    datasets = sorted({record.dataset for record in zoo.heads.values() if record.backbone in members})
    alike = {zoo.backbones[member].family for member in members if member in zoo.backbones} - {None}
    backbones.sort(key=lambda name: name not in zoo.backbones or zoo.backbones[name].family not in alike)
    offers = [f"--backbone {_either(backbones)}"] if backbones else []
    offers += [f"--dataset {' or '.join(datasets)}"] if datasets else []
    others = f"choose {', or '.join(offers)}" if offers else "train one and add it to your zoo file, under heads"
    error = SslrobError(f"no head of backbone {word!r} on dataset {dataset!r} is in the zoo", hint=others)
    if fitting := _fitting(dataset, zoo):
        error.hint, error.note = f"train one: {_training(fitting, members[0], dataset, zoo)}", f"or {others}" if offers else ""
    else:
        scripts = sorted({record.recipe for record in zoo.heads.values() if record.recipe and record.dataset == dataset})
        error.note = f"heads on {dataset!r} are trained by: {'; '.join(scripts)}" if scripts else ""
    return error


def _either(names: Sequence[str]) -> str:
    """The names as a choice; only the first where there are many."""
    return " or ".join(names[:SHOWN]) + (f" or one of {len(names) - SHOWN} others (sslrob zoo list heads)" if len(names) > SHOWN else "")


def usual_dataset(task: Component, zoo: Zoo) -> str:
    """What the task alone means.

    Raises:
        SslrobError: it has no data set, or several and no default.
    """
    datasets = for_task(task, zoo.datasets)
    if not datasets:
        raise SslrobError(f"no dataset in the zoo is for task {task.name!r}", hint="add one to your zoo file, or install a plugin with one")
    defaults = [name for name in datasets if zoo.datasets[name].default]
    if not defaults and len(datasets) > 1:
        raise SslrobError(f"task {task.name!r} has {len(datasets)} datasets and no default", hint=f"add --dataset {' or '.join(datasets)}")
    return (defaults or datasets)[0]


def for_task(task: Component, entries: Mapping[str, records.Dataset | records.Recipe]) -> list[str]:
    """The names of those data sets, or recipes, that are for a task, sorted."""
    names = {task.name, f"{task.distribution}/{task.name}"}
    return sorted(name for name, record in entries.items() if record.task in names)
