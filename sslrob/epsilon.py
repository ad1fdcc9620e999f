"""Threat models as text, `linf:4/255`: read, checked and written without torch."""

from __future__ import annotations

import math
from fractions import Fraction

from sslrob.errors import SslrobError, unknown

NORMS = ("linf", "l2", "l1")
EVERY_IMAGE = "linf:1"  # no value can move farther
EXAMPLE = "epsilon is a radius on the [0, 1] scale, such as 4/255"


def parse_text(text: str) -> tuple[str, Fraction]:
    """Norm and epsilon of `NORM:EPSILON`.

    Raises:
        SslrobError: no such norm, or an epsilon that is no radius on the [0, 1] scale.
    """
    norm, colon, radius = text.partition(":")
    if not colon:
        raise SslrobError(f"threat model {text!r} has no epsilon", hint="write NORM:EPSILON, such as linf:4/255")
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    return norm, _radius(radius, norm, f" of {text!r}")


def parse_epsilon(text: str, norm: str) -> Fraction:
    """Epsilon alone, `4/255` or `0.0157`, as it is written after `--epsilon`.

    Raises:
        SslrobError: see `parse_text`.
    """
    require_norm(norm)
    return _radius(text, norm, "")


def require_norm(norm: str) -> None:
    """Raises:
    SslrobError: there is no such norm.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)


def write(norm: str, epsilon: Fraction) -> str:
    """The one text of a threat model: `linf:8/510` and `linf:4/255` are both `linf:4/255`."""
    for factor, unit in ((1, ""), (255, "/255")):
        decimal = _decimal(epsilon * factor)
        if decimal:
            return f"{norm}:{decimal}{unit}"
    return f"{norm}:{epsilon}"


def _radius(text: str, norm: str, where: str) -> Fraction:
    epsilon = _fraction(text)
    if epsilon is None:
        raise SslrobError(f"epsilon {text!r}{where} is not a number", hint=EXAMPLE)
    if epsilon <= 0:
        raise SslrobError(f"epsilon {text}{where} is not above 0", hint=EXAMPLE)
    if norm == "linf" and epsilon > 1:
        meant = f"did you mean {norm + ':' if where else ''}{text}/255?"
        raise SslrobError(
            f"epsilon {text}{where} is not on the [0, 1] scale", hint=meant if epsilon <= 255 and "/" not in text else EXAMPLE
        )
    return epsilon


def _fraction(text: str) -> Fraction | None:
    """`4/255`, `0.5/255` or `1e-3` exactly; None for anything else, 1e999999999 included."""
    value = Fraction(1)
    above, slash, below = text.partition("/")
    for part, power in ((above, 1), (below, -1)) if slash else ((above, 1),):
        try:
            size = float(part)
            if not math.isfinite(size):
                return None
            value *= (Fraction(part.strip()) if size else Fraction(0)) ** power
        except (ValueError, ZeroDivisionError):
            return None
    return value


def _decimal(value: Fraction) -> str:
    """`value` as an exact decimal, empty if it has none of at most 12 digits."""
    for digits in range(13):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            whole, part = divmod(scaled.numerator, 10**digits)
            return f"{whole}.{part:0{digits}d}" if digits else str(whole)
    return ""
