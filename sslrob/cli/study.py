"""`sslrob study run|show`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslrob.cli.options import Json, Runs, Zoos
from sslrob.errors import RunFailed

if TYPE_CHECKING:
    from sslrob.study.grid import Cell, Placed
    from sslrob.study.running import Progress
    from sslrob.zoo import Study

app = typer.Typer(help="A grid of evaluations, compared: what runs, and its tables and plots.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A study of the zoo: sslrob zoo list studies.")]
ONLY = "Part of the grid: dataset=, recipe=, backbone= or attack=, comma-separated; repeatable."


@app.command()
def run(
    name: Name,
    runs: Runs = Path("runs"),
    only: Annotated[list[str] | None, typer.Option("--only", metavar="KEY=VALUE,...", help=ONLY)] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Images of each run, instead of the study's.")] = None,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Train the heads that are missing, or leave out their cells.")] = True,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 and so on.")] = "auto",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cells at a time; default: one for each CUDA device, or each core.")
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at a time; changes no result.")] = 32,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """Run all cells of a study that are not done yet.

    Each is an ordinary run, as of `sslrob eval`.  The same command goes on where it was stopped.  The exit code is 1 if a cell failed.
    """
    from sslrob import zoo_files
    from sslrob.cli.evaluate import stdout_for_results
    from sslrob.plugins import installed
    from sslrob.resolve import without_downloads
    from sslrob.study.grid import Only, Places, cells
    from sslrob.study.running import Grid, Machine

    if offline:
        os.environ["SSLROB_OFFLINE"] = "--offline"  # for errors: who turned downloads off
    with stdout_for_results(as_json):
        files = tuple(zoo or ())
        everything = zoo_files.load(files)
        study: Study = everything.get("study", name)
        grid = cells(study, limit=limit)
        wanted = list(filter(Only.parse(only or (), grid), grid))
        places = Places(everything, installed(), runs)
        if dry_run:
            with without_downloads():
                told = [places(cell) for cell in wanted]
        else:
            from sslrob.cli.study_display import display

            machine = Machine.choose(device, jobs, len(wanted))
            with display(silent=as_json) as show:
                done = Grid(places, files, lambda: zoo_files.load(files), installed(), show, batch_size).run(wanted, machine, train=train)
    if dry_run:
        typer.echo(json.dumps({"study": name, "cells": [_as_json(one) for one in told]}) if as_json else _plan(name, told))
        return
    typer.echo(json.dumps({"study": name, **_outcome(done)}) if as_json else _summary(name, done, runs, limit, files))
    if done.failed:
        n = len(done.failed)
        raise RunFailed(
            f"{n} of {len(wanted)} cells failed", hint="mend the cause and run the same command again: it does only what is left"
        )


def _plan(name: str, placed: list[Placed]) -> str:
    """What would be run."""
    from sslrob.table import table

    words = {"done": "done", "open": "to run", "headless": "to run, after its head is trained"}
    rows = []
    for one in placed:
        cell = one.cell
        images = "all" if one.total is None else str(one.total)
        rows.append([cell.head.dataset, cell.head.recipe, cell.head.backbone, cell.attack, cell.threat_model, images, words[one.state]])
    header = ("dataset", "recipe", "backbone", "attack", "threat model", "images", "state")
    return f"{table(header, rows)}\n\n{name}: {_counts(placed)}"


def _counts(placed: list[Placed]) -> str:
    states = [one.state for one in placed]
    heads = len({one.cell.head for one in placed if one.state == "headless"})
    told = f"{len(placed)} cells, of which {states.count('done')} are done"
    return told + (f"; {heads} {'head is' if heads == 1 else 'heads are'} to be trained" if heads else "")


def _as_json(one: Placed) -> dict[str, Any]:
    return {**_cell(one.cell), "state": one.state, "images": one.images, "of": one.total, "folder": one.folder and str(one.folder)}


def _cell(cell: Cell) -> dict[str, Any]:
    key = cell.head
    return {
        "dataset": key.dataset,
        "recipe": key.recipe,
        "backbone": key.backbone,
        "attack": cell.attack,
        "threat_model": cell.threat_model,
        "limit": cell.limit,
    }


def _outcome(done: Progress) -> dict[str, Any]:
    return {
        "cells": len(done.placed),
        "found": done.found,
        "ran": [{**_cell(cell), "folder": record["folder"], "results": record["results"]} for cell, record in done.records.items()],
        "trained": done.trained,
        "skipped": [{**_cell(cell), "command": command} for cell, command in done.skipped.items()],
        "failed": [{**_cell(cell), "error": str(error), "hint": error.hint} for cell, error in done.failed.items()],
    }


def _summary(name: str, done: Progress, runs: Path, limit: int | None, files: Sequence[Path]) -> str:
    """What came of a grid."""
    parts = [f"{name}: {len(done.placed)} cells: {len(done.records)} run, {done.found} done before"]
    if done.trained:
        parts.append(f"heads trained: {', '.join(done.trained)}")
    if done.skipped:
        commands = dict.fromkeys(done.skipped.values())
        parts.append(
            "\n  ".join([f"{len(done.skipped)} cells skipped: their heads are not there; train them, or leave --no-train out:", *commands])
        )
    reasons: dict[str, list[Cell]] = {}
    for cell, error in done.failed.items():
        reasons.setdefault(f"{error}" + (f" ({error.hint})" if error.hint else ""), []).append(cell)
    for reason, failing in reasons.items():
        parts.append("\n  ".join([f"{len(failing)} cells failed: {reason}", *map(str, failing)]))
    show = ["sslrob", "study", "show", name]
    show += [] if runs == Path("runs") else ["--runs", str(runs)]
    show += [] if limit is None else ["--limit", str(limit)]
    show += [word for file in files for word in ("--zoo", str(file))]
    return "\n".join([*parts, f"tables and plots: {shlex.join(show)}"])


@app.command()
def show(
    name: Name,
    runs: Runs = Path("runs"),
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also write all tables and plots there.")] = None,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv or json.")] = "text",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="As it was given to study run.")] = None,
    zoo: Zoos = None,
) -> None:
    """Print a study's tables, as far as its runs go, and draw its plots.

    Each method is compared with the reference on the same images; what is missing is named, with the command that runs it.
    """
    from sslrob import zoo_files
    from sslrob.cli.evaluate import stdout_for_results
    from sslrob.errors import unknown
    from sslrob.plugins import installed
    from sslrob.resolve import without_downloads
    from sslrob.study.comparing import compare
    from sslrob.study.grid import Places, cells
    from sslrob.study.tables import FORMATS, render

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    with stdout_for_results(True), without_downloads():
        everything = zoo_files.load(zoo or ())
        study: Study = everything.get("study", name)
        comparison = compare(name, study, cells(study, limit=limit), Places(everything, installed(), runs))
    typer.echo(render(comparison, runs, form))
    if out is not None:
        from sslrob.study.figures import write

        for path in write(comparison, runs, out):
            typer.echo(str(path), err=True)
