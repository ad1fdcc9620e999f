"""`sslrob report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sslrob.cli.options import Json, Runs


def report(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Folders, or starts of their names; default: all.")] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Print a run; several, or all, as a table.  With --json, one object a line for each run."""
    from sslrob.report import compare, everything, find, read, show

    records = [read(find(name, runs)) for name in names] if names else [read(folder) for folder in everything(runs)]
    if as_json:
        for record in records:
            typer.echo(json.dumps(record))
        return
    if not records:
        typer.echo(f"no runs in {runs}; make one: sslrob eval --backbone swav --task detection --attack pgd")
    elif len(records) == 1:
        typer.echo(show(records[0]))
    else:
        typer.echo(compare(records))
