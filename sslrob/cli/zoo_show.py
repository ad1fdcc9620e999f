"""What `sslrob zoo show` says: all that the zoo has on an entry, and for a backbone how to get it, to use it, and what one may do with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from sslrob import license as licenses
from sslrob.cli.zoo_rows import HEADERS, head_row, heads_of, listed, meaning
from sslrob.table import aligned, table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sslrob.zoo import Backbone, Weights, Zoo


class _Dumper(yaml.SafeDumper):
    """Lists on one line."""


_Dumper.add_representer(list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True))


def described(kind: str, name: str, zoo: Zoo) -> str:
    """Everything about an entry, under a bold line with its kind, name and file."""
    record = zoo.recorded(kind)[name]
    told = told_of(record)
    for made in ("pretraining", "hardening"):
        if made in told and (last := last_logged(getattr(record, made).log)):
            told[made]["last_logged"] = last
    parts = [
        typer.style(f"{kind} {name}, in {zoo.origin(kind, name)}", bold=True),
        yaml.dump(told, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110),
    ]
    if kind == "backbone":
        heads = {head: of for head, of in zoo.recorded("head").items() if of.backbone == name}
        parts += [table(HEADERS["head"], [head_row(*item, zoo) for item in heads.items()]) if heads else "no heads", ""]
    if pairs := list(_pairs(kind, name, record, zoo)):
        parts += [aligned(pairs), ""]
    return "\n".join(parts)


def others(family: str, members: Sequence[str], zoo: Zoo) -> str:
    """The members of a family, after its first choice was described, and which of them the family's word means where."""
    found = {name: zoo.backbones[name] for name in members[1:]}
    meant = [f"{member} on the data sets of {home}" if home else member for home, member in meaning(family, zoo).items()]
    return f"{family} means {', but '.join(meant)}; its other members:\n\n{listed('backbone', found, zoo, families=False)}"


def _pairs(kind: str, name: str, record: Any, zoo: Zoo) -> Iterator[tuple[str, str]]:
    """What the record does not say in so many words."""
    if getattr(record, "weights", None) is not None:
        yield "weights", _weights(record.weights, name)
    if kind == "backbone":
        if pixels := _pixels(record):
            yield "pixels", pixels
        yield from zip(["use", *[""] * len(zoo.datasets)], _commands(name, zoo), strict=False)
    if getattr(record, "license", ""):
        yield "you may", licenses.told(record.license)
    if str(getattr(record, "paper", "")).startswith("arXiv:"):
        yield "paper", f"https://arxiv.org/abs/{record.paper.removeprefix('arXiv:')}"


def _weights(weights: Weights, name: str) -> str:
    """Whether they are here, how large they are, and how sure their checksum is."""
    from sslrob.fetching import there

    found = there(weights)
    sure = {None: "", "unknown": "; no sha256 is published, the first download's is pinned"}.get(weights.sha256, "; sha256 is checked")
    if found is not None:
        return f"here, {found.stat().st_size / 1e6:,.1f} MB, {found}{sure}"
    size = "size not published" if weights.size is None else f"{weights.size / 1e6:,.1f} MB"
    how = f"; sslrob zoo fetch {name}" if weights.file is None else f"; they belong at {weights.file}"
    return f"not here, {size}{how}{sure}"


def _pixels(record: Backbone) -> str:
    """How the backbone normalises, where its settings say it."""
    settings = record.settings
    if "mean" not in settings or "std" not in settings:
        return ""
    mean, std = (" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in (settings["mean"], settings["std"]))
    if (mean, std) == ("0", "1"):
        return "RGB in [0, 1], as they are"
    return f"RGB in [0, 1], which the backbone normalises itself: mean {mean}, std {std}"


def _commands(name: str, zoo: Zoo) -> list[str]:
    """An evaluation for each data set that there is a head on, the usual ones by their task; for no head, what trains one."""
    heads = heads_of(name, zoo)
    if not heads:
        recorded = [head.recipe for head in zoo.untrained.values() if head.backbone == name]
        return [f"train a head first: {next(iter(recorded), f'sslrob train --backbone {name} --task classification')}"]
    told = []
    for dataset in dict.fromkeys(head.dataset for head in heads.values()):
        record = zoo.datasets[dataset]
        where = f"--task {record.task.rpartition('/')[2]}" if record.default else f"--dataset {dataset}"
        told.append(f"sslrob eval --backbone {shlex.quote(name)} {where} --attack pgd")
    return told


def told_of(record: BaseModel) -> dict[str, Any]:
    """All that a record says, defaults included, but nothing that is empty, nor a seed of weights that were not drawn."""
    plain: dict[str, Any] = _full(record.model_dump(mode="json"))
    if plain.get("weights"):
        plain.pop("seed", None)
    return plain


def _full(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _full(entry) for key, entry in value.items() if entry not in (None, "", [], {})}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def last_logged(log: Path | None) -> dict[str, Any]:
    """The last line of a training's log; empty where there is none, or it is no such log."""
    if log is None or not log.is_file():
        return {}
    try:
        last = json.loads(log.read_text(encoding="utf-8").rstrip().rpartition("\n")[2])
    except ValueError:
        return {}
    return last if isinstance(last, dict) else {}
