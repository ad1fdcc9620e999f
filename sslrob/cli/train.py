"""`sslrob train`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslrob.cli.options import Json, Zoos, trust_code, trusting
from sslrob.errors import SslrobError

if TYPE_CHECKING:
    from sslrob.plugins import Component, Plugins
    from sslrob.zoo import Dataset, Zoo


def train(
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A backbone of the zoo, a family, such as swav, or a reference, such as timm:NAME.")
    ],
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="A checkpoint instead of the zoo's, or: random.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="How: sslrob zoo list recipes.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Instead of --recipe: the task's usual one.")] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="PROTOCOL", help="With --task: linear, knn, frozen or finetuned; default: linear, else frozen.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the task's usual one.")] = None,
    zoo: Zoos = None,
    trusted: Annotated[bool, trusting()] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 and so on.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For weights and zoo.yaml, instead of your own part of the zoo.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a head for a backbone by a recipe of the zoo, on the data set's fit split, and measure it.

    The head joins the zoo; the same command again goes on where it stopped, or answers at once.
    """
    from sslrob import license as licenses
    from sslrob import own, references, zoo_files
    from sslrob.choice import member, usual_dataset
    from sslrob.cli.evaluate import stdout_for_results
    from sslrob.cli.stages import stages
    from sslrob.plugins import installed
    from sslrob.recipes import made, plan, require_free, usual_recipe
    from sslrob.resolve import known

    trust_code(trusted)
    if offline:
        os.environ["SSLROB_OFFLINE"] = "--offline"  # for errors: who turned downloads off
    with stdout_for_results(as_json):
        there = [out / own.FILE] if out is not None and (out / own.FILE).exists() else []
        everything, plugins = zoo_files.load([*(zoo or ()), *there]), installed()
        if recipe is None:
            recipe = usual_recipe(_task(task, dataset, everything, plugins), protocol, everything)
        elif task is not None or protocol is not None:
            raise SslrobError("a recipe says for which task and protocol it is", hint="leave --task and --protocol out, or --recipe")
        data = dataset or usual_dataset(plugins.find("task", everything.get("recipe", recipe).task), everything)
        backbone, everything = references.chosen(everything, plugins, backbone, data, weights)
        chosen = member(backbone, data, everything)
        record = everything.backbones[chosen]
        for note in () if as_json else filter(None, [record.notes, *licenses.warnings([(chosen, record.license)])]):
            typer.echo(note)
        if not known(record.weights):  # the plan needs the file: nothing is downloaded where there is nothing to learn from
            from sslrob import assemble

            lessons: Dataset = everything.get("dataset", data)
            assemble.require_there(lessons, assemble.task(lessons.task, plugins), fit=True)
        planned = plan(everything, plugins, chosen, recipe, dataset)
        home = (own.folder(planned.name) if out is None else out) / own.FILE
        head = made(planned, everything)
        if head is None:
            require_free(planned, everything, home)
            from sslrob.fitting import fit_head

            with stages(as_json) as show:
                progress = show(planned.name)
                _, head = fit_head(everything, chosen, recipe, dataset, out=home.parent, device=device, progress=progress, plugins=plugins)
            own.add(home, {"heads": {planned.name: head}})
        else:
            home = everything.origins["heads", planned.name]
    command = planned.evaluation(list(dict.fromkeys([*(zoo or ()), *([home] if out is not None else [])])))
    if as_json:
        told = {"head": planned.name, "file": str(home), "record": head.model_dump(mode="json"), "evaluation": command}
        typer.echo(json.dumps(told))
        return
    clean = ", ".join(f"{metric} {value:.1f}" for metric, value in head.clean.items())
    typer.echo(f"{planned.name} on {head.dataset}: {clean or 'no clean metrics are recorded'}\nit is in {home}\nattack it: {command}")


def _task(name: str | None, dataset: str | None, zoo: Zoo, plugins: Plugins) -> Component:
    """The task that is named, or that of the data set."""
    if name is None and dataset is None:
        raise SslrobError("neither a recipe nor a task is given", hint="add --recipe NAME, see: sslrob zoo list recipes")
    return plugins.find("task", name if name is not None else zoo.get("dataset", str(dataset)).task)
