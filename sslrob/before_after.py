"""What hardening changed: the natural backbone and the hardened one under the same attacks, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sslrob.choice import usual_dataset
from sslrob.execute import run
from sslrob.plugins import Plugins
from sslrob.resolve import Words, resolve
from sslrob.shards import Progress
from sslrob.table import table
from sslrob.zoo import Zoo

ASKED = (("linear", "pgd"), ("knn", "knn-pgd"))  # protocols of heads, each with the attack on it; pgd where the zoo has not the second
FALLBACK = "pgd"


Interval = dict[str, Any]  # value, low, high


class Side(NamedTuple):
    """A backbone under one attack, in percent.

    Attributes:
        clean: {value, low, high} of the task's headline metric.
        defended: {value, low, high, n} defense success rate: of the n images that were right when clean, the share that still is;
            its value is None where n is 0.
        folder: of the run.
    """

    backbone: str
    clean: Interval
    defended: Interval
    folder: str


class Pair(NamedTuple):
    """One question, asked of both."""

    head: str
    attack: str
    threat_model: str
    headline: str
    images: int
    before: Side
    after: Side


def compare(
    natural: str,
    hardened: str,
    task: str,
    zoo: Zoo,
    plugins: Plugins,
    *,
    runs: Path,
    limit: int | None = None,
    device: str = "auto",
    show: Callable[[str], Progress] = lambda title: lambda done, total: None,
) -> list[Pair]:
    """A pair for each protocol, linear and k-NN, of which both backbones have a head on the task's usual data set.

    Args:
        show: what shows how far the evaluation of that title is.
    """
    pairs, dataset = [], usual_dataset(plugins.find("task", task), zoo)
    for protocol, preferred in ASKED:
        attack = preferred if preferred in zoo.attacks else FALLBACK
        heads = {backbone: _head(backbone, dataset, protocol, zoo) for backbone in (natural, hardened)}
        if None in heads.values():
            continue
        sides = []
        for backbone, head in heads.items():
            spec = resolve(Words(attack=attack, backbone=backbone, task=task, head=head), zoo, plugins)
            record = run(spec, runs=runs, limit=limit, device=device, pictures=0, progress=show(f"{head}, {attack}"))
            sides.append(_side(backbone, record))
        pairs.append(Pair(protocol, attack, spec.threat_model, record["headline"], record["results"]["images"], *sides))
    return pairs


def _head(backbone: str, dataset: str, protocol: str, zoo: Zoo) -> str | None:
    """The name of a backbone's head, the default first; None if there is none."""
    own = {n: h for n, h in zoo.heads.items() if (h.backbone, h.dataset, h.protocol) == (backbone, dataset, protocol)}
    return min(own, key=lambda name: (not own[name].default, name), default=None)


def _side(backbone: str, record: dict[str, Any]) -> Side:
    results = record["results"]
    attacked = results["attack_success_rate"]
    left = None if attacked["value"] is None else 100 - attacked["value"]
    defended = {"value": left, "low": 100 - attacked["high"], "high": 100 - attacked["low"], "n": attacked["n"]}
    return Side(backbone, results["clean"][record["headline"]], defended, record["folder"])


def as_table(pairs: Sequence[Pair]) -> str:
    """The pairs as a table, each number with its 95 % interval."""
    first = pairs[0]
    rows = []
    for pair in pairs:
        rows.append((f"{pair.head}, {pair.headline}", _told(pair.before.clean), _told(pair.after.clean)))
        rows.append((f"{pair.head}, defense success under {pair.attack}", _told(pair.before.defended), _told(pair.after.defended)))
    return table((f"{first.images:,} images, {first.threat_model}", first.before.backbone, first.after.backbone), rows)


def _told(value: Interval) -> str:
    return "no image was right" if value["value"] is None else f"{value['value']:.1f} ({value['low']:.1f} to {value['high']:.1f})"
