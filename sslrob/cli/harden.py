"""`sslrob harden`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslrob.cli.options import trust_code, trusting

if TYPE_CHECKING:
    from sslrob.zoo import Dataset, Zoo

DEFENSE, DATA, MACHINE, OUTPUT = "Defense", "Images", "Machine", "Output"


def harden(
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A backbone of the zoo, a family, such as swav, or a reference, such as timm:NAME.",
            rich_help_panel=DEFENSE,
        ),
    ],
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="A checkpoint instead of the zoo's, or: random.", rich_help_panel=DEFENSE)
    ] = None,
    trusted: Annotated[bool, trusting(DEFENSE)] = False,
    defense: Annotated[
        str, typer.Option(metavar="NAME", help="A preset or a defense: sslrob defenses list.", rich_help_panel=DEFENSE)
    ] = "mi-at",
    attack: Annotated[
        str | None, typer.Option(metavar="NAME", help="Inside the training; default: the defense's.", rich_help_panel=DEFENSE)
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(metavar="RADIUS", help="Inside the training, such as 2/255.", rich_help_panel=DEFENSE)
    ] = None,
    norm: Annotated[str | None, typer.Option(metavar="NORM", help="linf, l2 or l1.", rich_help_panel=DEFENSE)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the defense, such as steps=50; repeatable.", rich_help_panel=DEFENSE),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of every image's random numbers.", rich_help_panel=DEFENSE)] = 0,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train on its fit split; default: that of classification.", rich_help_panel=DATA)
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many images the table is about.", rich_help_panel=DATA)] = None,
    zoo: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A zoo file of your own; repeatable.", rich_help_panel=DATA)
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=DATA)] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 and so on.", rich_help_panel=MACHINE)] = "auto",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the hardened backbone; default: BACKBONE-DEFENSE.", rich_help_panel=OUTPUT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For weights and zoo.yaml, instead of your own part of the zoo.", rich_help_panel=OUTPUT),
    ] = None,
    heads: Annotated[
        bool, typer.Option("--heads/--no-heads", help="Train heads for all tasks, and compare.", rich_help_panel=OUTPUT)
    ] = True,
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="Where runs are kept.", rich_help_panel=OUTPUT)] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.", rich_help_panel=OUTPUT)] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Harden a backbone by a defense, train its heads, and show what that changed.

    The hardened backbone joins the zoo; the same command again goes on where it stopped, or answers at once.
    """
    from sslrob import license as licenses
    from sslrob import own, zoo_files
    from sslrob.cli.evaluate import stdout_for_results
    from sslrob.cli.stages import stages
    from sslrob.hardened import USUAL_TASK, Words, plan
    from sslrob.plugins import installed
    from sslrob.resolve import known, without_downloads

    trust_code(trusted)
    if offline:
        os.environ["SSLROB_OFFLINE"] = "--offline"  # for errors: who turned downloads off
    plugins = installed()

    def load() -> Zoo:
        """Every file of the zoo, with what this command has added to it so far."""
        there = [out / own.FILE] if out is not None and (out / own.FILE).exists() else []
        return zoo_files.load([*(zoo or ()), *there])

    asked = Words(
        backbone=backbone,
        weights=weights,
        defense=defense,
        attack=attack,
        epsilon=epsilon,
        norm=norm,
        dataset=dataset,
        settings=settings or (),
        seed=seed,
        name=name,
    )
    with stdout_for_results(as_json):
        with without_downloads():
            made = plan(asked, load(), plugins)
        folder = own.folder(made.name) if out is None else out
        told = {"backbone": made.name, "sentence": made.sentence(), "folder": str(folder)}
        if not dry_run:
            from sslrob import assemble
            from sslrob.before_after import as_table, compare
            from sslrob.hardening import join_zoo

            data: Dataset = load().get("dataset", made.hardening.dataset)
            if unknown := not known(made.natural.weights):
                assemble.require_there(data, assemble.task(data.task, plugins), fit=True)
            if not as_json:
                used = (made.hardening.backbone, made.natural.license)
                for note in filter(None, [made.natural.notes, *licenses.warnings([used])]):
                    typer.echo(note)
                typer.secho(made.sentence(), bold=True)
            if unknown:
                made = plan(asked, load(), plugins)  # what it is made from needs the file, which is downloaded now
            with stages(as_json) as show:
                everything = join_zoo(made, load, out=folder, heads=heads, device=device, show=show, plugins=plugins)
                natural = made.hardening.backbone
                pairs = (
                    compare(natural, made.name, USUAL_TASK, everything, plugins, runs=runs, limit=limit, device=device, show=show)
                    if heads
                    else []
                )
    if dry_run:
        plain = made.hardening.model_dump(mode="json")
        text = f"{told['sentence']}\n\n{json.dumps(plain, indent=2)}\n\nit would be in {folder}"
        typer.echo(json.dumps({**told, "hardening": plain}) if as_json else text)
        return
    trained = sorted(head for head, record in everything.heads.items() if record.backbone == made.name)
    if as_json:
        record = everything.backbones[made.name].model_dump(mode="json")
        compared = [{**pair._asdict(), "before": pair.before._asdict(), "after": pair.after._asdict()} for pair in pairs]
        typer.echo(json.dumps({**told, "record": record, "heads": trained, "comparison": compared}))
        return
    if pairs:
        typer.echo(f"\n{as_table(pairs)}")
    for protocol in ("linear", "knn"):
        if heads and protocol not in {pair.head for pair in pairs}:
            typer.echo(f"\nno {protocol} comparison: {natural} has no such head; sslrob train --backbone {natural} --recipe {protocol}")
    folder = everything.origins["backbones", made.name].parent  # elsewhere than asked, if it was there before
    typer.echo(f"\n{made.name} is in {folder}" + (f", with {', '.join(trained)}" if trained else ""))
    use = "" if out is None else f" --zoo {folder / own.FILE}"
    if trained:
        typer.echo(f"use it: sslrob eval --backbone {made.name} --task {USUAL_TASK} --attack pgd{use}")
