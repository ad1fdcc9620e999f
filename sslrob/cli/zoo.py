"""`sslrob zoo list|show|verify|schema`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslrob.cli.options import Json, Zoos
from sslrob.cli.zoo_rows import HEADERS, head_row, listed, task_of, tasks_of
from sslrob.table import table
from sslrob.zoo import KINDS, section

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sslrob.zoo import Zoo

app = typer.Typer(help="Backbones, data sets, heads and presets that have a name.", no_args_is_help=True, rich_markup_mode=None)


def load(files: Zoos) -> Zoo:
    """The zoo; what had to be left out of it is told on stderr."""
    from sslrob import zoo_files

    zoo = zoo_files.load(files or ())
    for complaint in zoo.complaints():
        typer.echo(f"note:  left out: {complaint}", err=True)
    return zoo


@app.command("list")
def list_(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help=f"Of {', '.join(map(section, KINDS))}.")] = None,
    task: Annotated[str | None, typer.Option(help="Only what serves this task.")] = None,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """List backbones and data sets, or entries of other kinds."""
    from sslrob.errors import unknown

    everything = load(zoo)
    sections = {section(kind): kind for kind in KINDS}
    for word in kinds or ():
        if word not in sections:
            raise unknown("kind of zoo entry", word, sections)
    wanted = [sections[word] for word in kinds or ("backbones", "datasets")]
    chosen = {
        kind: {name: record for name, record in everything.recorded(kind).items() if serves(kind, name, task, everything)}
        for kind in wanted
    }
    if as_json:
        typer.echo(json.dumps({section(kind): {n: r.model_dump(mode="json") for n, r in found.items()} for kind, found in chosen.items()}))
        return
    typer.echo("\n\n".join(listed(kind, found, everything) for kind, found in chosen.items()))


def serves(kind: str, name: str, task: str | None, zoo: Zoo) -> bool:
    """Whether an entry has to do with a task; attacks and defenses have to do with all."""
    match kind:
        case _ if task is None:
            return True
        case "backbone":
            return task in tasks_of(name, zoo)
        case "head":
            return bool(task_of(zoo.datasets[zoo.recorded(kind)[name].dataset]) == task)
        case "study":
            return any(task_of(zoo.datasets[name]) == task for name in zoo.studies[name].datasets)
        case "dataset" | "victim" | "recipe":
            return task_of(zoo.of(kind)[name]) == task
    return True


@app.command()
def show(name: Annotated[str, typer.Argument(help="An entry of any kind, or a family.")], zoo: Zoos = None, as_json: Json = False) -> None:
    """Print everything that the zoo says about an entry, and the file that it stands in."""
    from sslrob.errors import unknown

    everything = load(zoo)
    found = [(kind, name) for kind in KINDS if name in everything.recorded(kind)] or [
        ("backbone", m) for m in everything.families().get(name, [])
    ]
    if not found:
        known = {*everything.families(), *(entry for kind in KINDS for entry in everything.recorded(kind))}
        raise unknown("zoo entry", name, known, broken=everything.complaints())
    files = {n: str(everything.origin(kind, n)) for kind, n in found}
    if as_json:
        entries = [{"kind": kind, "name": n, "file": files[n], **everything.recorded(kind)[n].model_dump(mode="json")} for kind, n in found]
        typer.echo(json.dumps(entries))
        return
    import yaml

    for kind, n in found:
        typer.secho(f"{kind} {n}, in {files[n]}", bold=True)
        record = everything.recorded(kind)[n]
        told = told_of(record)
        for made in ("pretraining", "hardening"):
            if made in told and (last := last_logged(getattr(record, made).log)):
                told[made]["last_logged"] = last
        typer.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110))
        if kind == "backbone":
            heads = {name: head for name, head in everything.recorded("head").items() if head.backbone == n}
            typer.echo(table(HEADERS["head"], [head_row(*item, everything) for item in heads.items()]) if heads else "no heads")


def told_of(record: BaseModel) -> dict[str, Any]:
    """All that a record says, defaults included, but nothing that is empty, nor a seed of weights that were not drawn."""
    plain: dict[str, Any] = _full(record.model_dump(mode="json"))
    if plain.get("weights"):
        plain.pop("seed", None)
    return plain


def _full(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _full(entry) for key, entry in value.items() if entry not in (None, "", [], {})}
    return value


def last_logged(log: Path | None) -> dict[str, Any]:
    """The last line of a training's log; empty where there is none, or it is no such log."""
    if log is None or not log.is_file():
        return {}
    try:
        last = json.loads(log.read_text(encoding="utf-8").rstrip().rpartition("\n")[2])
    except ValueError:
        return {}
    return last if isinstance(last, dict) else {}


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Backbones, families, heads, data sets; default: all.")
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Measure the heads' clean metrics too, on the whole split.")] = False,
    again: Annotated[bool, typer.Option("--again", help="With --metrics: measure even what was measured here before.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 and so on.")] = "cpu",
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """Check that weights are there, unchanged and fitting, and that data can be read.  The exit code is 1 if something is not.

    With --metrics, a clean metric may differ from the zoo's by 0.5 percentage points: other machines and versions round differently.  What
    was measured is remembered in the cache, so that a call that was cut short goes on where it stopped; it counts as long as weights,
    images, settings and versions are the same.
    """
    from sslrob.plugins import installed
    from sslrob.verify import Measured, entries, verify

    if offline:
        os.environ["SSLROB_OFFLINE"] = "1"
    everything, bad = load(zoo), 0
    todo = entries(names or (), everything)
    measured = Measured(fresh=again) if metrics else None
    width = max((len(name) for _, name in todo), default=0)
    for i, (kind, name) in enumerate(todo, 1):
        _passing(f"{i} of {len(todo)}: {kind} {name}")
        finding = verify(kind, name, everything, installed(), measured=measured, device=device)
        _passing("")
        bad += bool(finding.problem)
        if as_json:
            typer.echo(json.dumps(finding._asdict()))
            continue
        typer.echo(f"{'✗' if finding.problem else '✓'} {finding.kind:8}  {finding.name:{width}}  {finding.found}".rstrip())
        for label, text in (("problem", finding.problem), ("hint", finding.hint)):
            if text:
                typer.echo(f"  {label + ':':8} {text}")
    if bad:
        typer.echo(f"{bad} of {len(todo)} entries have a problem", err=True)
        raise typer.Exit(1)


def _passing(text: str) -> None:
    """Show on a terminal what is being done, in place of what was shown before."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{text}", err=True, nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a zoo file, for editors."""
    from sslrob.zoo import schema as of_zoo

    typer.echo(json.dumps(of_zoo(), indent=2))
