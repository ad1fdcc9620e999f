"""What `sslrob zoo list` shows where nothing more is asked: all that needs no download, and a line for each family of published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sslrob.cli.zoo_rows import listed
from sslrob.license import FLAG, flagged
from sslrob.table import table
from sslrob.zoo import FIRST_PARTY

if TYPE_CHECKING:
    from sslrob.zoo import Backbone, Zoo

VIT = re.compile(r"(?:vit|eva02|beitv?2?)_(?P<size>[a-z0-9]+)(?P<plus>_plus)?_patch(?P<patch>\d+)")
CONVNEXT = re.compile(r"convnext_([a-z]+)")
SIZES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H", "giant": "g"}
HEADER = ("published", "checkpoints", "first choice", "epochs", "top-1", "license", "networks")
LICENSE = HEADER.index("license")
MORE = "to be downloaded; all of one: sslrob zoo show FAMILY, or sslrob zoo list --family FAMILY; all: sslrob zoo list backbones"


def overview(zoo: Zoo) -> str:
    """Three tables: the backbones that are here, the families of those elsewhere, the data sets."""
    here = {name: record for name, record in zoo.backbones.items() if _is_here(name, record, zoo)}
    elsewhere = {name: record for name, record in zoo.backbones.items() if name not in here}
    parts = [listed("backbone", here, zoo), _families(elsewhere, zoo), listed("dataset", zoo.datasets, zoo)]
    return "\n\n".join(part for part in parts if part)


def _is_here(name: str, record: Backbone, zoo: Zoo) -> bool:
    """Whether nobody has to fetch it: what sslrob itself names, somebody has."""
    return record.weights is None or (record.weights.file is not None and zoo.collection("backbone", name) != FIRST_PARTY)


def _families(found: Mapping[str, Backbone], zoo: Zoo) -> str:
    """A line for each family, one without a family standing for itself; empty for no backbones."""
    groups: dict[str, list[str]] = {}
    for family, members in zoo.families().items():
        if there := [member for member in members if member in found]:
            groups[family] = there
    groups |= {name: [name] for name, record in found.items() if record.family is None}
    if not groups:
        return ""
    rows = [_row(family, [found[name] for name in members], members[0]) for family, members in sorted(groups.items())]
    notes = [MORE, *([f"license: {FLAG} not for commercial use"] if any(FLAG in row[LICENSE] for row in rows) else [])]
    return "\n".join([table(HEADER, rows), *notes])


def _row(family: str, members: Sequence[Backbone], first: str) -> Sequence[str]:
    epochs = [record.pretraining.epochs for record in members if record.pretraining and record.pretraining.epochs]
    top1 = [record.reported["top1"] for record in members if "top1" in record.reported]
    licenses = sorted({flagged(record.license) for record in members})
    networks = dict.fromkeys(_network(record) for record in members)
    return (family, str(len(members)), first, _range(epochs, ",.0f"), _range(top1, ".1f"), ", ".join(licenses), " ".join(networks))


def _network(record: Backbone) -> str:
    """In short, such as RN50, RN50w2 or ViT-S/16; else timm's name without its tag."""
    settings: Any = record.settings
    if record.use.rpartition("/")[2] == "resnet":
        width = settings.get("width", 1)
        return f"RN{settings.get('depth', 50)}" + (f"w{width}" if width != 1 else "")
    model = str(settings.get("model", record.use)).partition(".")[0]
    if found := VIT.match(model):
        patch = settings.get("arguments", {}).get("patch_size", found["patch"])
        return f"ViT-{SIZES.get(found['size'], found['size'].upper())}{'+' * bool(found['plus'])}/{patch}"
    return f"ConvNeXt-{found[1][0].upper()}" if (found := CONVNEXT.match(model)) else re.sub("^resnet(?=[0-9])", "RN", model)


def _range(values: Sequence[float], form: str) -> str:
    """From the least to the largest; empty for none."""
    return "–".join(dict.fromkeys(format(value, form) for value in (min(values), max(values)))) if values else ""
