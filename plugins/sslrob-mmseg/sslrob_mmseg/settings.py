"""Settings are frozen dataclasses; what a user wrote is checked against them in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sslrob.errors import SslrobError, unknown

Settings = TypeVar("Settings")


def checked(kind: type[Settings], values: Mapping[str, Any], what: str) -> Settings:
    """`values` as a `kind`.

    Args:
        what: whose settings they are, for the error.

    Raises:
        SslrobError: a setting does not exist or its value does not fit.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise unknown(f"setting of {what}", name, known)
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SslrobError(
            f"setting {place!r} of {what} is {first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}",
            hint=f"correct it, or leave it out for its default; settings: {', '.join(known)}",
        ) from None
