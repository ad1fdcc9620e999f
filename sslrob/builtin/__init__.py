"""First-party components, registered the way any plugin registers its own."""

from __future__ import annotations

from sslrob.hookspecs import Register, hookimpl


@hookimpl
def register_attacks(register: Register) -> None:
    register("pgd", "sslrob.builtin.gradient:PGD")
    register("fgsm", "sslrob.builtin.gradient:FGSM")
    register("noise", "sslrob.builtin.noise:Noise")


@hookimpl
def register_tasks(register: Register) -> None:
    register("classification", "sslrob.builtin.classification:Classification")
