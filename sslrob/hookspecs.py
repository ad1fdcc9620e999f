"""The hooks a plugin may implement.  `register(name, component)` takes a class or, so that nothing is imported, `"module:Class"`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from sslrob.task import Victim as Built
    from sslrob.zoo import Backbone, Settings, Victim, Weights

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
def resolve_reference(kind: str, text: str) -> Backbone | Victim | None:
    """The zoo's record for what `--backbone SCHEME:REST` or `--victim SCHEME:REST` means; `kind` is "backbone" or "victim".

    None for a scheme that is somebody else's, or of the other kind.
    """


@hookspec(firstresult=True)
def build_classifier(reference: str, weights: Weights | None, settings: Settings) -> Built | None:
    """The whole classifier that a reference of one's own scheme means, with its weights; None for a scheme that is somebody else's."""
