"""Adversarial training that raises a bound on mutual information, for sslrob."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sslrob import hookimpl

if TYPE_CHECKING:
    from sslrob.hookspecs import Register


@hookimpl
def register_defenses(register: Register) -> None:
    register("mi-at", "sslrob_mi.mi_at:MIAT")


@hookimpl
def zoo_files() -> list[Path]:
    return [Path(__file__).with_name("zoo.yaml")]
