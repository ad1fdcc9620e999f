"""A study's grid at work: heads before the cells that need them, no cell twice, one bad cell harming no other."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslrob.errors import SslrobError
from sslrob.plugins import Plugins
from sslrob.spec import Spec
from sslrob.study.crew import Event, Job, Tell, work_off
from sslrob.study.grid import Cell, HeadKey, Placed, Places
from sslrob.zoo import Zoo


@dataclass(frozen=True)
class Training:
    """Make a head and put it into the user's own zoo."""

    key: HeadKey
    files: tuple[Path, ...]

    def __call__(self, device: str, tell: Tell) -> str:
        from sslrob import own, recipes, zoo_files
        from sslrob.fitting import fit_head
        from sslrob.plugins import installed

        zoo, plugins, key = zoo_files.load(self.files), installed(), self.key
        plan = recipes.plan(zoo, plugins, key.backbone, key.recipe, key.dataset)
        folder = own.folder(plan.name)
        recipes.require_free(plan, zoo, folder / own.FILE)
        name, head = fit_head(zoo, key.backbone, key.recipe, key.dataset, out=folder, device=device, progress=tell, plugins=plugins)
        own.write(name, {"heads": {name: head}})
        return name


@dataclass(frozen=True)
class Evaluation:
    """Run a cell."""

    cell: Cell
    spec: Spec = field(compare=False)
    runs: Path
    batch_size: int

    def __call__(self, device: str, tell: Tell) -> dict[str, Any]:
        from sslrob.execute import run

        return run(self.spec, runs=self.runs, limit=self.cell.limit, batch_size=self.batch_size, device=device, pictures=0, progress=tell)


@dataclass(frozen=True)
class Machine:
    """Where a grid runs.

    Attributes:
        devices: one for each worker.
        threads: of each worker; None: as torch chooses.
    """

    devices: tuple[str, ...]
    threads: int | None = None

    @classmethod
    def choose(cls, device: str, jobs: int | None, work: int) -> Machine:
        """All CUDA devices in turn, or as many processes as there are cores, but no more than there is `work`.

        Raises:
            SslrobError: there is no such device.
        """
        from sslrob.execute import chosen_devices

        found, cores = chosen_devices(device), _cores()
        on_cpu = found == ["cpu"]
        n = max(1, min(jobs or (cores if on_cpu else len(found)), work))
        return cls(tuple(found[k % len(found)] for k in range(n)), max(1, cores // n) if on_cpu and n > 1 else None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Progress:
    """How far a grid is.

    Attributes:
        records: of the finished cells that were run now.
        failed, skipped: why, by cell; skipped cells have no head, and none was to be trained.
        trained: names of new heads.
        busy: what is being done, with the steps or images done and in all.
    """

    placed: tuple[Placed, ...]
    workers: int = 1
    found: int = 0  # cells that were done before
    records: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Cell, SslrobError] = field(default_factory=dict)
    skipped: dict[Cell, str] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    busy: dict[Job, tuple[int, int]] = field(default_factory=dict)
    pace: Pace = field(default_factory=lambda: Pace())

    @property
    def cells(self) -> tuple[int, int]:
        """(dealt with, in all)."""
        return self.found + len(self.records) + len(self.failed) + len(self.skipped), len(self.placed)

    @property
    def images(self) -> tuple[int, int]:
        """(done, in all), where the zoo says how many there are."""
        done = sum(record["results"]["images"] for record in self.records.values())
        done += sum(placed.total or 0 for placed in self.placed if placed.state == "done")
        done += sum(count for job, (count, _) in self.busy.items() if isinstance(job, Evaluation))
        return done, sum(placed.total or 0 for placed in self.placed)

    def seconds_left(self) -> float | None:
        """As far as one can tell from what was done; None before anything was."""
        left = 0.0
        for placed in self.placed:
            cell = placed.cell
            if placed.state == "done" or cell in self.records or cell in self.failed or cell in self.skipped:
                continue
            done = next((count for job, (count, _) in self.busy.items() if isinstance(job, Evaluation) and job.cell == cell), 0)
            pace = self.pace.of((cell.head.dataset, cell.attack))
            if pace is None:
                return None
            left += pace * max(0, (placed.total or 0) - done)
        return left / self.workers


class Pace:
    """Seconds of an image, by kind, as measured; a kind that was not met is taken for an average one."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, kind: tuple[str, str], seconds: float, images: int) -> None:
        before = self.seen.get(kind, (0.0, 0))
        self.seen[kind] = before[0] + seconds, before[1] + images

    def of(self, kind: tuple[str, str]) -> float | None:
        known = {key: seconds / images for key, (seconds, images) in self.seen.items() if images}
        return known.get(kind, sum(known.values()) / len(known) if known else None)


Display = Callable[[Progress, Event], None]


@dataclass
class Grid:
    """A grid on its way.

    Attributes:
        reload: the zoo as it is now, with the heads that were just trained.
    """

    places: Places
    files: tuple[Path, ...]
    reload: Callable[[], Zoo]
    plugins: Plugins
    display: Display
    batch_size: int = 32

    def run(self, cells: Sequence[Cell], machine: Machine, *, train: bool = True) -> Progress:
        """Everything that is not done yet; returns what came of it.

        Args:
            train: the heads that are missing; else their cells are skipped.
        """
        placed, failed = self._placed(cells)
        self.progress = Progress(tuple(placed), len(machine.devices), found=sum(p.state == "done" for p in placed), failed=failed)
        self.waiting: dict[HeadKey, list[Cell]] = {}
        self.queue: deque[Job] = deque()
        self.begun: dict[Job, float] = {}
        for one in placed:
            key = one.cell.head
            if one.cell in failed:
                continue
            if one.state == "open" and one.spec is not None:
                self.queue.append(self._evaluation(one.cell, one.spec))
            elif one.state == "headless" and not train:
                self.progress.skipped[one.cell] = self.places.plan(key).head.recipe
            elif one.state == "headless":
                if key not in self.waiting:
                    self.queue.append(Training(key, self.files))
                self.waiting.setdefault(key, []).append(one.cell)
        work_off(self.queue, machine.devices, threads=machine.threads, listen=self._listen)
        return self.progress

    def _placed(self, cells: Sequence[Cell]) -> tuple[list[Placed], dict[Cell, SslrobError]]:
        placed, failed = [], {}
        for cell in cells:
            try:
                placed.append(self.places(cell))
            except SslrobError as error:
                placed.append(Placed(cell, "open"))
                failed[cell] = error
        return placed, failed

    def _evaluation(self, cell: Cell, spec: Spec) -> Evaluation:
        return Evaluation(cell, spec, self.places.runs, self.batch_size)

    def _listen(self, event: Event) -> None:
        progress, job = self.progress, event.job
        match event.kind:
            case "begun":
                progress.busy[job], self.begun[job] = (0, 0), time.monotonic()
            case "progress":
                progress.busy[job] = event.done, event.total
            case _:
                progress.busy.pop(job)
                self._ended(event, time.monotonic() - self.begun.pop(job))
        self.display(progress, event)

    def _ended(self, event: Event, seconds: float) -> None:
        job, progress = event.job, self.progress
        if isinstance(job, Evaluation):
            if event.error is not None:
                progress.failed[job.cell] = event.error
            else:
                progress.records[job.cell] = event.result
                progress.pace.add((job.cell.head.dataset, job.cell.attack), seconds, event.result["results"]["images"])
        elif isinstance(job, Training):
            cells = self.waiting.pop(job.key)
            if event.error is not None:
                progress.failed.update(dict.fromkeys(cells, event.error))
            else:
                progress.trained.append(event.result)
                self._go_on(cells)

    def _go_on(self, cells: Sequence[Cell]) -> None:
        """Put the cells of a head that is now there before all others."""
        self.places = Places(self.reload(), self.plugins, self.places.runs)
        placed, failed = self._placed(cells)
        self.progress.failed.update(failed)
        for one in reversed(placed):
            if one.state == "done":
                self.progress.found += 1
            elif one.spec is not None:
                self.queue.appendleft(self._evaluation(one.cell, one.spec))
            elif one.cell not in failed:
                reason = SslrobError("its head was trained, but is not in the zoo", hint="see: sslrob zoo list heads")
                self.progress.failed[one.cell] = reason
