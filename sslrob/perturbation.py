"""A universal move that an earlier run learned, as part of another question: `--perturbation RUN`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sslrob import epsilon
from sslrob.errors import SslrobError
from sslrob.spec import AttackSpec, PerturbationSpec
from sslrob.weights import sha256
from sslrob.zoo import Weights


def read(path: Path) -> tuple[AttackSpec, PerturbationSpec]:
    """The attack that learned the move of a file, and the move.

    Raises:
        SslrobError: the file is missing, damaged, or none of a universal move.
    """
    from sslrob.universal import load, told

    found = told(path)
    load(path)  # a file that is broken further on is refused before anything begins
    try:
        attack = AttackSpec.model_validate(found.get("attack"))
        weights = Weights(file=path, sha256=sha256(path))
        move = PerturbationSpec(weights=weights, threat_model=found.get("threat_model", ""), learned_on=found.get("learned_on", ""))
    except ValidationError as error:
        raise SslrobError(f"{str(path)!r} tells what this version of sslrob does not know: {error}", hint="learn the move again") from None
    return attack, move


def require_norm(move: PerturbationSpec, norm: str) -> None:
    """Raises:
    SslrobError: the move was learned in another norm.
    """
    epsilon.require_norm(norm)
    own, _ = epsilon.parse_text(move.threat_model)
    if own != norm:
        raise SslrobError(f"the move was learned in norm {own!r}, not {norm!r}", hint="leave --norm out, or learn another move")


def require_fits(move: PerturbationSpec, threat_model: str) -> None:
    """Raises:
    SslrobError: the move was learned within a smaller epsilon, which it cannot fill.
    """
    (own, least), (_, radius) = epsilon.parse_text(move.threat_model), epsilon.parse_text(threat_model)
    if radius > least:
        hint = f"use --epsilon {epsilon.write(own, least).partition(':')[2]} or less, or learn another move"
        raise SslrobError(f"the move was learned within {move.threat_model}, so it cannot fill {threat_model}", hint=hint)
