"""How far a study is: a bar on a terminal, a line for every finished cell elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from sslrob.report import duration
from sslrob.study.crew import Event
from sslrob.study.running import Display, Evaluation, Progress, Training


@contextmanager
def display(*, silent: bool = False) -> Iterator[Display]:
    """Shows every event of a grid.

    Args:
        silent: show nothing.
    """
    if silent:
        yield lambda progress, event: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.fields[cells]}"), BarColumn(20), TextColumn("{task.fields[told]}"))
    with Bar(*columns, console=console, transient=True) as bar:
        row = bar.add_task("", total=None, cells="", told="loading")

        def show(progress: Progress, event: Event) -> None:
            if event.kind == "failed":
                bar.console.print(_ended(progress, event), style="red", highlight=False, markup=False)
            (cells, of), (images, of_images) = progress.cells, progress.images
            busy = [f"{_name(job)} {done}/{total}" for job, (done, total) in progress.busy.items()]
            left = progress.seconds_left()
            told = [f"{images}/{of_images} images", *([f"{duration(left)} left"] if left else []), *busy[:1]]
            bar.update(row, completed=images, total=of_images or None, cells=f"{cells}/{of} cells", told=" · ".join(told))

        yield show


def _line(progress: Progress, event: Event) -> None:
    """On a screen that does not scroll back: only what has ended."""
    if event.kind in ("done", "failed"):
        typer.echo(_ended(progress, event), err=True)


def _ended(progress: Progress, event: Event) -> str:
    """`[12/96] mini-swav · … · pgd · linf:1/255: top1 51.7 → 23.4, 128 images; about 3 min 10 s left`."""
    cells, of = progress.cells
    left = progress.seconds_left()
    rest = f"; about {duration(left)} left" if left else ""
    return f"[{cells}/{of}] {_name(event.job)}: {_came(event)}{rest}"


def _name(job: object) -> str:
    if isinstance(job, Evaluation):
        return str(job.cell)
    return f"training {job.key}" if isinstance(job, Training) else str(job)


def _came(event: Event) -> str:
    if event.error is not None:
        return f"failed: {event.error}"
    if not isinstance(event.job, Evaluation):
        return f"trained {event.result}"
    record = event.result
    results, metric = record["results"], record["headline"]
    clean, robust = (results[verdict].get(metric, {}).get("value", float("nan")) for verdict in ("clean", "robust"))
    flags = f", flags: {', '.join(flag['name'] for flag in record['flags'])}" if record["flags"] else ""
    return f"{metric} {clean:.1f} → {robust:.1f}, {results['images']} images{flags}"
