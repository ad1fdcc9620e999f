"""`sslrob zoo fetch|prune`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sslrob import license as licenses
from sslrob.cli.options import Json, Zoos, trust_code, trusting
from sslrob.cli.zoo import load
from sslrob.errors import SslrobError, unknown

if TYPE_CHECKING:
    from sslrob.zoo import Weights, Zoo

KINDS = ("backbone", "head", "victim")
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]


class Done(NamedTuple):
    """What became of an entry.

    Attributes:
        state: "shipped", "cached", "downloaded", "wanted" (in a dry run), "none" or "failed".
        size: of its file, in bytes, if that is known.
        source: where the file comes from.
        note: what its entry says besides, where it could not be had.
    """

    kind: str
    name: str
    license: str
    state: str
    size: int | None = None
    file: Path | None = None
    source: str = ""
    problem: str = ""
    hint: str = ""
    note: str = ""


class Entry(NamedTuple):
    """An entry that may have a file to fetch."""

    kind: str
    name: str
    weights: Weights | None
    license: str = ""
    notes: str = ""


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Backbones, families, heads, whole victims, references.")],
    all_: Annotated[bool, typer.Option("--all", help="All members of a family, not its first choice alone.")] = False,
    heads: Annotated[bool, typer.Option("--heads", help="The backbones' published heads too.")] = False,
    dry_run: DryRun = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing: say what is missing.")] = False,
    trusted: Annotated[bool, trusting()] = False,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """Download the weights of entries into the cache, so that later commands need no network.

    A download that was cut goes on where it stopped.  The exit code is 1 if a file could not be had.
    """
    trust_code(trusted)
    if offline:
        os.environ["SSLROB_OFFLINE"] = "--offline"  # for errors: who turned downloads off
    done: list[Done] = []
    todo = entries(names, load(zoo), every=all_, heads=heads)
    width = max(len(entry.name) for entry in todo)
    for entry in todo:
        done.append(one := _have(entry, dry_run=dry_run))
        if as_json:
            typer.echo(json.dumps({**one._asdict(), "file": one.file and str(one.file)}))
            continue
        typer.echo(f"{'✗' if one.problem else '✓'} {one.kind:8}  {one.name:{width}}  {told(one)}")
        for label, text in (("problem", one.problem), ("hint", one.hint), ("note", one.note)):
            if text:
                typer.echo(f"  {label + ':':8} {text}")
    if not as_json:
        typer.echo(summary(done))
    bad = sum(bool(one.problem) for one in done)
    if bad:
        typer.echo(f"{bad} of {len(done)} entries have a problem", err=True)
        raise typer.Exit(1)


def entries(names: Sequence[str], zoo: Zoo, *, every: bool = False, heads: bool = False) -> list[Entry]:
    """The entries of these names.

    Args:
        every: all members of a family that is named, not its first choice alone.
        heads: those on the backbones among them too.

    Raises:
        SslrobError: a name that no backbone, family, head or victim has, or a reference that no plugin understands.
    """
    from sslrob import references
    from sslrob.plugins import installed

    found: dict[tuple[str, str], Entry] = {}
    for name in names:
        named = [Entry(kind, name, *_of(zoo.recorded(kind)[name])) for kind in KINDS if name in zoo.recorded(kind)]
        if not named and ":" in name:
            named = [Entry("backbone", name, *_of(references.backbone(zoo, installed(), name)))]
        if not named:
            members = zoo.families().get(name, [])
            named = [Entry("backbone", one, *_of(zoo.backbones[one])) for one in (members if every else members[:1])]
        if not named and name in zoo.datasets:
            where = zoo.datasets[name].source
            hint = f"get it yourself: {where}" if where else f"what it wants, and where: sslrob zoo show {name}"
            raise SslrobError(f"{name!r} is a data set, and data sets are not fetched", hint=hint)
        if not named:
            known = {*zoo.families(), *(entry for kind in KINDS for entry in zoo.recorded(kind))}
            raise unknown("entry with weights", name, known, broken=zoo.complaints())
        backbones = [entry.name for entry in named if heads and entry.kind == "backbone"]
        named += [Entry("head", head, *_of(record)) for head, record in zoo.heads.items() if record.backbone in backbones]
        found.update({(entry.kind, entry.name): entry for entry in named})
    return list(found.values())


def _of(record: Any) -> tuple[Weights | None, str, str]:
    """Weights, licence and notes of a record; a head has neither of the last two."""
    return record.weights, getattr(record, "license", ""), getattr(record, "notes", "")


def _have(entry: Entry, *, dry_run: bool) -> Done:
    """Get the file of one entry."""
    from sslrob import fetching, pins

    kind, name, weights, license, notes = entry
    if weights is None:
        return Done(kind, name, license, "none")
    source = pins.source(weights)
    try:
        if dry_run and weights.file is None and fetching.there(weights) is None:
            return Done(kind, name, license, "wanted", weights.size, None, source)
        file, new = fetching.obtain(weights)
    except SslrobError as error:
        note = notes if weights.file is not None else ""
        hint = error.hint.replace("sslrob zoo fetch NAME", f"sslrob zoo fetch {name}")
        return Done(kind, name, license, "failed", weights.size, None, source, str(error), hint, note)
    state = "shipped" if weights.file is not None else "downloaded" if new else "cached"
    return Done(kind, name, license, state, file.stat().st_size, file, source)


def told(one: Done) -> str:
    """What became of an entry, in a few words; its licence too, if it forbids commercial use."""
    words = {"shipped": "its own file", "cached": "already here", "wanted": "to be downloaded", "none": "has no weights to fetch"}
    parts = [words.get(one.state, one.state)]
    if one.size is not None:
        parts.append(megabytes(one.size))
    if (flagged := licenses.flagged(one.license)) != one.license:
        parts.append(flagged)
    return ", ".join(parts)


def summary(done: list[Done]) -> str:
    """How many files, and how large; each counts once, whoever shares it."""
    files = {one.file: one.size or 0 for one in done if one.file is not None}
    new = {one.file: one.size or 0 for one in done if one.state == "downloaded"}
    wanted = list({one.source: one.size for one in done if one.state == "wanted"}.values())
    parts = []
    if files:
        parts.append(f"{_files(len(files))} here, {megabytes(sum(files.values()))}")
    if new:
        parts.append(f"{_files(len(new))} downloaded now, {megabytes(sum(new.values()))}")
    if wanted:
        known, unsaid = [size for size in wanted if size is not None], wanted.count(None)
        sizes = [megabytes(sum(known))] if known else []
        sizes += [f"{unsaid} of a size that is not published"] if unsaid else []
        parts.append(f"{_files(len(wanted))} to download, {' and '.join(sizes)}")
    if any(one.problem for one in done):
        return "; ".join(parts) or "nothing was fetched"
    return "; ".join(parts) or "nothing to fetch"


def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """Remove downloads that no entry of the zoo names any more, parts of downloads, and conversions of either.

    What another process is downloading stays, and so do files that torch or the Hugging Face hub keep for themselves.
    """
    from sslrob.stray import remove, strays

    found = strays(load(zoo))
    size = megabytes(sum(stray.size for stray in found))
    if not as_json:
        for stray in found:
            typer.echo(f"{megabytes(stray.size):>10}  {stray.path}  ({stray.why})")
        typer.echo(f"{_files(len(found))}, {size}" if found else "nothing to remove")
    gone = bool(found) and not dry_run and (yes or _agreed(f"remove {_files(len(found))}?"))
    if gone:
        remove(found)
    if as_json:
        listed: list[dict[str, Any]] = [{**stray._asdict(), "path": str(stray.path)} for stray in found]
        typer.echo(json.dumps({"removed": gone, "files": listed}))
    elif found and not dry_run:
        typer.echo(f"{size} are free again" if gone else "nothing was removed")


def _agreed(question: str) -> bool:
    """What the user answers.

    Raises:
        SslrobError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise SslrobError("nobody is there to be asked", hint="add --yes, or look first: --dry-run")
    return typer.confirm(question, err=True)


def megabytes(size: int) -> str:
    """Such as `97.8 MB`."""
    return f"{size / 1e6:,.1f} MB"


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"
