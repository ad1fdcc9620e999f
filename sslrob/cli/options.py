"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="The folder of all runs.")]
Zoos = Annotated[list[Path] | None, typer.Option("--zoo", metavar="FILE", help="A zoo file of your own; repeatable.")]
