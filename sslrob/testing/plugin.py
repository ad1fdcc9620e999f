"""All contracts of everything that an installed distribution registers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sslrob.errors import SslrobError, unknown
from sslrob.plugins import Component, Plugins, installed

if TYPE_CHECKING:
    from sslrob.task import Task

Settings = Mapping[tuple[str, str], Mapping[str, Any]]

LISTING = """
import sys
from sslrob.plugins import Plugins
plugins = Plugins().load()
plugins.zoo_files()
print(*[name for name in ("torch",) if name in sys.modules])
"""


@dataclass(frozen=True)
class Check:
    """One thing to check; calling it raises an AssertionError if it does not hold.

    Attributes:
        name: such as "attack pgd: strength".
    """

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name

    def complaint(self) -> str | None:
        """What broke; None if all is well."""
        try:
            self.run()
        except Exception as error:  # whatever somebody else's code raises is a complaint about it
            text = str(error) or "no message"
            return text if isinstance(error, (AssertionError, SslrobError)) else f"{type(error).__name__}: {text}"
        return None


def check_plugin(distribution: str, *, plugins: Plugins | None = None) -> list[tuple[str, str | None]]:
    """What was checked, and for each either a complaint or None.

    Args:
        distribution: its name, as pip knows it.
        plugins: where to look; the installed ones by default.

    Raises:
        SslrobError: no installed plugin is of that distribution.
    """
    return [(str(check), check.complaint()) for check in checks(distribution, plugins=plugins)]


def checks(distribution: str, *, plugins: Plugins | None = None, settings: Settings | None = None) -> list[Check]:
    """Every check of a distribution's components, to parametrise a test with.

    Args:
        distribution: its name, as pip knows it.
        plugins: where to look; the installed ones by default.
        settings: other than the default settings, by kind and name, for components that would be slow:
            `{("attack", "square"): {"queries": 50}}`.

    Raises:
        SslrobError: no installed plugin is of that distribution.
    """
    if not __debug__:
        raise SslrobError("python -O leaves out assertions, so checks would find nothing", hint="unset PYTHONOPTIMIZE")
    plugins = installed() if plugins is None else plugins
    known = {_normal(origin.split()[0]): origin for origin in (*plugins.origins, *plugins.broken)}
    if _normal(distribution) not in known:
        raise unknown("plugin", distribution, known)
    origin = known[_normal(distribution)]
    if origin in plugins.broken:
        return [Check(f"{origin}: loads", partial(_fail, plugins.broken[origin]))]
    own = [
        component
        for kind in ("backbone", "attack", "task", "defense", "layout")
        for component in plugins.of(kind)
        if component.plugin == origin
    ]
    found = [Check(f"{origin}: listing imports no torch", partial(_check_light, origin.split()[0]))]
    for component in own:
        found += _of_component(component, (settings or {}).get((component.kind, component.name), {}))
    return found


def _of_component(component: Component, settings: Mapping[str, Any]) -> Iterator[Check]:
    title = f"{component.kind} {component.name}"
    yield Check(f"{title}: resolves", lambda: (component.load(), None)[1])
    yield Check(f"{title}: settings", partial(_check_settings, component))
    yield Check(f"{title}: contract", partial(_check_contract, component, settings))
    if component.kind == "attack":
        yield Check(f"{title}: strength", partial(_check_strength, component, settings))


def _check_light(distribution: str) -> None:
    """In a process of its own: load the entry points, collect what they register, see what got imported."""
    environment = {**os.environ, "SSLROB_PLUGINS": distribution, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", LISTING], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"listing {distribution} in a new process failed: {done.stderr.strip().splitlines()[-1:]}"
    heavy = done.stdout.split()
    assert not heavy, f'listing what {distribution} registers imports {heavy[0]}; register "module:Class" strings instead of classes'


def _check_settings(component: Component) -> None:
    from sslrob.testing.settings import check_settings

    check_settings(component.load())


def _check_contract(component: Component, settings: Mapping[str, Any]) -> None:
    built = component.load()(**settings)
    if component.kind == "attack":
        from sslrob.testing.attacks import check_attack

        check_attack(built)
    elif component.kind == "backbone":
        from sslrob.testing.backbones import check_backbone

        check_backbone(built)
    elif component.kind == "defense":
        from sslrob.testing.defenses import check_defense

        check_defense(built)
    elif component.kind == "layout":
        from sslrob.testing.layouts import check_layout

        check_layout(built)
    else:
        _check_declared(built)


def _check_strength(component: Component, settings: Mapping[str, Any]) -> None:
    """None may win where it cannot; those that see gradients must win where it is possible."""
    from sslrob.testing.attacks import check_strength

    attack = component.load()(**settings)
    if attack.tasks is None or "classification" in attack.tasks:
        raises_task = attack.objectives is None or "task" in attack.objectives  # another objective says nothing of the border
        check_strength(attack, slack=1.25 if attack.access == "white-box" and raises_task else None)


def _check_declared(task: Task) -> None:
    """What can be said of a task without data; `check_task` and `check_victim` look at the rest."""
    name = type(task).__name__
    assert task.version >= 1, f"{name}.version is {task.version!r}; count from 1"
    assert len(task.headline) > 0, f"{name}.headline is empty; name the metric to quote"
    assert all(isinstance(head, str) for head in task.heads), f"{name}.heads is {task.heads!r}; name the heads that victim() builds"


def _fail(reason: str) -> None:
    raise AssertionError(f"does not load: {reason}")


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
