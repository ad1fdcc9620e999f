"""Whether the zoo's entries are what they say: weights there, unchanged, and fitting; data readable; clean metrics as recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sslrob.errors import SslrobError
from sslrob.plugins import Plugins
from sslrob.zoo import Zoo

if TYPE_CHECKING:
    from sslrob.data import Dataset
    from sslrob.task import Row, Task, Victim

KINDS = ("backbone", "head", "dataset")
BATCH = 32  # images


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


def verify(kind: str, name: str, zoo: Zoo, plugins: Plugins, *, metrics: bool = False, device: str = "cpu") -> Finding:
    """Look at one entry.

    Args:
        metrics: also measure a head's clean metrics again, on the whole split.
        device: where to measure.
    """
    try:
        problem = ""
        if kind == "backbone":
            found = _backbone(name, zoo, plugins)
        elif kind == "dataset":
            found = _dataset(name, zoo, plugins)
        else:
            found, problem = _head(name, zoo, plugins, metrics, device)
        return Finding(kind, name, found, problem)
    except SslrobError as error:
        return Finding(kind, name, "", str(error), error.hint)


def _backbone(name: str, zoo: Zoo, plugins: Plugins) -> str:
    from sslrob import assemble

    record = zoo.backbones[name]
    built = assemble.backbone(record, name=name, plugins=plugins)
    n = sum(parameter.numel() for parameter in built.parameters())
    if record.parameters is not None and record.parameters != n:
        raise SslrobError(f"it has {n:,} parameters, {record.parameters:,} in the zoo", hint=f"correct backbones.{name}.parameters")
    return f"{n:,} parameters, {'random' if record.weights is None else 'weights unchanged' if record.weights.sha256 else 'weights without sha256'}"


def _dataset(name: str, zoo: Zoo, plugins: Plugins) -> str:
    from sslrob import assemble

    record = zoo.datasets[name]
    data = assemble.dataset(record, assemble.task(record.task, plugins))
    if record.images is not None and record.images != len(data):
        raise SslrobError(f"it has {len(data)} images, {record.images} in the zoo", hint="restore the data, or correct the zoo")
    return f"{len(data)} images"


def _head(name: str, zoo: Zoo, plugins: Plugins, metrics: bool, device: str) -> tuple[str, str]:
    """What was found, and what is wrong with the metrics."""
    from sslrob import assemble, trust
    from sslrob.execute import chosen_devices

    record = zoo.heads[name]
    dataset = zoo.datasets[record.dataset]
    task = assemble.task(dataset.task, plugins)
    data = assemble.dataset(dataset, task)
    classes = dataset.classes or tuple(getattr(data, "classes", ()))
    body = assemble.backbone(zoo.backbones[record.backbone], name=record.backbone, plugins=plugins)
    victim = assemble.victim(record, body, task, classes=classes, name=name).to(chosen_devices(device)[0])
    if not metrics:
        return f"fits {record.backbone}", ""
    rows = clean_rows(task, victim, data)
    measured = task.aggregate(rows)
    off = trust.clean_metric_off(record.clean, measured)
    told = ", ".join(f"{metric} {measured[metric]:.1f} (zoo {record.clean[metric]:.1f})" for metric in record.clean if metric in measured)
    return told or "no clean metric in the zoo", "; ".join(flag.evidence for flag in off)


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


def all_of(names: Sequence[str], zoo: Zoo, plugins: Plugins, *, metrics: bool = False, device: str = "cpu") -> Iterator[Finding]:
    """Findings on `entries(names)`, one after another."""
    for kind, name in entries(names, zoo):
        yield verify(kind, name, zoo, plugins, metrics=metrics, device=device)
