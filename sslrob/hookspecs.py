"""The hooks a plugin may implement.  `register(name, component)` takes a class or, so that nothing is imported, `"module:Class"`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from sslrob.zoo import Victim

hookspec = HookspecMarker("sslrob")
hookimpl = HookimplMarker("sslrob")


class Register(Protocol):
    """What a `register_*` hook is handed."""

    def __call__(self, name: str, component: type | str) -> None: ...


@hookspec
def register_backbones(register: Register) -> None:
    """Architectures: `sslrob.Backbone` classes whose constructor arguments are settings."""


@hookspec
def register_attacks(register: Register) -> None:
    """Attacks: frozen dataclasses that extend `sslrob.Attack`."""


@hookspec
def register_tasks(register: Register) -> None:
    """Tasks: `sslrob.Task` classes."""


@hookspec
def register_defenses(register: Register) -> None:
    """Defenses: frozen dataclasses that extend `sslrob.Defense`."""


@hookspec
def register_layouts(register: Register) -> None:
    """Layouts of checkpoints: `sslrob.Layout` classes."""


@hookspec
def zoo_files() -> Sequence[Path]:  # type: ignore[empty-body]
    """YAML files that are merged into the zoo."""


@hookspec(firstresult=True)
def resolve_reference(text: str) -> Victim | None:
    """The whole victim that `--victim SCHEME:REST` means, or None for a scheme that is somebody else's."""
