"""What pydantic says of a zoo file, as a person would: place, key, value, and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel

from sslrob.errors import close_names
from sslrob.yaml_file import Document
from sslrob.zoo import ZooFile


def problem(document: Document, details: Any) -> tuple[str, str]:
    """What is wrong, where, and a hint, which may be empty."""
    keys = list(details["loc"])
    key = str(keys[-1]) if keys else ""
    place = f"{document.path}:{document.line(keys)}"
    path = ".".join(map(str, keys))
    match details["type"]:
        case "extra_forbidden":
            close = close_names(key, _known_keys(keys[:-1]))
            return f"{place}: {path}: unknown key {key!r}", f"did you mean {close[0]!r}?" if close else ""
        case "missing":
            parent = ".".join(map(str, keys[:-1])) or "the file"
            return f"{place}: {parent} has no {key!r}", f"add {key}: ..."
        case _ if key == "[key]":
            return f"{place}: {keys[0]}: {keys[-2]!r} is not a valid name", "use lower case letters, digits and . + _ -"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{place}: {path or 'the file'} is not a mapping of keys to values, got {_short(details['input'])}", ""
    reason = details["msg"][:1].lower() + details["msg"][1:]
    return f"{place}: {path}: {reason}, got {_short(details['input'])}", details.get("ctx", {}).get("hint", "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(keys: Sequence[str | int]) -> list[str]:
    """What may stand in the mapping that `keys` leads to."""
    record: type[BaseModel] = ZooFile
    for key in [*keys[:1], *keys[2:]]:  # the second key is an entry's name
        found = _record_in(record.model_fields[str(key)].annotation) if key in record.model_fields else None
        if found is None:
            return []
        record = found
    return [entry.alias or name for name, entry in record.model_fields.items()]


def _record_in(annotation: Any) -> type[BaseModel] | None:
    """The first record type inside an annotation such as `dict[str, Backbone]` or `Weights | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _record_in(part))), None)
