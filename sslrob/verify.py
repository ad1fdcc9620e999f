"""Whether the zoo's entries are what they say: weights there, unchanged, and fitting; data readable; clean metrics as recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from sslrob import references
from sslrob.choice import require_same
from sslrob.errors import SslrobError, Unreadable
from sslrob.fetching import there, unpinning
from sslrob.plugins import Plugins
from sslrob.records import unset
from sslrob.resolve import summed
from sslrob.runs import telling_of_the_disk
from sslrob.weights import cache, fetch
from sslrob.zoo import FIRST_PARTY, OWN, Backbone, Head, Weights, Zoo

if TYPE_CHECKING:
    from sslrob.data import Dataset
    from sslrob.task import Row, Task, Victim

KINDS = ("backbone", "head", "dataset")
BATCH = 32  # images


class Measured:
    """Clean metrics that were measured on this machine, by all that can change them; kept in the cache, so that a long look goes on.

    Args:
        fresh: know nothing of earlier looks.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self.path = cache().parent / "clean.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() and not fresh else []
        self.known = dict(row for line in lines if (row := _row(line)))

    def get(self, key: str) -> dict[str, float] | None:
        """The metrics, in percent; None if they were not measured."""
        return self.known.get(key)

    def keep(self, key: str, metrics: dict[str, float]) -> None:
        """Remember metrics, in one write: what is torn by a kill is as if it had not been measured."""
        self.known[key] = metrics
        with telling_of_the_disk(self.path.parent, "set SSLROB_CACHE to another folder"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps([key, metrics])}\n")


def _row(line: str) -> tuple[str, dict[str, float]] | None:
    """Key and metrics of a line; None for an empty or torn one."""
    try:
        key, metrics = json.loads(line)
    except ValueError:
        return None
    return key, metrics


class Finding(NamedTuple):
    """What came out for one entry.

    Attributes:
        found: what was seen, where all is well.
        problem: what is wrong; empty if nothing is.
    """

    kind: str
    name: str
    found: str
    problem: str = ""
    hint: str = ""


def entries(names: Sequence[str], zoo: Zoo) -> list[tuple[str, str]]:
    """Kind and name of what to verify: the entries of these names, and the heads of the backbones among them; everything for none.

    Raises:
        SslrobError: a name that no backbone, family, head or dataset has.
    """
    if not names:
        return [(kind, name) for kind in KINDS for name in zoo.of(kind)]
    found: list[tuple[str, str]] = []
    for name in names:
        exact = [(kind, name) for kind in KINDS if name in zoo.of(kind)]
        members = [] if exact and exact[0][0] != "backbone" else zoo.members(name)
        heads = [("head", head) for head, record in zoo.heads.items() if record.backbone in members]
        found += exact or [("backbone", member) for member in members]
        found += heads
    return list(dict.fromkeys(found))


def absent(kind: str, name: str, zoo: Zoo) -> bool:
    """Whether an entry, or what it stands on, is not on this machine and nobody promised that it is: it was not downloaded."""
    if kind == "dataset":
        path = zoo.datasets[name].path
        return bool(unset(path)) or (zoo.collection(kind, name) == FIRST_PARTY and not path.exists())
    record = zoo.of(kind)[name]
    elsewhere = record.weights is not None and (record.weights.file is None or bool(unset(record.weights.file)))
    if elsewhere and there(record.weights) is None:
        return True
    return kind == "head" and record.backbone in zoo.backbones and absent("backbone", record.backbone, zoo)


def verify(kind: str, name: str, zoo: Zoo, plugins: Plugins, *, measured: Measured | None = None, device: str = "cpu") -> Finding:
    """Look at one entry.

    Args:
        measured: where to look up, or else keep, a head's clean metrics on the whole split; None: do not measure them.
        device: where to measure.
    """
    try:
        problem = ""
        if kind == "backbone":
            found = _backbone(name, zoo, plugins)
        elif kind == "dataset":
            found = _dataset(name, zoo, plugins)
        else:
            found, problem = _head(name, zoo, plugins, measured, device)
        return Finding(kind, name, found, problem)
    except SslrobError as error:
        return Finding(kind, name, "", str(error), _remedy(error, kind, name, zoo))


def _remedy(error: SslrobError, kind: str, name: str, zoo: Zoo) -> str:
    """What to do; of weights that are missing or broken, where they are and where they came from."""
    records = [zoo.of(kind).get(name)] + ([zoo.backbones.get(zoo.heads[name].backbone)] if kind == "head" else [])
    for weights in (record.weights for record in records if record is not None and kind != "dataset"):
        if weights is None:
            continue
        if weights.file is not None and not unset(weights.file) and not weights.file.is_file() and repr(str(weights.file)) in str(error):
            by = zoo.collection(kind, name)
            again = f"or reinstall {by}" if by not in (OWN, FIRST_PARTY) else f"or correct its path in {zoo.origin(kind, name)}"
            return f"put the file there again, {again}"
        if isinstance(error, Unreadable) and weights.sha256 == "unknown" and (file := there(weights)) and str(file) in str(error):
            return unpinning(weights, file)
    return error.hint


def _backbone(name: str, zoo: Zoo, plugins: Plugins) -> str:
    from sslrob import assemble

    record = zoo.backbones[name]
    built = assemble.backbone(record, name=name, plugins=plugins)
    n = sum(parameter.numel() for parameter in built.parameters())
    if record.parameters is not None and record.parameters != n:
        raise SslrobError(f"it has {n:,} parameters, {record.parameters:,} in the zoo", hint=f"correct backbones.{name}.parameters")
    return f"{n:,} parameters, {_sure(record.weights)}"


def _sure(weights: Weights | None) -> str:
    """How sure it is that the weights are what they were."""
    if weights is None:
        return "random"
    known = {None: "weights without sha256", "unknown": "weights as they were when they were pinned"}
    return known.get(weights.sha256, "weights unchanged")


def _dataset(name: str, zoo: Zoo, plugins: Plugins) -> str:
    from sslrob import assemble

    record = zoo.datasets[name]
    data = assemble.dataset(record, assemble.task(record.task, plugins))
    if record.images is not None and record.images != len(data):
        raise SslrobError(f"it has {len(data)} images, {record.images} in the zoo", hint="restore the data, or correct the zoo")
    return f"{len(data)} images"


def _head(name: str, zoo: Zoo, plugins: Plugins, measured: Measured | None, device: str) -> tuple[str, str]:
    """What was found, and what is wrong with the metrics."""
    from sslrob import assemble, trust
    from sslrob.execute import chosen_devices

    record = zoo.heads[name]
    dataset = zoo.datasets[record.dataset]
    task = assemble.task(dataset.task, plugins)
    backbone, key = record.reads(references.backbone(zoo, plugins, record.backbone)), ""
    require_same(name, zoo, summed(backbone.weights))
    if absent("dataset", record.dataset, zoo):
        return _fits(name, record, backbone, task, plugins), ""
    data = assemble.dataset(dataset, task)
    classes = dataset.classes or tuple(getattr(data, "classes", ()))
    if measured is not None:
        key = _key(
            record, backbone, plugins, data, assemble.fit_split(dataset, task, classes) if record.protocol == "knn" else None, device
        )
    metrics = measured.get(key) if measured is not None else None
    earlier = ", as measured before" if metrics is not None else ""
    if metrics is None:
        body = assemble.backbone(backbone, name=record.backbone, plugins=plugins)
        victim = assemble.victim(record, body, task, classes=classes, name=name, dataset=dataset, device=chosen_devices(device)[0])
        if measured is None:
            return f"fits {record.backbone}", ""
        metrics = task.aggregate(clean_rows(task, victim, data))
        measured.keep(key, metrics)
    else:
        for weights in (backbone.weights, record.weights):
            if weights is not None:
                fetch(weights)  # the files may have changed since
    whose = {metric: f"published {value:.2f}" for metric, value in record.published.items()}
    whose |= {metric: f"zoo {value:.2f}" for metric, value in record.clean.items()}
    told = ", ".join(f"{metric} {metrics[metric]:.2f} ({known})" for metric, known in whose.items() if metric in metrics)
    problems = [flag.evidence for flag in trust.clean_metric_off(record.clean, metrics, record.published)]
    problems += [f"{metric!r} is in the zoo, but no metric of the task" for metric in whose if metric not in metrics]
    return (told or "no clean metric in the zoo") + earlier, "; ".join(problems)


def _fits(name: str, head: Head, backbone: Backbone, task: Task, plugins: Plugins) -> str:
    """That a linear head fits its backbone, told without the data set: its own rows are the classes.

    Raises:
        SslrobError: it does not fit, or is of another kind, which needs the data.
    """
    from sslrob import assemble
    from sslrob.weights import read

    if head.weights is None or head.kind != "linear" or head.protocol == "finetuned":
        raise SslrobError(f"dataset {head.dataset!r} is not here, which head {name!r} needs", hint=f"sslrob zoo show {head.dataset}")
    rows = len(read(head.weights, "head").get("head.weight", ()))
    body = assemble.backbone(backbone, name=head.backbone, plugins=plugins)
    assemble.victim(head, body, task, classes=tuple(map(str, range(rows))), name=name)
    return f"fits {head.backbone}, {rows:,} classes; {head.dataset} is not here to measure on"


def _key(head: Head, backbone: Backbone, plugins: Plugins, data: Dataset, fit: Dataset | None, device: str) -> str:
    """Changes with whatever changes a head's clean metrics: weights, settings, images, code, and the kind of device."""
    parts = {
        "backbone": {**backbone.model_dump(mode="json", include={"use", "settings", "seed"}), "weights": _sum(backbone.weights)},
        "head": {**head.model_dump(mode="json", include={"kind", "protocol", "settings"}), "weights": _sum(head.weights)},
        "images": [data.fingerprint, fit.fingerprint if fit is not None else ""],
        "code": [version("sslrob"), version("torch"), *sorted(plugins.origins)],
        "device": device,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _sum(weights: Weights | None) -> str | None:
    found = summed(weights)
    return found.sha256 if found is not None else None


def clean_rows(task: Task, victim: Victim, data: Dataset) -> list[Row]:
    """What each image of a data set contributes to the metrics, without an attack."""
    from sslrob.data import batches
    from sslrob.evaluate import at_rest, judge

    device, rows = next(victim.parameters()).device, []
    with at_rest(victim):
        for batch in batches(data, BATCH):
            predictions = judge(victim, batch.to(device).images, batch.targets).predictions
            rows += [task.measure(p, t) for p, t in zip(predictions, batch.targets, strict=True)]
    return rows
