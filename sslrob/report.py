"""A run, or several, as a person likes to read them.  Reads run.json alone: neither torch nor the data are needed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sslrob.errors import SslrobError, unknown
from sslrob.runs import Run
from sslrob.spec import Spec

Record = Mapping[str, Any]
VERDICTS = {"clean": "clean", "robust": "robust", "rounded": "robust, as 8-bit files"}
WEAKNESS = {
    "noise": "Random noise is a control, the floor that any attack has to beat.  ",
    "fgsm": "A single gradient step is a weak attack.  ",
    "pgd": "PGD alone is one search from a random start.  ",
}
CAVEAT = "An upper bound on robustness: {weakness}A stronger attack may find a lower number, none can make it higher."


def find(word: str, runs: Path) -> Path:
    """The folder of a run: `word` is its path, or the start of its name below `runs`, or its 8 hex digits.

    Raises:
        SslrobError: no run, or more than one, is meant.
    """
    path = Path(word)
    path = path.parent if path.name == "run.json" else path
    if (path / "run.json").is_file():
        return path
    names = [folder.name for folder in everything(runs)]
    close = [name for name in names if word and (name.startswith(word) or name.endswith(f"-{word}"))]
    if len(close) > 1:
        raise SslrobError(f"{word!r} may be any of {len(close)} runs: {', '.join(close)}", hint="write more of its name")
    if close:
        return runs / close[0]
    if not names:
        raise SslrobError(f"no run is named {word!r}: there are none in {str(runs)!r}", hint="say where they are with --runs")
    raise unknown("run", word, names)


def everything(runs: Path) -> list[Path]:
    """The folders of all runs below `runs`, ordered by name."""
    return sorted(path.parent for path in runs.glob("*/run.json"))


def read(folder: Path) -> dict[str, Any]:
    """The record of a run, with its `folder`, and `rows`, how many images are done.

    Raises:
        SslrobError: it is missing or damaged.
    """
    run = Run(folder)
    return {**run.record(), "folder": str(folder), "rows": len(run.rows())}


def sentence(record: Record) -> str:
    """What was evaluated, in a line; the folder's name if another version of sslrob wrote the spec of an unfinished run."""
    if "sentence" in record:
        return str(record["sentence"])
    try:
        return Spec.model_validate(record["spec"]).sentence()
    except ValidationError:
        return Path(record["folder"]).name


def show(record: Record) -> RenderableType:
    """One run: metrics with 95 % intervals, attack success rate, cost, flags, and what the number is worth."""
    head = Text(sentence(record), style="bold")
    if "results" not in record:
        return Group(head, *_unfinished(record))
    parts: list[RenderableType] = [
        head,
        Text(),
        _metrics(record),
        Text(),
        _figures(record),
        Text(),
        *_flags(record),
        Text(),
        _caveat(record),
    ]
    if record["status"] != "finished":
        parts += [Text(), *_unfinished(record)]
    return Group(*parts, Text(), _places(record))


def _metrics(record: Record) -> Table:
    results, headline = record["results"], record["headline"]
    table = Table(box=None, pad_edge=False, padding=(0, 4, 0, 0))
    table.add_column("")
    for title in VERDICTS.values():
        table.add_column(title, no_wrap=True)
    for name in sorted(results["clean"], key=lambda name: name != headline):
        table.add_row(name, *(estimate(results[verdict].get(name)) for verdict in VERDICTS), style="bold" if name == headline else "")
    return table


def estimate(metric: Mapping[str, float | None] | None) -> str:
    """`31.2  [28.0, 34.1]`; a dash for what is not defined."""
    if not metric or metric["value"] is None:
        return "–"
    return f"{metric['value']:5.1f}  [{metric['low']:.1f}, {metric['high']:.1f}]"


def _figures(record: Record) -> Table:
    results = record["results"]
    success, cost, distance = results["attack_success_rate"], results["cost"], results["distance"]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 4, 0, 0))
    rows = {
        "attack success rate": f"{estimate(success).strip()} % of the {_images(success['n'])} that were right when clean",
        "cost": f"{cost['forwards']:.1f} forwards and {cost['backwards']:.1f} backwards an attacked image",
        "distance": f"{distance['mean']:.4g} on average, {distance['max']:.4g} at most",
        "images": f"{results['images']}, in {duration(record['seconds'])}" if "seconds" in record else str(results["images"]),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def duration(seconds: float) -> str:
    """`8.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _flags(record: Record) -> Iterator[RenderableType]:
    if not record["flags"]:
        yield Text("no flags", style="green")
    for flag in record["flags"]:
        yield Text.assemble((f"flag {flag['name']}", "bold red"), f": {flag['evidence']}")


def _caveat(record: Record) -> Text:
    weakness = WEAKNESS.get(record["spec"]["attack"]["use"].rpartition("/")[2], "")
    return Text(CAVEAT.format(weakness=weakness[:1].lower() + weakness[1:] if weakness else ""), style="italic")


def _places(record: Record) -> Table:
    folder = Path(record["folder"])
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 4, 0, 0))
    overview = folder / "pictures" / "overview.png"
    for name, path in (("pictures", overview), ("rows", folder / "images.jsonl"), ("record", folder / "run.json")):
        if path.exists():
            table.add_row(name, Text(str(path), overflow="fold"))
    return table


def _unfinished(record: Record) -> Iterator[Text]:
    done = f"{_images(record['rows'])} done" if "rows" in record else ""
    if record["status"] == "failed":
        yield Text.assemble(
            ("failed", "bold red"), f" after {done}: {record.get('error', 'unknown reason')}" if done else f": {record.get('error')}"
        )
    else:
        yield Text.assemble(("not finished", "bold yellow"), f": {done}; it is running, or was stopped")
    command = record.get("provenance", {}).get("command")
    if command:
        yield Text(f"the same command goes on where it stopped: sslrob {shlex.join(command)}")


def compare(records: Sequence[Record]) -> Table:
    """Several runs, one a row."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("run", "attack", "threat model", "images", "metric", "clean", "robust", "attack success rate", "flags"):
        table.add_column(title, overflow="fold", no_wrap=title not in ("run", "flags"), justify="right" if title == "images" else "left")
    for record in records:
        spec, name = record["spec"], Path(record["folder"]).name
        asked = (name, spec["attack"]["id"], spec["threat_model"])
        if "results" not in record:
            table.add_row(*asked, str(record.get("rows", "")), "", record["status"])
            continue
        results, headline = record["results"], record["headline"]
        table.add_row(
            *asked,
            str(results["images"]),
            headline,
            *(estimate(results[verdict].get(headline)) for verdict in ("clean", "robust")),
            estimate(results["attack_success_rate"]),
            ", ".join(flag["name"] for flag in record["flags"]) or "none",
        )
    return table
