"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="The folder of all runs.")]
TRUST = "SSLROB_TRUST_CODE"
Zoos = Annotated[list[Path] | None, typer.Option("--zoo", metavar="FILE", help="A zoo file of your own; repeatable.")]


def trusting(panel: str | None = None) -> Any:
    """The option `--trust-code`, in a group of the help."""
    told = "Run the code that hub:REPOSITORY:ENTRY brings, with all that you may do."
    return typer.Option("--trust-code", envvar=TRUST, show_envvar=False, help=told, rich_help_panel=panel)


def trust_code(asked: bool) -> None:
    """Let plugins know, in this process and those that it starts, whether they may run the code of references."""
    os.environ[TRUST] = "1" if asked else "0"
