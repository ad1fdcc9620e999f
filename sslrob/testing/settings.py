"""The contract of settings: each has a default and a description."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError


def check_settings(component: type) -> None:
    """Check that a component builds without arguments, and that each of its settings says what it means.

    Settings are the fields of a dataclass, else the arguments of the constructor.  A field is described by
    `Annotated[..., Field(description=...)]`, any setting by a line `NAME: ...` under `Args:` of the docstring.

    Raises:
        AssertionError: names the setting.
    """
    name = component.__name__
    described = _described(component)
    for setting, has_default in _settings(component):
        assert has_default, f"setting {setting!r} of {name} has no default; give it the value of the paper or the usual one"
        assert setting in described, (
            f"setting {setting!r} of {name} has no description; add Annotated[..., Field(description='...')], or '{setting}: ...' under "
            "Args: of the docstring"
        )
    if dataclasses.is_dataclass(component):
        _check_validation(component, name)


def _settings(component: type) -> Iterator[tuple[str, bool]]:
    """Name of each setting, and whether it has a default."""
    if dataclasses.is_dataclass(component):
        for field in dataclasses.fields(component):
            yield field.name, field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        return
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind not in variable:
            yield parameter.name, parameter.default is not parameter.empty


def _described(component: type) -> set[str]:
    """The settings that a docstring or a pydantic field describes."""
    found: set[str] = set()
    for document in (component.__doc__, vars(component).get("__init__", component).__doc__):
        _, _, arguments = (document or "").partition("Args:\n")
        for names in re.findall(r"^\s*(\w+(?:, \w+)*): \S", arguments, flags=re.MULTILINE):
            found.update(names.split(", "))
    if dataclasses.is_dataclass(component):
        fields = TypeAdapter[Any](component).json_schema().get("properties", {})
        found.update(setting for setting, schema in fields.items() if schema.get("description"))
    return found


def _check_validation(component: type, name: str) -> None:
    adapter = TypeAdapter[Any](component)
    try:
        adapter.validate_python({})
    except ValidationError as error:
        first = error.errors()[0]
        raise AssertionError(f"the defaults of {name} do not pass its own validation: {first['loc']}: {first['msg']}") from error
    try:
        adapter.validate_python({"no-such-setting": 1})
    except ValidationError:
        return
    raise AssertionError(f"{name} takes a misspelt setting without a word; keep __pydantic_config__ = {{'extra': 'forbid'}}")
