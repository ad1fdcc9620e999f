"""A run, or several, as a person likes to read them.  Reads run.json alone: neither torch nor the data are needed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from sslrob.errors import SslrobError, unknown
from sslrob.runs import Run
from sslrob.spec import Spec
from sslrob.table import aligned, table

Record = Mapping[str, Any]
VERDICTS = {"clean": "clean", "robust": "robust", "rounded": "robust, as 8-bit files"}
WEAKNESS = {
    "noise": "Random noise is a control, the floor that any attack has to beat.",
    "fgsm": "A single gradient step is a weak attack.",
    "pgd": "PGD alone is one search, from random starts.",
    "noise-gaussian": "Random noise is a control, the floor that any attack has to beat.",
    "noise-sign": "Random noise is a control, the floor that any attack has to beat.",
    "hop-skip-jump": "It begins at an image that fools: where it finds none, it moves nothing.",
}
UNSEEN = "The attack never saw the victim: one that does finds more."
CAVEAT = "An upper bound on robustness, by this one attack: a stronger one may find less."
NO_BOUND = {"corruption": "No bound on robustness: a corruption is a control, which looks for nothing and happens without an adversary."}


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


def show(record: Record, *, titled: bool = True) -> str:
    """One run: metrics with 95 % intervals, attack success rate, cost, flags, and what the number is worth.

    Args:
        titled: under the sentence that says what was evaluated.
    """
    parts = [typer.style(sentence(record), bold=True)] if titled else []
    if "results" in record:
        parts += [_metrics(record), aligned(list(_figures(record))), _worth(record["spec"])]
    if record["status"] != "finished":
        parts.append(_unfinished(record))
    places = list(_places(record))
    return "\n\n".join([*parts, *([aligned(places)] if places else [])])


def _metrics(record: Record) -> str:
    results, headline = record["results"], record["headline"]
    names = sorted(results["clean"], key=lambda name: name != headline)
    rows = [[name, *(estimate(results[verdict].get(name)) for verdict in VERDICTS)] for name in names]
    return table(["in %, 95 % interval", *VERDICTS.values()], rows)


def estimate(metric: Mapping[str, float | None] | None) -> str:
    """`31.2 [28.0, 34.1]`; a dash for what is not defined."""
    if not metric or metric["value"] is None:
        return "–"
    return f"{metric['value']:z.1f} [{metric['low']:z.1f}, {metric['high']:z.1f}]"


def _figures(record: Record) -> Iterator[tuple[str, str]]:
    results, spec = record["results"], record["spec"]
    success, cost, distance = results["attack_success_rate"], results["cost"], results["distance"]
    yield "attack success rate", f"{estimate(success)} % of the {_images(success['n'])} not fooled when clean"
    if lost := results.get("lost"):
        yield "lost", f"{estimate(lost)} % of the clean {record['headline']}"
    if rule := record.get("judged_by"):
        yield "worst case", f"of each image: the candidate with the lowest {rule}"
    surrogates = spec.get("surrogates", ())
    through = " through the surrogates" if len(surrogates) > 1 else " through the surrogate" if surrogates else ""
    yield "cost", f"{cost['forwards']:.1f} forwards and {cost['backwards']:.1f} backwards an image attacked{through}"
    if again := results.get("searched_again"):
        yield "searched again", f"{_images(again)}, through the victim itself: what was found fooled only its copy"
    if declined := results.get("declined"):
        yield "declined", f"{_images(declined)}: whatever was found helps the victim, so that the adversary showed the clean image"
    if move := record.get("universal"):
        yield "learned", f"one move for all images, by {move['forwards']} forwards and {move['backwards']} backwards"
    for i, one in enumerate(surrogates):
        head, sums = one["head"], [one[part]["weights"]["sha256"][:12] for part in ("backbone", "head") if one[part]["weights"]]
        told = f"{head['id']}, {head['protocol']}" + (f" (weights {', '.join(sums)})" if sums else "")
        yield "" if i else "surrogates" if len(surrogates) > 1 else "surrogate", told
    linf = spec["threat_model"].startswith("linf:")
    mean, largest = (f"{255 * value:.3g}/255" if linf else f"{value:.4g}" for value in (distance["mean"], distance["max"]))
    yield "distance", f"{mean} on average, {largest} at most"
    if linf and 0 < 255 * distance["max"] < 0.999:
        yield "8 bits", "no move below 1/255 survives an image file of 8 bits"
    of_all = f" of {spec['dataset']['images']}" if spec["dataset"].get("images") else ""
    yield "images", f"{results['images']}{of_all}" + (f", in {duration(record['seconds'])}" if "seconds" in record else "")
    for i, flag in enumerate(record["flags"]):
        yield "" if i else "flags", typer.style(flag["name"], fg="red", bold=True) + f": {flag['evidence']}"
    if not record["flags"]:
        yield "flags", "none"


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def duration(seconds: float) -> str:
    """`8.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _places(record: Record) -> Iterator[tuple[str, str]]:
    folder = Path(record["folder"])
    for name, path in (("pictures", "pictures/overview.png"), ("rows", "images.jsonl"), ("record", "run.json")):
        if (folder / path).exists():
            yield name, str(folder / path)


def _unfinished(record: Record) -> str:
    """Why a run has not ended, how far it is, and how to go on."""
    done = f"{_images(record['rows'])} done"
    if record["status"] == "failed":
        told = f"{typer.style('failed', fg='red', bold=True)}, {done}: {record.get('error', 'it is not recorded why')}"
    else:
        told = f"{typer.style('not finished', fg='yellow', bold=True)}, {done}: it is running, or was stopped"
    command = record.get("provenance", {}).get("command")
    return f"{told}\nthe same command goes on where it stopped: sslrob {shlex.join(command)}" if command else told


def compare(records: Sequence[Record]) -> str:
    """Several runs, one a row; of what was asked, what tells them apart."""
    header = ["run", "head", "threat model", "through", "objective", "settings", "images"]
    header += ["metric", "clean", "robust", "attack success", "lost", "flags"]
    several = len({record["spec"]["attack"]["objective"] for record in records}) > 1
    rows = []
    for record, settings in zip(records, _differing(records), strict=True):
        objective = record["spec"]["attack"]["objective"] if several else ""
        rows.append(_row(record, _through(record), objective, settings))
    return table(header, rows)


def _differing(records: Sequence[Record]) -> Iterator[str]:
    """For each run, those settings of its attack that another run of the same attack has otherwise."""
    asked: list[tuple[str, dict[str, str]]] = []
    values: dict[tuple[str, str], set[str]] = {}
    for record in records:
        attack = record["spec"]["attack"]
        settings = {**attack["settings"], "restarts": attack["restarts"], "seed": record["spec"]["seed"]}
        asked.append((attack["use"].rpartition("/")[2], {key: json.dumps(value) for key, value in settings.items()}))
        for key, value in asked[-1][1].items():
            values.setdefault((asked[-1][0], key), set()).add(value)
    for use, given in asked:
        yield " ".join(f"{key}={value}" for key, value in given.items() if len(values[use, key]) > 1)


def _row(record: Record, *asked: str) -> Sequence[str]:
    named = (Path(record["folder"]).name, _head(record["spec"]), record["spec"]["threat_model"], *asked)
    if "results" not in record:
        status = "not finished" if record["status"] == "started" else record["status"]
        return (*named, str(record["rows"]), "", "", "", "", "", status)
    results, headline = record["results"], record["headline"]
    clean, robust = (estimate(results[verdict].get(headline)) for verdict in ("clean", "robust"))
    flags = ", ".join(flag["name"] for flag in record["flags"]) or "none"
    success, lost = estimate(results["attack_success_rate"]), estimate(results["lost"]) if results.get("lost") else ""
    return (*named, str(results["images"]), headline, clean, robust, success, lost, flags)


def _worth(spec: Mapping[str, Any]) -> str:
    """What the numbers are worth."""
    search = spec["attack"]["use"].rpartition("/")[2]
    weakness = UNSEEN if _unseen(spec) else WEAKNESS.get(search, "")
    return NO_BOUND.get(search) or f"{CAVEAT}  {weakness}".rstrip()


def _unseen(spec: Mapping[str, Any]) -> bool:
    """Whether the attack saw surrogates, none of which is the victim itself."""
    seen = [one["head"]["id"] for one in spec.get("surrogates", ())]
    return bool(seen) and (not spec.get("head") or spec["head"]["id"] not in seen)


def _through(record: Record) -> str:
    """The heads that the attack saw instead of the victim."""
    return ", ".join(one["head"]["id"] for one in record["spec"].get("surrogates", ()))


def _head(spec: Mapping[str, Any]) -> str:
    """The id, without its backbone's in front of it, of a head that is not the backbone's only one on the data set; else empty."""
    if not spec.get("head") or spec["head"].get("alone", True):
        return ""
    return str(spec["head"]["id"]).removeprefix(f"{spec['backbone']['id']}-")
