"""`sslrob zoo list|show|schema`; its other commands have files of their own."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from sslrob.cli.options import Json, Zoos
from sslrob.cli.zoo_rows import listed
from sslrob.zoo import KINDS, section

if TYPE_CHECKING:
    from sslrob.errors import SslrobError
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
    family: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this family, such as swav, and its heads; repeatable.")
    ] = None,
    factor: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only what serves a comparison, such as duration, and its heads; repeatable.")
    ] = None,
    license: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only under this licence, such as MIT; or: commercial, noncommercial; repeatable."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only what serves this task; repeatable.")] = None,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """List entries.  Without a kind: backbones and data sets, a line for each family of those that are to be downloaded."""
    from sslrob.cli.zoo_filter import Filter, kinds_of

    everything = load(zoo)
    asked = Filter(everything, family=family or (), factor=factor or (), license=license or (), task=task or ())
    chosen = {
        kind: {name: record for name, record in everything.recorded(kind).items() if asked.keeps(kind, name)}
        for kind in kinds_of(kinds or (), asked)
    }
    if as_json:
        typer.echo(json.dumps({section(kind): {n: r.model_dump(mode="json") for n, r in found.items()} for kind, found in chosen.items()}))
    elif not kinds and asked.empty:
        from sslrob.cli.zoo_overview import overview

        typer.echo(overview(everything))
    else:
        typer.echo("\n\n".join(listed(kind, found, everything) for kind, found in chosen.items()))


@app.command()
def show(name: Annotated[str, typer.Argument(help="An entry of any kind, or a family.")], zoo: Zoos = None, as_json: Json = False) -> None:
    """Print everything that the zoo says about an entry, and what one may do with it; of a family, about its first choice."""
    from sslrob.cli.zoo_show import described

    everything = load(zoo)
    members = everything.families().get(name, [])
    found = [(kind, name) for kind in KINDS if name in everything.recorded(kind)] or [("backbone", member) for member in members]
    if not found:
        raise _no_entry(name, everything)
    if as_json:
        entries = [
            {"kind": kind, "name": n, "file": str(everything.origin(kind, n)), **everything.recorded(kind)[n].model_dump(mode="json")}
            for kind, n in found
        ]
        typer.echo(json.dumps(entries))
        return
    shown = found if name in everything.backbones or not members else found[:1]
    typer.echo("\n".join(described(kind, n, everything) for kind, n in shown))
    if len(members) > 1 and name not in everything.backbones:
        from sslrob.cli.zoo_show import others

        typer.echo(others(name, members, everything))


def _no_entry(name: str, zoo: Zoo) -> SslrobError:
    from sslrob.errors import SslrobError, unknown

    if ":" in name:
        hint = (
            f"use it as one: --backbone {shlex.quote(name)} of sslrob train, eval and harden, or --victim of sslrob eval for a whole model"
        )
        return SslrobError(f"{name!r} is a reference, not an entry of the zoo", hint=hint)
    error = unknown(
        "zoo entry", name, {*zoo.families(), *(entry for kind in KINDS for entry in zoo.recorded(kind))}, broken=zoo.complaints()
    )
    if error.hint.startswith("known: "):  # of so many entries, none is close
        error.hint = "see: sslrob zoo list"
    return error


@app.command()
def schema() -> None:
    """Print the JSON Schema of a zoo file, for editors."""
    from sslrob.zoo import schema as of_zoo

    typer.echo(json.dumps(of_zoo(), indent=2))
