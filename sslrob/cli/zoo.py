"""`sslrob zoo list|show|verify|schema`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslrob.cli.options import Json, Zoos
from sslrob.table import table

if TYPE_CHECKING:
    from sslrob.zoo import Zoo

app = typer.Typer(help="Backbones, data sets, heads and presets that have a name.", no_args_is_help=True, rich_markup_mode=None)
KINDS = ("backbone", "dataset", "head", "victim", "attack", "defense")
HEADERS: dict[str, Sequence[str]] = {
    "backbone": ("backbone", "family", "method", "use", "epochs", "batch", "parameters", "tasks", "license"),
    "dataset": ("dataset", "task", "images", "classes", "threat model", "license", "description"),
    "head": ("head", "backbone", "dataset", "kind", "trained", "clean"),
    "victim": ("victim", "task", "reference", "license"),
    "attack": ("attack", "use", "objective", "settings", "restarts", "description"),
    "defense": ("defense", "use", "attack", "settings", "description"),
}


def load(files: Zoos) -> Zoo:
    """The zoo; what had to be left out of it is told on stderr."""
    from sslrob import zoo_files

    zoo = zoo_files.load(files or ())
    for complaint in zoo.complaints():
        typer.echo(f"note:  left out: {complaint}", err=True)
    return zoo


@app.command("list")
def list_(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help=f"Of {', '.join(f'{k}s' for k in KINDS)}.")] = None,
    task: Annotated[str | None, typer.Option(help="Only what serves this task.")] = None,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """List backbones and data sets, or entries of other kinds."""
    from sslrob.errors import unknown

    everything = load(zoo)
    sections = [f"{kind}s" for kind in KINDS]
    for word in kinds or ():
        if word not in sections:
            raise unknown("kind of zoo entry", word, sections)
    wanted = [section.removesuffix("s") for section in kinds or ("backbones", "datasets")]
    chosen = {
        kind: {name: record for name, record in everything.of(kind).items() if serves(kind, name, task, everything)} for kind in wanted
    }
    if as_json:
        typer.echo(
            json.dumps({f"{kind}s": {name: r.model_dump(mode="json") for name, r in found.items()} for kind, found in chosen.items()})
        )
        return
    parts = [
        table(HEADERS[kind], [ROWS[kind](name, record, everything) for name, record in sorted(found.items())]) if found else f"no {kind}s"
        for kind, found in chosen.items()
    ]
    typer.echo("\n\n".join(parts))


def serves(kind: str, name: str, task: str | None, zoo: Zoo) -> bool:
    """Whether an entry has to do with a task; attacks and defenses have to do with all."""
    match kind:
        case _ if task is None:
            return True
        case "backbone":
            return task in tasks_of(name, zoo)
        case "head":
            return bool(task_of(zoo.datasets[zoo.heads[name].dataset]) == task)
        case "dataset" | "victim":
            return task_of(zoo.of(kind)[name]) == task
    return True


def task_of(record: Any) -> str:
    """The bare name of a record's task."""
    return str(record.task).rpartition("/")[2]


def tasks_of(backbone: str, zoo: Zoo) -> list[str]:
    """The tasks that a backbone has heads for."""
    return sorted({task_of(zoo.datasets[head.dataset]) for head in zoo.heads.values() if head.backbone == backbone})


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _settings(settings: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _backbone(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    made = record.pretraining
    what = (made.method, _amount(made.epochs), _amount(made.batch_size)) if made else ("", "", "")
    default = " (default)" if record.default else ""
    return (
        name,
        f"{record.family}{default}" if record.family else "",
        what[0],
        record.use,
        *what[1:],
        _amount(record.parameters),
        ", ".join(tasks_of(name, zoo)),
        record.license,
    )


def _dataset(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    task = f"{record.task}{' (default)' if record.default else ''}"
    return (name, task, _amount(record.images), str(len(record.classes) or ""), record.threat_model, record.license, record.description)


def _head(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    clean = ", ".join(f"{metric} {value:.1f}" for metric, value in record.clean.items())
    return (name, record.backbone, record.dataset, record.kind, record.protocol, clean)


def _victim(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    return (name, record.task, record.reference, record.license)


def _attack(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    restarts = str(record.restarts) if record.restarts > 1 else ""
    return (name, record.use, record.objective, _settings(record.settings), restarts, record.description)


def _defense(name: str, record: Any, zoo: Zoo) -> Sequence[str]:
    del zoo
    return (name, record.use, record.attack, _settings(record.settings), record.description)


ROWS: dict[str, Callable[[str, Any, Zoo], Sequence[str]]] = {
    "backbone": _backbone,
    "dataset": _dataset,
    "head": _head,
    "victim": _victim,
    "attack": _attack,
    "defense": _defense,
}


@app.command()
def show(name: Annotated[str, typer.Argument(help="An entry of any kind, or a family.")], zoo: Zoos = None, as_json: Json = False) -> None:
    """Print everything that the zoo says about an entry, and the file that it stands in."""
    from sslrob.errors import unknown

    everything = load(zoo)
    found = [(kind, name) for kind in KINDS if name in everything.of(kind)] or [
        ("backbone", m) for m in everything.families().get(name, [])
    ]
    if not found:
        known = {*everything.families(), *(entry for kind in KINDS for entry in everything.of(kind))}
        raise unknown("zoo entry", name, known, broken=everything.complaints())
    files = {n: str(everything.origins[f"{kind}s", n]) for kind, n in found}
    if as_json:
        entries = [{"kind": kind, "name": n, "file": files[n], **everything.of(kind)[n].model_dump(mode="json")} for kind, n in found]
        typer.echo(json.dumps(entries))
        return
    import yaml

    for kind, n in found:
        typer.secho(f"{kind} {n}, in {files[n]}", bold=True)
        told = everything.of(kind)[n].model_dump(mode="json", exclude_defaults=True)
        typer.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110))
        if kind == "backbone":
            heads = {head: record for head, record in everything.heads.items() if record.backbone == n}
            typer.echo(table(HEADERS["head"], [_head(*item, everything) for item in heads.items()]) if heads else "no heads")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Backbones, families, heads, data sets; default: all.")
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Measure the heads' clean metrics again, on the whole split.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 and so on.")] = "cpu",
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """Check that weights are there, unchanged and fitting, and that data can be read.  The exit code is 1 if something is not."""
    from sslrob.plugins import installed
    from sslrob.verify import all_of

    if offline:
        os.environ["SSLROB_OFFLINE"] = "1"
    bad = 0
    for finding in all_of(names or (), load(zoo), installed(), metrics=metrics, device=device):
        bad += bool(finding.problem)
        if as_json:
            typer.echo(json.dumps(finding._asdict()))
            continue
        typer.echo(f"{'✗' if finding.problem else '✓'} {finding.kind:8}  {finding.name:28}  {finding.found}".rstrip())
        for label, text in (("problem", finding.problem), ("hint", finding.hint)):
            if text:
                typer.echo(f"  {label + ':':8} {text}")
    if bad:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a zoo file, for editors."""
    from sslrob.zoo import schema as of_zoo

    typer.echo(json.dumps(of_zoo(), indent=2))
