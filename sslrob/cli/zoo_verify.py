"""`sslrob zoo verify`."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from sslrob.cli.options import Json, Zoos
from sslrob.cli.zoo import load


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

    What was not downloaded is passed over, and downloaded only where its own name is given.

    With --metrics, a clean metric may differ from the zoo's by 0.5 percentage points: other machines and versions round differently.  What
    was measured is remembered in the cache, so that a call that was cut short goes on where it stopped; it counts as long as weights,
    images, settings and versions are the same.
    """
    from sslrob.plugins import installed
    from sslrob.verify import Measured, absent, entries, verify

    if offline:
        os.environ["SSLROB_OFFLINE"] = "--offline"  # for errors: who turned downloads off
    everything, bad = load(zoo), 0
    wanted = entries(names or (), everything)
    todo = [(kind, name) for kind, name in wanted if name in (names or ()) or not absent(kind, name, everything)]
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
    if len(todo) < len(wanted):
        typer.echo(f"{len(wanted) - len(todo)} entries are not here: sslrob zoo fetch NAME, or name them", err=True)
    if bad:
        typer.echo(f"{bad} of {len(todo)} entries have a problem", err=True)
        raise typer.Exit(1)


def _passing(text: str) -> None:
    """Show on a terminal what is being done, in place of what was shown before."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{text}", err=True, nl=False)
