"""`sslrob plugins list|check`, and `sslrob attacks|tasks|defenses list`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from sslrob.cli.options import Json, Zoos
from sslrob.cli.zoo import load
from sslrob.cli.zoo_rows import task_of, tasks_of
from sslrob.table import table

if TYPE_CHECKING:
    from sslrob.plugins import Component, Plugins
    from sslrob.zoo import Zoo

Entry = dict[str, str]

app = typer.Typer(help="What brings backbones, attacks, tasks and defenses.", no_args_is_help=True, rich_markup_mode=None)
LISTED = ("attack", "task", "defense")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the installed plugins, what each offers, and those that did not load."""
    from sslrob.plugins import HOOKS, installed

    found = installed()
    offers = {o: {kind: [c.name for c in found.of(kind) if c.plugin == o] for kind in HOOKS} for o in found.origins}
    if as_json:
        typer.echo(json.dumps({"plugins": offers, "broken": found.broken}))
        return
    rows = [
        (origin, "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)) for origin, kinds in offers.items()
    ]
    rows += [(origin, f"broken: {reason}") for origin, reason in found.broken.items()]
    typer.echo(table(("plugin", "offers"), rows))


@app.command()
def check(name: Annotated[str, typer.Argument(help="A distribution, such as sslrob-mmdet.")], as_json: Json = False) -> None:
    """Check that everything a plugin registers keeps its contract.  The exit code is 1 if something does not."""
    from sslrob.testing import checks

    bad, todo = 0, checks(name)
    for what in todo:
        complaint = what.complaint()
        bad += complaint is not None
        if as_json:
            typer.echo(json.dumps({"check": what.name, "complaint": complaint}))
        else:
            typer.echo(f"{'✓' if complaint is None else '✗'} {what.name}{f'{chr(10)}  {complaint}' if complaint else ''}")
    if not as_json:
        typer.echo(f"{bad} of {len(todo)} checks failed" if bad else "every contract is kept")
    if bad:
        raise typer.Exit(1)


def listing(kind: str) -> typer.Typer:
    """The command group `attacks`, `tasks` or `defenses`, with its one command."""
    group = typer.Typer(help=f"The {kind}s that are installed.", no_args_is_help=True, rich_markup_mode=None)

    @group.callback()
    def several() -> None:
        """Keep typer from taking the only command for the group itself."""

    @group.command("list", help=f"List the {kind}s: presets of the zoo, and components of plugins.")
    def list_(zoo: Zoos = None, as_json: Json = False) -> None:
        from sslrob.plugins import installed

        entries = ENTRIES[kind](load(zoo), installed())
        if as_json:
            typer.echo(json.dumps(entries))
        else:
            typer.echo(table(list(entries[0]), [list(entry.values()) for entry in entries]) if entries else f"no {kind}s are installed")

    return group


def _attacks(zoo: Zoo, plugins: Plugins) -> list[Entry]:
    presets = [
        {
            "attack": name,
            "search": record.use,
            "objective": record.objective,
            "settings": " ".join(
                [*(f"{k}={v}" for k, v in record.settings.items()), *([f"restarts={record.restarts}"] * (record.restarts > 1))]
            ),
            "description": record.description,
        }
        for name, record in zoo.attacks.items()
    ]
    bare = [
        {
            "attack": name,
            "search": component.name,
            "objective": "task",
            "settings": "",
            "description": component.summary or f"of {component.plugin}",
        }
        for name, component in _without_preset("attack", zoo, plugins)
    ]
    return presets + bare


def _tasks(zoo: Zoo, plugins: Plugins) -> list[Entry]:
    return [
        {
            "task": component.name,
            "data sets": ", ".join(name for name, record in zoo.datasets.items() if task_of(record) == component.name),
            "backbones": str(sum(component.name in tasks_of(name, zoo) for name in zoo.backbones)),
            "plugin": component.plugin,
        }
        for component in plugins.of("task")
    ]


def _defenses(zoo: Zoo, plugins: Plugins) -> list[Entry]:
    presets = [
        {
            "defense": name,
            "use": record.use,
            "attack": record.attack,
            "threat model": record.threat_model or "",
            "description": record.description,
        }
        for name, record in zoo.defenses.items()
    ]
    bare = [
        {
            "defense": name,
            "use": component.name,
            "attack": "",
            "threat model": "",
            "description": component.summary or f"of {component.plugin}",
        }
        for name, component in _without_preset("defense", zoo, plugins)
    ]
    return presets + bare


def _without_preset(kind: str, zoo: Zoo, plugins: Plugins) -> list[tuple[str, Component]]:
    """Components that no preset is named after, under the name to write: with its distribution where several plugins have it."""
    own = [component for component in plugins.of(kind) if component.name not in zoo.of(kind)]
    names = [component.name for component in own]
    return [(c.name if names.count(c.name) == 1 else f"{c.distribution}/{c.name}", c) for c in own]


ENTRIES: dict[str, Callable[[Zoo, Plugins], list[Entry]]] = {"attack": _attacks, "task": _tasks, "defense": _defenses}
