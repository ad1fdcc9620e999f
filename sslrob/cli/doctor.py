"""`sslrob doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from sslrob.cli.options import Json, Zoos

MARKS = {"ok": "✓", "missing": "–", "broken": "✗"}


def doctor(zoo: Zoos = None, as_json: Json = False) -> None:
    """Say what is installed, which devices there are, what is missing, and the command that mends it.

    The exit code is 1 if something is broken.
    """
    from sslrob.doctor import examine
    from sslrob.table import table

    checks = examine(zoo or ())
    broken = any(check.state == "broken" for check in checks)
    if as_json:
        typer.echo(json.dumps({"usable": not broken, "checks": [asdict(check) for check in checks]}))
    else:
        typer.echo(table(("", "", "", ""), [(MARKS[c.state], c.area, c.name, c.found) for c in checks]))
        for check in checks:
            if check.fix:
                typer.echo(f"\n{MARKS[check.state]} {check.name}: {check.found}\n  {check.fix}")
        typer.echo("\nsomething is broken: see above" if broken else "\nusable")
    if broken:
        raise typer.Exit(1)
