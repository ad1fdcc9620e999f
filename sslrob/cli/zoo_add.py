"""`sslrob zoo add`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sslrob.cli.options import Json, Zoos
from sslrob.cli.zoo import load
from sslrob.errors import SslrobError

RGB = 3


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint; it stays where it is.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="How it was pretrained, such as SwAV.")],
    arch: Annotated[
        str | None, typer.Option(metavar="NAME", help="resnet50, resnet50w2, a model of timm, or a backbone of the zoo; default: guessed.")
    ] = None,
    layout: Annotated[str | None, typer.Option(metavar="NAME", help="How it names its tensors, such as swav; default: guessed.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the entry; default: METHOD-ARCH.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Of the pixels in [0, 1]; one number or three.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="The same.")] = None,
    data: Annotated[str, typer.Option(metavar="NAME", help="What it was pretrained on.")] = "not told",
    license: Annotated[str, typer.Option(metavar="NAME", help="Of the weights, such as MIT.")] = "unknown",
    family: Annotated[str | None, typer.Option(metavar="NAME", help="A family that it joins, such as swav.")] = None,
    zoo: Zoos = None,
    as_json: Json = False,
) -> None:
    """Make a checkpoint of your own an entry of your own zoo, for every command that takes a backbone.

    Its architecture and the names of its tensors are guessed, and the guess is told; it joins once its tensors fit.
    """
    from sslrob import own
    from sslrob.adding import Told, entry
    from sslrob.cli.evaluate import stdout_for_results
    from sslrob.plugins import installed

    told = Told(method, arch, layout, name, _colour("mean", mean), _colour("std", std), data, license, family)
    with stdout_for_results(as_json):
        made, record = entry(file, told, load(zoo), installed())
        home = own.write(made, {"backbones": {made: record}})
    if as_json:
        typer.echo(json.dumps({"backbone": made, "file": str(home), "record": record.model_dump(mode="json")}))
        return
    typer.echo(f"{made}: {record.use} {record.settings or ''}".rstrip())
    if record.notes:
        typer.echo(record.notes)
    typer.echo(f"it is in {home}\ntrain a head for it: sslrob train --backbone {made} --task classification")


def _colour(what: str, text: str | None) -> list[float] | None:
    """Three numbers, or one that stands for three.

    Raises:
        SslrobError: it is neither.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, RGB):
        raise SslrobError(f"{what} {text!r} is neither one number nor three", hint=f"write --{what} 0.5,0.5,0.5")
    return values if len(values) == RGB else values * RGB
