"""A comparison as tables: text for people, Markdown for documents, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import typer

from sslrob.report import estimate
from sslrob.study.comparing import DRAWS
from sslrob.study.comparison import CLEAN, WORST, Comparison, Estimate, Result, Table, Test
from sslrob.table import table

FORMATS = ("text", "markdown", "csv", "json")
SMALL = 0.05  # adjusted p-values below it are marked


@dataclass(frozen=True)
class Block:
    """A title, what has to be said, and a table."""

    title: str
    said: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def render(comparison: Comparison, runs: Path, form: str) -> str:
    """The whole comparison.

    Args:
        runs: where its runs are, for the command that completes them.
        form: one of `FORMATS`.
    """
    if form == "csv":
        return _csv(comparison)
    if form == "json":
        return json.dumps(_json(comparison), allow_nan=False)
    blocks = list(_blocks(comparison, runs))
    return "\n\n".join((_markdown if form == "markdown" else _text)(block) for block in blocks)


def _text(block: Block) -> str:
    parts = [typer.style(block.title, bold=True), *block.said]
    return "\n".join([*parts, *([table(block.header, block.rows)] if block.rows else [])])


def _markdown(block: Block) -> str:
    lines = [f"## {block.title}", "", *(f"{said}  " for said in block.said)]
    if block.rows:
        lines += ["", *("| " + " | ".join(cells) + " |" for cells in (block.header, ["---"] * len(block.header), *block.rows))]
    return "\n".join(lines)


def _blocks(comparison: Comparison, runs: Path) -> Iterator[Block]:
    study = comparison.study
    yield Block(f"study {comparison.name}: {study.description}".rstrip(": "), tuple(_reading(comparison)))
    for one in comparison.tables:
        title = f"{one.dataset} · {one.recipe}"
        of = f"{one.metric} in %, {one.images} images"
        compared = [name for name in study.backbones if name in one.results]
        notes = tuple(f"note: {note}" for note in one.notes)
        yield Block(f"{title}: robust {of}", notes, *_verdicts(comparison, one, compared))
        yield Block(f"{title}: attack success rate in %, of the images not fooled when clean", (), *_successes(comparison, one, compared))
        if one.tests:
            against = comparison.names[str(study.reference)]
            yield Block(
                f"{title}: each method minus {against}, {one.metric} in percentage points",
                (_family(one, one.tests),),
                *_tests(comparison, one.tests),
            )
        yield from _hardened(comparison, one, title, of)
        yield from _factors(comparison, one, title, of)
    if comparison.missing:
        yield _missing(comparison, runs)


def _reading(comparison: Comparison) -> Iterator[str]:
    """What a newcomer has to know."""
    graded, shares = any(t.graded for t in comparison.tables), any(not t.graded for t in comparison.tables)
    if not comparison.tables:
        yield "no run of it is finished yet"
        return
    yield (
        f"clean: without an attack; {WORST}: each image under the attack that harmed it most (or all under one, should that cost more).  "
        "All numbers are upper bounds on robustness: a stronger attack may find less."
    )
    kinds = [
        *(["Wilson's for shares of images"] if shares else []),
        *(["bootstrapped over the images for mIoU, mAP and their like"] if graded else []),
    ]
    yield f"[low, high]: 95 % interval, {' and '.join(kinds)}.  It says how far these images tell, not how another training run would come out."
    epsilons = {text.partition(":")[0] for one in comparison.tables for text in one.epsilons}
    yield f"epsilon: the largest change, {', '.join(sorted(epsilons))} norm, pixel values in [0, 1]."


def _epsilon(threat_model: str, one: Table) -> str:
    norms = {text.partition(":")[0] for text in one.epsilons}
    return threat_model if len(norms) > 1 else threat_model.partition(":")[2]


def _told(found: Estimate | None) -> str:
    if found is None:
        return "–"
    return estimate({"value": found.value if isfinite(found.value) else None, "low": found.low, "high": found.high})


def _verdicts(comparison: Comparison, one: Table, backbones: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = (*one.attacks, *([WORST] if len(one.attacks) > 1 else []))
    rows = []
    for threat_model in one.epsilons:
        for name in backbones:
            result = one.results[name]
            cells = (_told(result.robust.get((attack, threat_model))) for attack in columns)
            rows.append((_epsilon(threat_model, one), comparison.names[name], _told(result.clean), *cells))
    return ("epsilon", "method", "clean", *columns), tuple(rows)


def _successes(comparison: Comparison, one: Table, backbones: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = (*one.attacks, *([WORST] if len(one.attacks) > 1 else []))
    rows = []
    for threat_model in one.epsilons:
        for name in backbones:
            found = [one.results[name].success.get((attack, threat_model)) for attack in columns]
            n = next((str(e.n) for e in found if e is not None), "")
            rows.append((_epsilon(threat_model, one), comparison.names[name], n, *map(_told, found)))
    return ("epsilon", "method", "of images", *columns), tuple(rows)


def _family(one: Table, tests: Sequence[Test]) -> str:
    how = f"paired bootstrap over the images, {DRAWS} draws" if one.graded else "McNemar's exact test; intervals are Newcombe's"
    many = f"Holm's correction over the {len(tests)} tests of this table" if len(tests) > 1 else "a single test"
    return f"{how}.  p Holm: {many}; * where it is below {SMALL}."


def _tests(comparison: Comparison, tests: Sequence[Test]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = [
        (
            verdict_name(test.verdict),
            comparison.names[test.backbone],
            difference(test),
            probability(test.difference.p),
            probability(test.adjusted) + (" *" if test.adjusted < SMALL else ""),
        )
        for test in sorted(tests, key=lambda test: _order(comparison, tests, test))
    ]
    return ("verdict", "method", "difference", "p", "p Holm"), tuple(rows)


def _order(comparison: Comparison, tests: Sequence[Test], test: Test) -> tuple[int, int]:
    del comparison
    verdicts, backbones = (list(dict.fromkeys(getattr(t, name) for t in tests)) for name in ("verdict", "backbone"))
    return verdicts.index(test.verdict), backbones.index(test.backbone)


def verdict_name(verdict: str) -> str:
    """`clean`, or `worst case, 1/255`."""
    return verdict if verdict == CLEAN else f"{WORST}, {verdict.partition(':')[2]}"


def difference(test: Test) -> str:
    """`+3.1 [-0.4, +6.5]`."""
    found = test.difference
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def probability(p: float) -> str:
    """`0.023`, or `<0.001`."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _curve(result: Result, one: Table) -> tuple[str, ...]:
    """Clean, then the worst case at each epsilon."""
    attack = WORST if len(one.attacks) > 1 else one.attacks[0]
    return _told(result.clean), *(_told(result.robust.get((attack, threat_model))) for threat_model in one.epsilons)


def _curve_header(one: Table) -> tuple[str, ...]:
    return CLEAN, *(f"{WORST}, {_epsilon(threat_model, one)}" for threat_model in one.epsilons)


def _hardened(comparison: Comparison, one: Table, title: str, of: str) -> Iterator[Block]:
    pairs = [(a, b) for a, b in comparison.study.hardened.items() if a in one.results and b in one.results]
    if pairs:
        names = dict.fromkeys(
            name for natural in dict.fromkeys(b for _, b in pairs) for name in (natural, *(a for a, b in pairs if b == natural))
        )
        rows = tuple((comparison.names[name], *_curve(one.results[name], one)) for name in names)
        yield Block(f"{title}: hardened beside natural, {of}", (), ("method", *_curve_header(one)), rows)
    if one.hardened:
        yield Block(
            f"{title}: each hardened method minus its natural self, {one.metric} in percentage points",
            (_family(one, one.hardened),),
            *_tests(comparison, one.hardened),
        )


def _factors(comparison: Comparison, one: Table, title: str, of: str) -> Iterator[Block]:
    for factor, variants in comparison.study.factors.items():
        there = [name for name in variants if name in one.results]
        if len(there) > 1:
            rows = tuple((comparison.names[name], *_curve(one.results[name], one)) for name in there)
            yield Block(f"{title}: {factor}, {of}", (), ("variant", *_curve_header(one)), rows)


def _missing(comparison: Comparison, runs: Path) -> Block:
    where = [] if runs == Path("runs") else ["--runs", str(runs)]
    groups: dict[tuple[str, str], list[str]] = {}
    counts: dict[tuple[str, str], int] = {}
    for one in comparison.missing:
        key = (one.cell.head.dataset, one.cell.head.recipe)
        groups.setdefault(key, []).append(one.cell.head.backbone)
        counts[key] = counts.get(key, 0) + 1
    rows = tuple(
        (
            dataset,
            recipe,
            str(counts[dataset, recipe]),
            ", ".join(comparison.names[name] for name in dict.fromkeys(backbones)),
            shlex.join(["sslrob", "study", "run", comparison.name, "--only", f"dataset={dataset},recipe={recipe}", *where]),
        )
        for (dataset, recipe), backbones in groups.items()
    )
    return Block(
        f"missing: {len(comparison.missing)} cells; {shlex.join(['sslrob', 'study', 'run', comparison.name, *where])} runs them",
        (),
        ("dataset", "recipe", "cells", "of", "command"),
        rows,
    )


def records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Every number of a comparison, one a row."""
    for one in comparison.tables:
        common = {"study": comparison.name, "dataset": one.dataset, "recipe": one.recipe, "metric": one.metric, "images": one.images}
        for name, result in one.results.items():
            who = {**common, "backbone": name, "method": comparison.names[name]}
            yield {**who, "what": CLEAN, **_numbers(result.clean)}
            for what, found in (("robust", result.robust), ("attack success rate", result.success)):
                for (attack, threat_model), number in found.items():
                    yield {**who, "what": what, "attack": attack, "threat_model": threat_model, **_numbers(number)}
        for test in (*one.tests, *one.hardened):
            yield {
                **common,
                "backbone": test.backbone,
                "method": comparison.names[test.backbone],
                "what": "difference",
                "attack": "" if test.verdict == CLEAN else WORST,
                "threat_model": "" if test.verdict == CLEAN else test.verdict,
                "against": test.against,
                **{key: _number(value) for key, value in test.difference._asdict().items()},
                "p_holm": test.adjusted,
                "n": one.images,
            }


COLUMNS = (
    *("study", "dataset", "recipe", "metric", "images", "backbone", "method", "what"),
    *("attack", "threat_model", "against", "value", "low", "high", "n", "p", "p_holm"),
)


def _numbers(found: Estimate) -> dict[str, Any]:
    return {key: _number(value) for key, value in found._asdict().items()}


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(comparison))
    return text.getvalue().rstrip("\n")


def _json(comparison: Comparison) -> dict[str, Any]:
    return {
        "study": comparison.name,
        "names": dict(comparison.names),
        "numbers": list(records(comparison)),
        "missing": [str(one.cell) for one in comparison.missing],
    }
