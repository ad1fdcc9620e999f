"""How far a command is that makes one thing after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

Progress = Callable[[int, int], None]  # done, in all
Show = Callable[[str], Progress]  # the title of what is made next


@contextmanager
def stages(silent: bool) -> Iterator[Show]:
    """A bar for each thing on a terminal, a line every ten per cent elsewhere, nothing if `silent`."""
    if silent:
        yield lambda title: lambda done, total: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines
        return
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=console) as bars:

        def show(title: str) -> Progress:
            bar = bars.add_task(title, total=None)
            return lambda done, total: bars.update(bar, completed=done, total=total)

        yield show


class Lines:
    """Says how far something is, at every tenth of it."""

    def __init__(self, title: str) -> None:
        self.title, self.told = title, -1

    def __call__(self, done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth > self.told:
            self.told = tenth
            typer.echo(f"{self.title}: {done} of {total}", err=True)
