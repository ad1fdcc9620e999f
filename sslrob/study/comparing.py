"""From a study's runs to what they say: estimates, the worst case over attacks, and tests on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sslrob import assemble
from sslrob.errors import SslrobError
from sslrob.runs import Row, Run
from sslrob.stats import Difference, holm, paired_bootstrap, paired_shares, quantiles, replicates, wilson
from sslrob.study.comparison import CLEAN, WORST, Comparison, Estimate, Result, Table, Test
from sslrob.study.grid import Cell, Placed, Places
from sslrob.summary import attack_success_rate
from sslrob.zoo import Study

if TYPE_CHECKING:
    from sslrob.stats import Array
    from sslrob.task import Task

DRAWS = 2000  # of the paired bootstrap


def compare(name: str, study: Study, cells: Sequence[Cell], places: Places) -> Comparison:
    """Everything that the finished runs of a study say.

    Raises:
        SslrobError: a cell means nothing, a run is damaged, or runs on one data set are not of the same data.
    """
    placed = [places(cell) for cell in cells]
    groups: dict[tuple[str, str], list[Placed]] = {}
    for one in placed:
        groups.setdefault((one.cell.head.dataset, one.cell.head.recipe), []).append(one)
    tables = [_table(study, places, those) for group in groups.values() if (those := [one for one in group if one.images])]
    backbones = dict.fromkeys(cell.head.backbone for cell in cells)
    missing = tuple(one for one in placed if one.state != "done" and (one.total is not None or not one.images))
    return Comparison(name, study, short_names(list(backbones), study, places.zoo.backbones), tuple(tables), missing)


@dataclass
class _Victim:
    """The rows of one victim on the images of a table, in the order of their ids.

    Attributes:
        rows: by attack and threat model.
        recorded: results that the runs themselves keep, of those that are of just these images.
    """

    task: Task
    attacks: tuple[str, ...]
    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    recorded: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    memory: dict[str, Array] = field(default_factory=dict)
    worsts: dict[str, list[Row] | None] = field(default_factory=dict)

    @cached_property
    def clean(self) -> list[Row]:
        return [{"fooled": row["clean"]["fooled"], "measure": row["clean"]["measure"]} for row in next(iter(self.rows.values()))]

    def combined(self, threat_model: str) -> list[Row] | None:
        """Of each image, the verdict under the attack that harmed it most; None where an attack is missing."""
        runs = self._attacked(threat_model)
        if runs is None:
            return None
        return [min(same, key=lambda verdict: (not verdict["fooled"], verdict["quality"])) for same in zip(*runs, strict=True)]

    def worst(self, threat_model: str) -> list[Row] | None:
        """As `combined`, or the verdicts under one attack where a pooled metric is lower under that one."""
        if threat_model not in self.worsts:
            found = self.combined(threat_model)
            if found is not None and self.task.graded:
                found = min([found, *(self._attacked(threat_model) or ())], key=self.value)
            self.worsts[threat_model] = found
        return self.worsts[threat_model]

    def _attacked(self, threat_model: str) -> list[list[Row]] | None:
        runs = [self.rows.get((attack, threat_model)) for attack in self.attacks]
        whole = [[row["robust"] for row in rows] for rows in runs if rows is not None]
        return whole if len(whole) == len(runs) else None

    def verdicts(self, verdict: str) -> list[Row] | None:
        return self.clean if verdict == CLEAN else self.worst(verdict)

    def drawn(self, verdict: str, rows: Sequence[Row]) -> Array:
        """(draws,) of the headline."""
        if verdict not in self.memory:
            found = replicates(self.task.aggregator([row["measure"] for row in rows]), len(rows), draws=DRAWS)
            self.memory[verdict] = found[self.task.headline]
        return self.memory[verdict]

    def value(self, rows: Sequence[Row]) -> float:
        return self.task.aggregate([row["measure"] for row in rows])[self.task.headline]

    def estimate(self, verdict: str, rows: Sequence[Row]) -> Estimate:
        measures = [row["measure"] for row in rows]
        low, high = quantiles(self.drawn(verdict, rows)) if self.task.graded else self.task.intervals(measures)[self.task.headline]
        return Estimate(self.value(rows), low, high, len(rows))


def _table(study: Study, places: Places, placed: Sequence[Placed]) -> Table:
    """Args:
    placed: of one data set and recipe, those with a finished run.
    """
    dataset, recipe = placed[0].cell.head.dataset, placed[0].cell.head.recipe
    task = assemble.task(places.zoo.datasets[dataset].task, places.plugins)
    stored = {one.cell: Run(one.folder) for one in placed if one.folder is not None}
    _require_same_data(dataset, list(stored.values()))
    runs = {cell: run.rows() for cell, run in stored.items()}
    common = set.intersection(*({row["id"] for row in rows} for rows in runs.values()))
    asked, attacks = study.datasets[dataset], study.attacks
    victims: dict[str, _Victim] = {}
    for cell, rows in runs.items():
        victim = victims.setdefault(cell.head.backbone, _Victim(task, attacks))
        key = cell.attack, cell.threat_model
        victim.rows[key] = [row for row in rows if row["id"] in common]
        recorded = stored[cell].record()["results"]
        if len(rows) == len(common) == recorded["images"]:
            victim.recorded[key] = recorded
    results = {backbone: _result(victim, asked.epsilons) for backbone, victim in victims.items()}
    pairs = [(backbone, study.reference) for backbone in study.backbones if study.reference not in (None, backbone)]
    verdicts = (CLEAN, *asked.epsilons)
    return Table(
        dataset,
        recipe,
        places.zoo.recipes[recipe].protocol == "finetuned",
        task.headline,
        task.graded,
        len(common),
        attacks,
        asked.epsilons,
        results,
        tuple(_tests([(a, str(b)) for a, b in pairs], victims, verdicts)),
        tuple(_tests(list(study.hardened.items()), victims, verdicts)),
        tuple(_notes(placed, {cell: len(its) for cell, its in runs.items()}, len(common))),
    )


def _require_same_data(dataset: str, runs: Sequence[Run]) -> None:
    """Raises:
    SslrobError: two runs are not of the same images and annotations.
    """
    first: dict[str, str] = {}
    for run in runs:
        first.setdefault(run.record()["provenance"]["dataset"], str(run.folder))
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise SslrobError(
            f"runs on {dataset!r} are not of the same data: {one!r} and {other!r}", hint="move the older ones away and run the study again"
        )


def _result(victim: _Victim, epsilons: Sequence[str]) -> Result:
    robust: dict[tuple[str, str], Estimate] = {}
    success: dict[tuple[str, str], Estimate] = {}
    clean = victim.clean
    for key, rows in victim.rows.items():
        attacked = [row["robust"] for row in rows]
        known = victim.recorded.get(key, {}).get("robust", {}).get(victim.task.headline)
        robust[key] = Estimate(**known, n=len(rows)) if known else victim.estimate(" ".join(key), attacked)
        success[key] = _success(attacked, clean)
    for threat_model in epsilons:
        worst, combined = victim.worst(threat_model), victim.combined(threat_model)
        if worst is not None and combined is not None:
            robust[WORST, threat_model] = victim.estimate(threat_model, worst)
            success[WORST, threat_model] = _success(combined, clean)
    return Result(victim.estimate(CLEAN, clean), robust, success)


def _success(attacked: Sequence[Row], clean: Sequence[Row]) -> Estimate:
    fooled, n = attack_success_rate([{"clean": c, "robust": r} for c, r in zip(clean, attacked, strict=True)])
    low, high = wilson(fooled, n)
    return Estimate(100 * fooled / n if n else float("nan"), 100 * low, 100 * high, n)


def _tests(pairs: Sequence[tuple[str, str]], victims: Mapping[str, _Victim], verdicts: Sequence[str]) -> list[Test]:
    """All pairs under all verdicts that both have: one family."""
    found: dict[str, tuple[str, str, str, Difference]] = {}
    for a, b in pairs:
        for verdict in verdicts if a in victims and b in victims else ():
            mine, theirs = victims[a].verdicts(verdict), victims[b].verdicts(verdict)
            if mine is not None and theirs is not None:
                found[f"{a} {b} {verdict}"] = (a, b, verdict, _difference(victims[a], victims[b], verdict, mine, theirs))
    adjusted = holm({key: difference.p for key, (*_, difference) in found.items()})
    return [Test(*test, adjusted[key]) for key, test in found.items()]


def _difference(a: _Victim, b: _Victim, verdict: str, mine: Sequence[Row], theirs: Sequence[Row]) -> Difference:
    if a.task.graded:
        return paired_bootstrap(a.value(mine), b.value(theirs), a.drawn(verdict, mine), b.drawn(verdict, theirs))
    found = paired_shares(*([not row["fooled"] for row in rows] for rows in (mine, theirs)))
    return found._replace(value=100 * found.value, low=100 * found.low, high=100 * found.high)


def _notes(placed: Sequence[Placed], images: Mapping[Cell, int], common: int) -> list[str]:
    notes = []
    if len(set(images.values())) > 1:
        counts = f"{min(images.values())} to {max(images.values())}"
        notes.append(f"its runs have {counts} images; everything here is of the {common} images that all of them have")
    asked = {one.total for one in placed} - {None}
    if any(total is not None and common < total for total in asked):
        notes.append(f"the study asks for {max(total for total in asked if total is not None)} images")
    return notes


def short_names(backbones: Sequence[str], study: Study, records: Mapping[str, object]) -> dict[str, str]:
    """What tables and plots call a backbone: its method where that tells it from the others, else its id without what all begin with."""
    methods = {name: _method(records[name]) for name in study.backbones}
    unique = {name: method for name, method in methods.items() if method and list(methods.values()).count(method) == 1}
    first = backbones[0].split("-")
    shared = 0
    while shared < len(first) - 1 and all(
        name.split("-")[: shared + 1] == first[: shared + 1] and name.count("-") > shared for name in backbones
    ):
        shared += 1
    return {name: unique.get(name, "-".join(name.split("-")[shared:])) for name in backbones}


def _method(record: object) -> str:
    made = getattr(record, "pretraining", None)
    return made.method if made is not None else ""
