"""Settings of a component: the fields of its frozen dataclass, checked and completed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from sslrob.errors import SslrobError, close_names
from sslrob.zoo import Settings

Checked = TypeVar("Checked")
COMMAND = "change --set {key}=VALUE, or the zoo entry"
LIST = "write a list: --set {key}=[VALUE,VALUE]"
ENTRY = "correct it in the zoo entry, or leave it out for its default; settings: {known}"


def checked(cls: type[Checked], given: Mapping[str, Any], what: str) -> Checked:
    """The settings dataclass that `given` says, defaults where it says nothing.

    Args:
        cls: a frozen dataclass, such as a head's settings.
        given: as they stand in a zoo entry.
        what: "head 'fcos'", for the error.

    Raises:
        SslrobError: no such setting, or a value that it cannot have.
    """
    known = [entry.name for entry in fields(cls)] if is_dataclass(cls) else []
    for key in given:
        if key not in known:
            raise _no_such(key, known, what)
    try:
        return TypeAdapter(cls).validate_python(dict(given))
    except ValidationError as error:
        raise _wrong_setting(error, known, what, ENTRY) from None


def complete(cls: type, given: Mapping[str, Any], overrides: Sequence[str], what: str) -> Settings:
    """Every setting of a settings dataclass, checked: its defaults, changed by `given`, changed by `overrides`.

    Args:
        cls: a frozen dataclass, such as an attack.
        overrides: `KEY=VALUE` each; the field's type decides what VALUE means.
        what: "attack 'pgd'", for the error.

    Raises:
        SslrobError: no such setting, or a value that it cannot have.
    """
    texts: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise SslrobError(f"setting {override!r} has no value", hint=f"write --set {key}=VALUE")
        if key in texts:
            raise SslrobError(f"setting {key!r} is given twice", hint=f"keep one --set {key}=...")
        texts[key] = text
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(cls)
    except (PydanticUserError, NameError, TypeError) as error:
        hint = "declare it @dataclass(frozen=True), with types that exist when it is imported"
        raise SslrobError(f"{what}: {cls.__qualname__} is no dataclass of settings: {error}", hint=hint) from error
    values = {**given, **texts}
    try:
        try:
            valid = adapter.validate_python(values)
        except ValidationError as error:  # a second try for what no text can be: null, lists, mappings
            wrong = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
            parsed = {key: _parsed(texts[key]) for key in wrong & texts.keys()}
            try:
                valid = adapter.validate_python({**values, **parsed})
            except ValidationError as again:
                meant = again if any(isinstance(value, list | dict) for value in parsed.values()) else error
                raise _wrong_setting(meant, list(adapter.json_schema().get("properties", {})), what, COMMAND) from None
    except TypeError as error:
        raise SslrobError(f"{what} cannot be made: {error}", hint="tell the author of its plugin") from error
    settings: Settings = adapter.dump_python(valid, mode="json")
    return settings


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _wrong_setting(error: ValidationError, known: Sequence[str], what: str, hint: str) -> SslrobError:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if key and key not in known:
        return _no_such(key, known, what)
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    reason = message[:1].lower() + message[1:]
    if not key:
        return SslrobError(f"{what}: {reason}", hint="change its settings with --set KEY=VALUE, or in the zoo entry")
    told = (LIST if hint == COMMAND and first["type"] in ("list_type", "tuple_type") else hint).format(key=key, known=", ".join(known))
    return SslrobError(f"setting {place!r} of {what}: {reason}, got {first['input']!r}", hint=told)


def _no_such(key: str, known: Sequence[str], what: str) -> SslrobError:
    close = close_names(key, known)
    hint = f"did you mean {close[0]!r}?" if close else f"its settings are {', '.join(known)}" if known else "it has no settings"
    return SslrobError(f"{what} has no setting {key!r}", hint=hint)
