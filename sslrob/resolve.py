"""From the words of a command line to a `Spec`: families, defaults, presets and settings, looked up in the zoo and the plugins."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslrob import references
from sslrob import zoo as records
from sslrob.attack import Attack
from sslrob.choice import Choice, choose, for_task, require_same, surrogate, usual_dataset
from sslrob.errors import SslrobError, close_names, unknown
from sslrob.pins import UNKNOWN, pinned
from sslrob.plugins import Component, Plugins
from sslrob.precision import PRECISIONS
from sslrob.resolve_attack import attack_spec, find, learned, radius, require_loss, require_maps
from sslrob.spec import AttackSpec, BackboneSpec, DatasetSpec, HeadSpec, Spec, SurrogateSpec, TaskSpec, VictimSpec
from sslrob.weights import fetch, sha256
from sslrob.zoo import Weights, Zoo


@dataclass(frozen=True)
class Words:
    """What was typed; None where nothing was.

    Attributes:
        backbone: a backbone or a family; or else
        victim: a whole model, by its name in the zoo or as SCHEME:REST, perhaps with
        weights: a checkpoint; for a backbone, instead of its own, or "random".
        head: id or kind of a head.
        attack: a preset, or a registered attack; None: pgd.
        settings: of the attack, each `KEY=VALUE`.
        epsilon: such as `4/255`, on the [0, 1] scale.
        norm: "linf", "l2" or "l1".
        perturbation: the file of a universal move, which says all of the attack.
        precision: "float32" or "bfloat16", of the search.
        surrogates: backbones, families or heads that the attack sees instead of the victim.
    """

    attack: str | None = None
    backbone: str | None = None
    victim: str | None = None
    weights: str | Path | None = None
    task: str | None = None
    dataset: str | None = None
    head: str | None = None
    objective: str | None = None
    settings: Sequence[str] = ()
    restarts: int | None = None
    epsilon: str | None = None
    norm: str | None = None
    seed: int = 0
    perturbation: Path | None = None
    precision: str = "float32"
    surrogates: Sequence[str] = ()


def resolve(asked: Words, zoo: Zoo, plugins: Plugins) -> Spec:
    """The one evaluation that the words mean.  Imports the classes of the task, the backbone and the attack; reads a whole victim's config.

    Raises:
        SslrobError: a name that nothing has, words that contradict each other, a choice left open, a setting that is wrong.
    """
    if (asked.backbone is None) == (asked.victim is None):
        raise SslrobError("give either a backbone or a whole victim", hint="add --backbone NAME, see: sslrob zoo list")
    if asked.victim is not None and asked.head is not None:
        raise SslrobError("a whole victim has its own head", hint="leave --head out, or compose: --backbone NAME")
    if not 0 <= asked.seed < 2**63:
        raise SslrobError(f"seed {str(asked.seed)!r} is {'negative' if asked.seed < 0 else 'too large'}", hint="use 0 or more, below 2^63")
    whole = None if asked.victim is None else _whole(asked.victim, zoo, plugins)
    task, dataset_id = _task_and_dataset(asked, whole, zoo, plugins)
    dataset = zoo.get("dataset", dataset_id)
    attack, move = (attack_spec(asked, task, zoo, plugins), None) if asked.perturbation is None else learned(asked, asked.perturbation)
    common: dict[str, Any] = {
        "task": TaskSpec(name=task.name, plugin=task.plugin, version=task.load().version),
        "dataset": _dataset(dataset_id, dataset),
        "attack": attack,
        "perturbation": move,
        "surrogates": _surrogates(asked, dataset_id, attack, task, zoo, plugins),
        "precision": _precision(asked, attack, plugins),
        "seed": asked.seed,
        "asked": asked.backbone or asked.victim,
    }
    if whole is not None and asked.victim is not None:
        within = radius(asked, whole.threat_model or dataset.threat_model, attack, move, plugins)
        return Spec(**common, victim=_victim(asked.victim, whole, asked.weights, task, plugins), threat_model=within)
    word, zoo = references.chosen(zoo, plugins, str(asked.backbone), dataset_id, asked.weights)
    choice = choose(word, dataset_id, asked.head, zoo)
    head, body = zoo.heads[choice.head], _backbone(choice, zoo, plugins)
    if move is None and not asked.surrogates:
        require_loss(attack, choice.head, head, task, typed=asked.objective is not None)
        require_maps(attack, body, plugins)
    within = radius(asked, head.threat_model or dataset.threat_model, attack, move, plugins)
    return Spec(**common, backbone=body, head=_head(choice, zoo, task, plugins), threat_model=within)


def _precision(asked: Words, attack: AttackSpec, plugins: Plugins) -> str:
    """Raises:
    SslrobError: there is none of that name, or nothing that is searched in it.
    """
    if asked.precision not in PRECISIONS:
        raise unknown("precision", asked.precision, PRECISIONS)
    if asked.precision != "float32":
        if asked.perturbation is not None or plugins.find("attack", attack.use).load().fit is not Attack.fit:
            raise SslrobError(f"a universal move is not searched in {asked.precision}", hint="leave --precision out")
        if asked.victim is not None and not asked.surrogates:
            raise SslrobError(
                f"a whole victim is not searched in {asked.precision}", hint="leave --precision out, or compose: --backbone NAME"
            )
    return asked.precision


def _whole(text: str, zoo: Zoo, plugins: Plugins) -> records.Victim:
    if text in zoo.victims or ":" not in text:
        record: records.Victim = zoo.get("victim", text)
        return record
    return references.victim(plugins, text)


def _task_and_dataset(asked: Words, whole: records.Victim | None, zoo: Zoo, plugins: Plugins) -> tuple[Component, str]:
    """The task and the dataset's id, one of which may follow from the other."""
    task = plugins.find("task", asked.task) if asked.task is not None else None
    if whole is not None:
        own = plugins.find("task", whole.task)
        if task is not None and task != own:
            raise SslrobError(f"victim {asked.victim!r} is for task {own.name!r}, not {task.name!r}", hint=f"use --task {own.name}")
        task = own
    if asked.dataset is not None:
        own = plugins.find("task", zoo.get("dataset", asked.dataset).task)
        if task is not None and task != own:
            others = for_task(task, zoo.datasets)
            hint = f"datasets of {task.name!r}: {', '.join(others)}" if others else f"use --task {own.name}"
            raise SslrobError(f"dataset {asked.dataset!r} is for task {own.name!r}, not {task.name!r}", hint=hint)
        return own, asked.dataset
    if task is None:
        offered = [c.name for c in plugins.of("task")]
        raise SslrobError("neither a task nor a dataset is given", hint=f"add --task {' or '.join(offered) or 'NAME'}")
    return task, usual_dataset(task, zoo)


def _dataset(name: str, record: records.Dataset) -> DatasetSpec:
    return DatasetSpec(
        id=name,
        format=record.format,
        path=record.path,
        split=record.split,
        images=record.images,
        classes=record.classes,
        settings=record.settings,
        fit=record.fit,
    )


def _backbone(choice: Choice, zoo: Zoo, plugins: Plugins) -> BackboneSpec:
    """The backbone as the head reads it."""
    name = choice.backbone
    record, head = zoo.backbones[name], zoo.heads[choice.head]
    settings, weights = head.reads(record).settings, summed(record.weights)
    require_same(choice.head, zoo, weights)
    component = find(plugins, "backbone", record.use, name, zoo)
    known = inspect.signature(component.load()).parameters
    for key in settings:
        if key not in known:
            close = close_names(key, known)
            giver = f"heads.{choice.head}" if key in head.body else f"backbones.{name}"
            raise SslrobError(
                f"backbone {component.name!r} of {component.plugin} has no setting {key!r}, which {giver} gives it",
                hint=f"did you mean {close[0]!r}?" if close else f"its settings are {', '.join(known) or 'none'}",
            )
    return BackboneSpec(
        id=name,
        use=record.use,
        plugin=component.plugin,
        settings=settings,
        weights=weights,
        layout=_layout(weights, plugins),
        seed=record.seed if record.weights is None else None,
        notes=record.notes,
        license=record.license,
    )


def _layout(weights: Weights | None, plugins: Plugins) -> str | None:
    """Who reads these weights: another version of plugin or layout may make other tensors of one file."""
    if weights is None or weights.layout is None:
        return None
    found = plugins.find("layout", weights.layout)
    return f"{found.plugin}, version {found.load().version}"


def _head(choice: Choice, zoo: Zoo, task: Component, plugins: Plugins) -> HeadSpec:
    name, record, kinds = choice.head, zoo.heads[choice.head], task.load().heads
    if kinds and record.kind not in kinds:
        raise SslrobError(
            f"head {name!r} is of kind {record.kind!r}, which task {task.name!r} of {task.plugin} cannot build",
            hint=f"its kinds are {', '.join(kinds)}",
        )
    return HeadSpec(
        id=name,
        kind=record.kind,
        protocol=record.protocol,
        settings=record.settings,
        weights=summed(record.weights),
        layout=_layout(record.weights, plugins),
        clean=record.clean,
        published=record.published,
        alone=sum((head.backbone, head.dataset) == (record.backbone, record.dataset) for head in zoo.heads.values()) == 1,
    )


def _surrogates(asked: Words, dataset: str, attack: AttackSpec, task: Component, zoo: Zoo, plugins: Plugins) -> tuple[SurrogateSpec, ...]:
    """Ordered by the names of their heads: their order means nothing.

    Raises:
        SslrobError: no such surrogate for this data set, one that is named twice, or an attack that could not use it.
    """
    if not asked.surrogates:
        return ()
    if asked.perturbation is not None:
        raise SslrobError("a move that was learned before sees no surrogate", hint="leave --surrogate out")
    if plugins.find("attack", attack.use).load().fit is not Attack.fit:
        hint = "learn it there, with --backbone, and judge it here: --perturbation RUN"
        raise SslrobError(f"attack {attack.id!r} learns on the backbone that it is made for, not through a surrogate", hint=hint)
    found: dict[str, SurrogateSpec] = {}
    for word in asked.surrogates:
        name, zoo = (word, zoo) if word in zoo.recorded("head") else references.chosen(zoo, plugins, word, dataset)
        choice = surrogate(name, dataset, zoo)
        if choice.head in found:
            raise SslrobError(f"surrogate {choice.head!r} is meant twice", hint=f"leave out --surrogate {word}")
        require_loss(attack, choice.head, zoo.heads[choice.head], task, typed=asked.objective is not None)
        require_maps(attack, body := _backbone(choice, zoo, plugins), plugins)
        found[choice.head] = SurrogateSpec(backbone=body, head=_head(choice, zoo, task, plugins))
    return tuple(found[head] for head in sorted(found))


def _victim(name: str, record: records.Victim, weights: str | Path | None, task: Component, plugins: Plugins) -> VictimSpec:
    source = record.weights if weights is None else Weights(file=Path(weights).expanduser().resolve())
    if source is None:
        raise SslrobError(f"victim {name!r} has no weights but random ones", hint="add its checkpoint: --weights FILE")
    return VictimSpec(
        id=name,
        reference=record.reference,
        config=hashlib.sha256(task.load().described(record.reference).encode()).hexdigest(),
        settings=record.settings,
        weights=summed(source),
        layout=_layout(source, plugins),
        classes=record.classes,
        clean=record.clean,
        notes=record.notes,
        license=record.license,
    )


_downloads = ContextVar("_downloads", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Within, a checksum that only a download could tell stays "unknown": for whatever only says what would be done."""
    before = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(before)


def known(weights: Weights | None) -> bool:
    """Whether their sha256 can be told without a download."""
    with without_downloads():
        found = summed(weights)
    return found is None or found.sha256 != UNKNOWN


def summed(weights: Weights | None) -> Weights | None:
    """With the sha256 that the spec's id counts: where the zoo gives none, the one that was pinned, or else the file's own.

    It is downloaded for that, except `without_downloads`.

    Raises:
        SslrobError: there is no such file, or it is not the one that was meant.
        RunFailed: it cannot be downloaded.
    """
    if weights is None or weights.sha256 not in (None, UNKNOWN):
        return weights
    if weights.file is not None:
        if not weights.file.is_file():
            raise SslrobError(f"no weights at {str(weights.file)!r}", hint="check the path")
        return weights.model_copy(update={"sha256": sha256(weights.file)})
    found = pinned(weights) or (sha256(fetch(weights)) if _downloads.get() else UNKNOWN)
    return weights.model_copy(update={"sha256": found})
