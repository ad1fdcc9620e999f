"""`sslrob eval`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslrob.cli import stages
from sslrob.cli.options import trust_code, trusting

if TYPE_CHECKING:
    from sslrob.shards import Progress

VICTIM, ATTACK, DATA, MACHINE, OUTPUT = "Victim", "Attack", "Images", "Machine", "Output"


def evaluate(
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A backbone of the zoo, a family, such as swav, or a reference, such as timm:NAME.", rich_help_panel=VICTIM
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="classification, segmentation or detection.", rich_help_panel=VICTIM)
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="A head's id or kind, where a backbone has several.", rich_help_panel=VICTIM)
    ] = None,
    victim: Annotated[
        str | None, typer.Option(metavar="SCHEME:REST", help="A whole model, such as mmdet:CONFIG or file:PATH.", rich_help_panel=VICTIM)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A checkpoint instead of the zoo's; with --backbone also: random.", rich_help_panel=VICTIM),
    ] = None,
    trusted: Annotated[bool, trusting(VICTIM)] = False,
    attack: Annotated[
        str | None, typer.Option(metavar="NAME", help="A preset or an attack: sslrob attacks list.  Default: pgd.", rich_help_panel=ATTACK)
    ] = None,
    perturbation: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The universal move that another run learned, or its file.", rich_help_panel=ATTACK),
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(metavar="RADIUS", help="On the [0, 1] scale, such as 4/255.", rich_help_panel=ATTACK)
    ] = None,
    norm: Annotated[str | None, typer.Option(metavar="NORM", help="linf, l2 or l1.", rich_help_panel=ATTACK)] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="GOAL", help="task, task:LOSS, embedding, embedding:l2:tokens and so on.", rich_help_panel=ATTACK),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the attack, such as steps=50; repeatable.", rich_help_panel=ATTACK),
    ] = None,
    surrogate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A backbone or head that the attack sees instead; repeatable.", rich_help_panel=ATTACK),
    ] = None,
    restarts: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Keep the best of this many runs.", rich_help_panel=ATTACK)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of every image's random numbers.", rich_help_panel=ATTACK)] = 0,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the task's usual one.", rich_help_panel=DATA)] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many images; more of them extend the run.", rich_help_panel=DATA)
    ] = None,
    zoo: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A zoo file of your own; repeatable.", rich_help_panel=DATA)
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=DATA)] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 and so on.", rich_help_panel=MACHINE)] = "auto",
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of the search: float32, or bfloat16; the victim judges in float32.", rich_help_panel=MACHINE),
    ] = "float32",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at a time; changes no result.", rich_help_panel=MACHINE)] = 32,
    shards: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes on this machine; changes no result.", rich_help_panel=MACHINE)
    ] = 1,
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="Where runs are kept.", rich_help_panel=OUTPUT)] = Path("runs"),
    pictures: Annotated[int, typer.Option(metavar="N", min=0, help="How many images to keep as pictures.", rich_help_panel=OUTPUT)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON, for programs.", rich_help_panel=OUTPUT)] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be evaluated, and stop.", rich_help_panel=OUTPUT)] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 4 if the result carries flags.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Attack a victim and measure what is left of it.

    The result goes to a folder of its own; the same question again goes on where it stopped, or answers at once.
    """
    from sslrob import zoo_files
    from sslrob.errors import SslrobError, Suspect
    from sslrob.plugins import installed
    from sslrob.resolve import Words, resolve, without_downloads

    trust_code(trusted)
    if offline:
        os.environ["SSLROB_OFFLINE"] = "--offline"  # for errors: who turned downloads off
    moves: Path | None = None
    if perturbation is not None:
        from sslrob.universal import find

        moves = find(perturbation, runs)
    asked = Words(
        attack=attack,
        perturbation=moves,
        precision=precision,
        backbone=backbone,
        victim=victim,
        weights=weights if victim is None or weights is None else Path(weights),
        surrogates=surrogate or (),
        task=task,
        dataset=dataset,
        head=head,
        objective=objective,
        settings=settings or (),
        restarts=restarts,
        epsilon=epsilon,
        norm=norm,
        seed=seed,
    )
    with stdout_for_results(as_json):
        from sslrob.execute import require_data, run

        everything, missing = zoo_files.load(zoo or ()), None
        with without_downloads():
            spec = resolve(asked, everything, installed())
        try:
            require_data(spec)
        except SslrobError as error:
            if not dry_run:
                raise
            missing = error
        if not dry_run:
            if not as_json:
                for note in spec.notes:
                    typer.echo(note)
                typer.secho(spec.sentence(), bold=True)
            if spec.unpinned:
                spec = resolve(asked, everything, installed())  # its id needs the files, which are downloaded now
            with _progress(as_json) as (images, lessons):
                record = run(
                    spec,
                    runs=runs,
                    limit=limit,
                    batch_size=batch_size,
                    shards=shards,
                    device=device,
                    pictures=pictures,
                    progress=images,
                    lessons=lessons,
                )
    if dry_run:
        folder = None if spec.unpinned else str(runs / spec.name)
        told = {"sentence": spec.sentence(), "folder": folder, "missing": missing and str(missing), "spec": spec.model_dump(mode="json")}
        where = (
            f"it would be in {folder}"
            if folder
            else f"its folder is known when its weights are: sslrob zoo fetch {' '.join(spec.unpinned)}"
        )
        if missing is not None:
            where += f"\nits images are not here: {missing}; {missing.hint}"
        said = "\n".join([*spec.notes, spec.sentence()])
        typer.echo(json.dumps(told) if as_json else f"{said}\n\n{spec.model_dump_json(indent=2)}\n\n{where}")
        return
    if as_json:
        typer.echo(json.dumps(record))
    else:
        from sslrob.report import show

        typer.echo(f"\n{show(record, titled=False)}")
    if strict and record["flags"]:
        names = ", ".join(flag["name"] for flag in record["flags"])
        n = len(record["flags"])
        raise Suspect(
            f"the result carries {n} {'flag' if n == 1 else 'flags'}: {names}", hint="read the evidence above before you quote it"
        )


@contextmanager
def stdout_for_results(wanted: bool) -> Iterator[None]:
    """Whatever the libraries print meanwhile goes to stderr, so that stdout is one JSON object."""
    if not wanted:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def _progress(silent: bool) -> Iterator[tuple[Progress, Progress]]:
    """Of the images, and of what a universal attack learns: a bar on a terminal, a line every ten per cent elsewhere, nothing if `silent`."""
    if silent:
        yield lambda done, total: None, lambda done, length: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(), stages.Lines("learning")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading", total=None)
        yield (
            lambda done, total: bar.update(task, description="images", completed=done, total=total),
            lambda done, length: bar.update(task, description="learning", completed=done, total=length),
        )


class Lines:
    """Says how far a run is, at every tenth of the images."""

    def __init__(self) -> None:
        self.told = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth > self.told:
            self.told = tenth
            typer.echo(f"{done} of {total} images", err=True)
