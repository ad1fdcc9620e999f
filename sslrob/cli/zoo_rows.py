"""What `sslrob zoo list` shows of each entry, a row each, and the notes below the table of backbones.  Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sslrob.license import FLAG, flagged
from sslrob.table import table

if TYPE_CHECKING:
    from sslrob.zoo import Backbone, Head, Weights, Zoo

HEADERS: dict[str, Sequence[str]] = {
    "backbone": ("backbone", "method", "network", "epochs", "batch", "reported", "k-NN", "linear", "license", "size", "heads"),
    "dataset": ("dataset", "task", "images", "classes", "threat model", "description"),
    "head": ("head", "backbone", "dataset", "kind", "trained", "clean"),
    "victim": ("victim", "task", "reference", "license"),
    "recipe": ("recipe", "task", "kind", "trained", "schedule", "description"),
    "attack": ("attack", "use", "objective", "settings", "restarts", "description"),
    "defense": ("defense", "use", "attack", "settings", "description"),
    "study": ("study", "backbones", "data sets", "attacks", "description"),
}
BARE = ("model", "depth")  # settings that tell a network without being named
SILENT = ("mean", "std", "arguments", "readout", "positions")  # settings that do not tell one network from another
LICENSE = HEADERS["backbone"].index("license")
PROTOCOLS = ("linear", "knn", "frozen", "finetuned")  # in this order heads are told
TOO = "*"  # behind a kind of head: on a finetuned backbone too
ABSENT = "not here"  # behind how a head was trained
HARDENED = " + "  # between a method and the defense that came after it


def listed(kind: str, found: Mapping[str, Any], zoo: Zoo, *, families: bool = True) -> str:
    """A table of entries of one kind, by name, and what has to be said about it.

    Args:
        families: say what each family's word means among the backbones.
    """
    if not found:
        return f"no {HEADERS[kind][0]}s" if kind != "study" else "no studies"
    rows = [ROWS[kind](name, record, zoo) for name, record in sorted(found.items())]
    if kind == "head" and any(record.untrained for record in found.values()):
        return f"{table(HEADERS[kind], rows)}\n{ABSENT}: recorded, not shipped; `sslrob zoo show HEAD` says which command trains it"
    if kind != "backbone":
        return table(HEADERS[kind], rows)
    licenses = {record.license for record in found.values()}
    shared = [f"license: {flagged(record)}" for record in licenses] if len(licenses) == 1 else []  # a note is enough
    if shared:
        rows = [[*row[:LICENSE], "", *row[LICENSE + 1 :]] for row in rows]
    return "\n".join([table(HEADERS[kind], rows), *shared, *_notes(found, zoo, families)])


def task_of(record: Any) -> str:
    """The bare name of a record's task."""
    return str(record.task).rpartition("/")[2]


def tasks_of(backbone: str, zoo: Zoo) -> list[str]:
    """The tasks that a backbone has heads for."""
    return sorted({task_of(zoo.datasets[head.dataset]) for head in heads_of(backbone, zoo).values()})


def heads_of(backbone: str, zoo: Zoo) -> dict[str, Head]:
    """The heads of a backbone that are here, by name."""
    return {name: head for name, head in zoo.heads.items() if head.backbone == backbone}


def method_of(record: Backbone, zoo: Zoo) -> str:
    """How a backbone was pretrained, and by what it was hardened then, such as `SwAV + mi-at`."""
    hardening = record.hardening
    if hardening is None:
        return record.pretraining.method if record.pretraining else ""
    natural = zoo.backbones.get(hardening.backbone)
    made = record.pretraining or (natural.pretraining if natural else None)
    return f"{made.method if made else hardening.backbone}{HARDENED}{hardening.defense}"


def _backbone(name: str, record: Backbone, zoo: Zoo) -> Sequence[str]:
    natural = zoo.backbones.get(record.hardening.backbone) if record.hardening else None
    made = record.pretraining or (natural.pretraining if natural else None)
    heads = heads_of(name, zoo)
    return (
        name,
        method_of(record, zoo),
        network(record),
        _amount(made.epochs) if made else "",
        _amount(made.batch_size) if made else "",
        f"{record.reported['top1']:.1f}" if "top1" in record.reported else "",
        *(_top1(heads, protocol, zoo) for protocol in ("knn", "linear")),
        flagged(record.license),
        _size(record.weights),
        _kinds(heads, zoo),
    )


def network(record: Backbone) -> str:
    """The architecture, and what of it is set: its name, depth and lists, such as widths, without theirs."""
    told = [
        _short(value) if isinstance(value, list) or key in BARE else f"{key}={_short(value)}"
        for key, value in record.settings.items()
        if key not in SILENT
    ]
    return " ".join([record.use.rpartition("/")[2], *told])


def _top1(heads: Mapping[str, Head], protocol: str, zoo: Zoo) -> str:
    """The recorded accuracy of the head of a protocol on the usual classification data: the first choice, where there are several."""
    fitting = [
        head
        for head in heads.values()
        if head.protocol == protocol and "top1" in head.clean and zoo.datasets[head.dataset].default and _classifies(head, zoo)
    ]
    return f"{max(fitting, key=lambda head: head.default).clean['top1']:.1f}" if fitting else ""


def _classifies(head: Head, zoo: Zoo) -> bool:
    return task_of(zoo.datasets[head.dataset]) == "classification"


def _kinds(heads: Mapping[str, Head], zoo: Zoo) -> str:
    """The kinds of head on the usual data sets, `*` where there is one on the finetuned backbone too; then those on each other data set."""
    groups: dict[str, dict[str, bool]] = {}

    def order(head: Head) -> tuple[bool, str, int]:
        return not zoo.datasets[head.dataset].default, task_of(zoo.datasets[head.dataset]), PROTOCOLS.index(head.protocol)

    for head in sorted(heads.values(), key=order):
        where = "" if zoo.datasets[head.dataset].default else head.dataset
        kinds = groups.setdefault(where, {})
        kinds[head.kind] = kinds.get(head.kind, False) or head.protocol == "finetuned"
    told = [
        (f"{where}: " if where else "") + " ".join(f"{kind}{TOO * finetuned}" for kind, finetuned in kinds.items())
        for where, kinds in groups.items()
    ]
    return "; ".join(told)


def _size(weights: Weights | None) -> str:
    """Of the file of weights, in megabytes; empty for random weights, and for a file that is not on this machine."""
    if weights is None:
        return ""
    if weights.file is None:
        return "remote"
    return f"{weights.file.stat().st_size / 1e6:.1f} MB" if weights.file.is_file() else ""


def _notes(found: Mapping[str, Backbone], zoo: Zoo, families: bool) -> Iterator[str]:
    """What the columns mean that does not explain itself."""
    if any(TOO in _kinds(heads_of(name, zoo), zoo) for name in found):
        yield f"heads: {TOO} on the finetuned backbone too"
    hardened = [f"{name} from {record.hardening.backbone}" for name, record in sorted(found.items()) if record.hardening]
    if hardened:
        yield f"hardened: {', '.join(hardened)}"
    if any(FLAG in flagged(record.license) for record in found.values()):
        yield f"license: {FLAG} not for commercial use"
    meant: dict[str, list[str]] = {}
    for family in sorted({record.family for record in found.values() if record.family} if families else ()):
        for home, member in meaning(family, zoo).items():
            if member in found:
                meant.setdefault(home, []).append(f"{family} = {member}")
    if meant:
        told = [(f"on the data sets of {home}: " if home else "") + ", ".join(words) for home, words in sorted(meant.items())]
        yield f"families mean: {'; '.join(told)}"


def meaning(family: str, zoo: Zoo) -> dict[str, str]:
    """The member that a family's word means in the whole zoo, under no name, and under a collection's another that it means on its data."""
    first = zoo.families()[family][0]
    homes = {zoo.collection("dataset", name): name for name in zoo.datasets}
    others = {home: zoo.members(family, example)[0] for home, example in homes.items()}
    return {"": first, **{home: member for home, member in others.items() if member != first}}


def _dataset(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    task = f"{record.task}{' (default)' if record.default else ''}"
    return (name, task, _amount(record.images), str(len(record.classes) or ""), record.threat_model, record.description)


def head_row(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    """A head's cells."""
    del zoo
    told = [f"{metric} {value:.1f}" for metric, value in record.clean.items()]
    told += [f"{metric} {value:.1f} (published)" for metric, value in record.published.items()]
    trained = f"{record.protocol}, {ABSENT}" if record.untrained else record.protocol
    return (name, record.backbone, record.dataset, record.kind, trained, ", ".join(told))


def _victim(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    return (name, record.task, record.reference, record.license)


def _recipe(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    trained = f"{record.protocol}{' (default)' if record.default else ''}"
    return (name, record.task, record.kind, trained, _settings(record.schedule), record.description)


def _attack(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    restarts = str(record.restarts) if record.restarts > 1 else ""
    return (name, record.use, record.objective, _settings(record.settings), restarts, record.description)


def _defense(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    return (name, record.use, record.attack, _settings(record.settings), record.description)


def _study(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    return (name, str(len(record.backbones)), ", ".join(record.datasets), ", ".join(record.attacks), record.description)


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}".removesuffix(".0")


def _settings(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


ROWS: dict[str, Callable[[str, Any, Zoo], Sequence[str]]] = {
    "backbone": _backbone,
    "dataset": _dataset,
    "head": head_row,
    "victim": _victim,
    "recipe": _recipe,
    "attack": _attack,
    "defense": _defense,
    "study": _study,
}
