"""What a study's runs say, as tables and plots take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sslrob.stats import Difference
from sslrob.study.grid import Placed
from sslrob.zoo import Study

WORST = "worst case"  # over the attacks, image by image
CLEAN = "clean"


class Estimate(NamedTuple):
    """A metric in percent, its 95 % interval, and of how many images it is."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Result:
    """What is known of one victim.

    Attributes:
        robust, success: metric and attack success rate by attack, `WORST` among them, and threat model.
    """

    clean: Estimate
    robust: Mapping[tuple[str, str], Estimate]
    success: Mapping[tuple[str, str], Estimate]


@dataclass(frozen=True)
class Test:
    """Whether two victims differ.

    Attributes:
        verdict: "clean", or the threat model under which the worst cases are compared.
        difference: `backbone` minus `against`, in percentage points.
        adjusted: p after Holm's correction.
    """

    backbone: str
    against: str
    verdict: str
    difference: Difference
    adjusted: float


@dataclass(frozen=True)
class Table:
    """A data set, and the heads of one recipe.

    Attributes:
        finetuned: the heads were trained together with their backbones.
        images: how many the numbers are of: those that all of its runs have.
        graded: see `Task.graded`.
        tests: each backbone against the reference, one family; and
        hardened: each hardened backbone against its natural self, another.
        notes: what a reader has to know.
    """

    dataset: str
    recipe: str
    finetuned: bool
    metric: str
    graded: bool
    images: int
    attacks: tuple[str, ...]
    epsilons: tuple[str, ...]
    results: Mapping[str, Result]
    tests: tuple[Test, ...] = ()
    hardened: tuple[Test, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A study, as far as its runs go.

    Attributes:
        missing: cells without a finished run of as many images as are asked for.
    """

    name: str
    study: Study
    names: Mapping[str, str]
    tables: tuple[Table, ...]
    missing: tuple[Placed, ...]
