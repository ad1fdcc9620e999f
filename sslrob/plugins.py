"""Find plugins, collect what they register, import a component only when it is asked for by name."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from sslrob import hookspecs
from sslrob.errors import SslrobError, unknown

if TYPE_CHECKING:
    from sslrob import task
    from sslrob.zoo import Backbone, Settings, Victim, Weights

GROUP = "sslrob"
HOOKS = {
    "backbone": "register_backbones",
    "attack": "register_attacks",
    "task": "register_tasks",
    "defense": "register_defenses",
    "layout": "register_layouts",
}
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Component:
    """Something a plugin registered.

    Attributes:
        kind: "backbone", "attack", "task", "defense" or "layout".
        name: lower case, digits, hyphens: the word on the command line and in the zoo.
        target: a class, or `"module:Class"`, imported by `load()`.
        plugin: "distribution version".
    """

    kind: str
    name: str
    target: type | str
    plugin: str

    @property
    def distribution(self) -> str:
        return self.plugin.split()[0]

    @property
    def summary(self) -> str:
        """The first line of its class's docstring, which is read, not imported; empty if there is none."""
        if not isinstance(self.target, str):
            return (inspect.getdoc(self.target) or "").partition("\n")[0]
        module, _, name = self.target.partition(":")
        try:
            source = getattr(find_spec(module), "origin", None)
            found = [
                one for one in ast.parse(Path(str(source)).read_text("utf-8")).body if isinstance(one, ast.ClassDef) and one.name == name
            ]
        except (ImportError, OSError, SyntaxError, ValueError):  # load() tells what is wrong with it
            return ""
        return (ast.get_docstring(found[0]) or "").partition("\n")[0] if found else ""

    def load(self) -> Any:
        """The class itself.

        Raises:
            SslrobError: its module cannot be imported, or is not a class of this kind.
        """
        if not isinstance(self.target, str):
            return self._checked(self.target)
        module, _, attribute = self.target.partition(":")
        try:
            return self._checked(getattr(import_module(module), attribute))
        except SslrobError:
            raise
        except Exception as error:  # a plugin's import may raise anything; it must harm nothing but this lookup
            raise SslrobError(
                f"{self.kind} {self.name!r} of {self.plugin} cannot be imported: {type(error).__name__}: {error}",
                hint=f'see where it fails: python -c "import {module}"',
            ) from error

    def _checked(self, target: Any) -> Any:
        contract = getattr(import_module(f"sslrob.{self.kind}"), self.kind.capitalize())
        if not (isinstance(target, type) and issubclass(target, contract)):
            raise SslrobError(
                f"{self.kind} {self.name!r} of {self.plugin} is {target!r}, which does not extend sslrob.{contract.__name__}",
                hint=f"register a subclass of sslrob.{contract.__name__}",
            )
        return target


@dataclass
class Plugins:
    """Everything that the installed plugins register, by kind and name.

    Attributes:
        origins: "distribution version" of every plugin that loaded.
        broken: why a plugin did not load, by "distribution version".
    """

    components: list[Component] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)

    def load(self) -> Plugins:
        """Load every entry point of the group; one that fails is remembered, and named wherever it may be missed.

        `SSLROB_PLUGINS=a,b` restricts loading to these distributions (sslrob's own components always load).
        """
        wanted = os.environ.get("SSLROB_PLUGINS")
        allowed = None if wanted is None else {GROUP, *(w.strip() for w in wanted.split(","))}
        for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.dist.name if e.dist else "", e.name)):
            name, version = (entry.dist.name, entry.dist.version) if entry.dist else (entry.value, "?")
            if allowed is not None and name not in allowed:
                continue
            try:
                self.add(entry.load(), f"{name} {version}")
            except Exception as error:  # whatever a plugin's import raises harms nothing else
                self.broken[f"{name} {version}"] = f"{type(error).__name__}: {error}"
        return self

    def add(self, plugin: object, origin: str) -> None:
        """Register a plugin module or object.

        Args:
            origin: "distribution version".

        Raises:
            SslrobError: a hook is misspelt, or a name is not a valid one; nothing of the plugin is kept.
        """
        self._manager.register(plugin, name=f"{origin} #{len(self.origins)}")
        try:
            self._manager.check_pending()
            found = list(self._registered(plugin, origin))
        except Exception:
            self._manager.unregister(plugin)
            raise
        self.components += found
        self.origins.append(origin)

    def _registered(self, plugin: object, origin: str) -> Iterator[Component]:
        for kind, hook in HOOKS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is plugin:
                    found: list[tuple[str, type | str]] = []
                    implementation.function(lambda name, component, found=found: found.append((name, component)))
                    for name, target in found:
                        if not NAME.fullmatch(name):
                            raise SslrobError(f"{kind} {name!r} of {origin} has an invalid name", hint="use lower case, digits and hyphens")
                        yield Component(kind, name, target, origin)

    def of(self, kind: str) -> list[Component]:
        """The components of a kind, ordered by name."""
        return sorted((c for c in self.components if c.kind == kind), key=lambda c: (c.name, c.plugin))

    def find(self, kind: str, name: str) -> Component:
        """The component called NAME or DISTRIBUTION/NAME.

        Raises:
            SslrobError: nothing, or more than one plugin, offers it.
        """
        distribution, _, bare = name.rpartition("/")
        found = [c for c in self.of(kind) if c.name == bare and distribution in ("", c.distribution)]
        if len(found) > 1:
            choices = " or ".join(f"{c.distribution}/{bare}" for c in found)
            raise SslrobError(f"{kind} {name!r} is offered by {len(found)} plugins", hint=f"write {choices}")
        if not found:
            raise unknown(kind, name, {c.name for c in self.of(kind)}, broken=self.complaints())
        return found[0]

    def get(self, kind: str, name: str) -> Any:
        """The class called NAME or DISTRIBUTION/NAME, imported."""
        return self.find(kind, name).load()

    def zoo_files(self) -> dict[Path, str]:
        """The distribution of every zoo file that a plugin brings, by file; a plugin that fails to say is remembered as broken."""
        found: dict[Path, str] = {}
        for implementation in self._manager.hook.zoo_files.get_hookimpls():
            try:
                brought: Any = implementation.function()
                distribution = str(implementation.plugin_name).partition(" ")[0]
                found |= {Path(path): distribution for path in brought}
            except Exception as error:  # it harms nothing else
                self.broken[str(implementation.plugin_name).rpartition(" #")[0]] = f"{type(error).__name__}: {error}"
        return found

    def resolve(self, kind: str, text: str) -> Backbone | Victim | None:
        """The record that a reference `SCHEME:REST` means to some plugin, else None; a plugin that fails is remembered as broken.

        Args:
            kind: "backbone" or "victim".
        """
        from sslrob import zoo

        found: Backbone | Victim | None = self._first("resolve_reference", getattr(zoo, kind.capitalize()), kind=kind, text=text)
        return found

    def classifier(self, reference: str, weights: Weights | None, settings: Settings) -> task.Victim | None:
        """The whole classifier that a reference means to some plugin, else None; a plugin that fails is remembered as broken."""
        from sslrob.task import Victim

        found: task.Victim | None = self._first("build_classifier", Victim, reference=reference, weights=weights, settings=settings)
        return found

    def _first(self, hook: str, wanted: type, **given: Any) -> Any:
        """What the first plugin answers that knows; each is handed those arguments that it names."""
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                found: Any = implementation.function(*(given[name] for name in implementation.argnames))
                if found is not None and not isinstance(found, wanted):
                    raise TypeError(f"{hook} returned {type(found).__name__}, not {wanted.__name__}")
            except SslrobError:
                raise
            except Exception as error:  # it harms nothing else
                self.broken[str(implementation.plugin_name).rpartition(" #")[0]] = f"{type(error).__name__}: {error}"
            else:
                if found is not None:
                    return found
        return None

    def complaints(self) -> list[str]:
        """A phrase for each plugin that did not load."""
        return [f"{origin} ({reason})" for origin, reason in self.broken.items()]


@cache
def installed() -> Plugins:
    """The plugins of this environment, loaded once a process."""
    return Plugins().load()
