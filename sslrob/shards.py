"""An evaluation in shards: processes on this machine's devices.

A shard is every n-th of the images that are left; each shard writes its own rows, so that stopping loses at most the batches in flight.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from sslrob import trust
from sslrob.runs import Run
from sslrob.spec import Spec

Progress = Callable[[int, int], None]  # images done, images in all
POLL = 0.5  # seconds between two looks at how far the shards are
_stop: Event | None = None  # in a worker process: set where it is to end early


@dataclass(frozen=True)
class Part:
    """What one shard does; it can be sent to another process."""

    spec: Spec
    folder: Path
    indices: tuple[int, ...]
    pictured: frozenset[str]
    batch_size: int
    device: str
    threads: int | None = None
    again: bool = False  # the images have their rows: only pictures are made


class Done(NamedTuple):
    """What the shards tell beside their rows.

    Attributes:
        flags: about the victim.
        engine: how the search saw it, or each surrogate; see `sslrob.engine`.
    """

    flags: list[trust.Flag]
    engine: list[str]


class Worker(Protocol):
    """Does a part, and tells how many of its images are done."""

    def __call__(self, part: Part, tell: Callable[[int], None] | None = None) -> Done: ...


def divided(
    spec: Spec, folder: Path, left: Sequence[int], pictured: frozenset[str], batch_size: int, shards: int, devices: Sequence[str]
) -> list[Part]:
    """The parts of the images that are left, one for each shard, on the devices in turn."""
    if not left:
        return []
    threads = max(1, torch.get_num_threads() // shards) if shards > 1 else None
    return [Part(spec, folder, tuple(left[k::shards]), pictured, batch_size, devices[k % len(devices)], threads) for k in range(shards)]


def in_processes(do: Worker, parts: Sequence[Part], done: int, total: int, store: Run, progress: Progress) -> Done:
    """Do all parts: a single one here, several in processes of their own.

    Args:
        do: a function of a module, since it is sent to other processes.
        done, total: images that were done before, and in all.
        store: where the parts append their rows.
    """
    progress(done, total)
    if len(parts) <= 1:
        return _together([do(part, lambda count: progress(done + count, total)) for part in parts])
    context, earlier = get_context("spawn"), store.count()
    stop = context.Event()
    with ProcessPoolExecutor(len(parts), mp_context=context, initializer=_hold, initargs=(stop,)) as pool:
        futures = [pool.submit(do, part) for part in parts]
        waiting = set(futures)
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=POLL, return_when=FIRST_EXCEPTION)
                progress(min(total, done + store.count() - earlier), total)
                if any(future.exception() for future in finished):
                    stop.set()
        finally:
            stop.set()  # whoever is still at work was not told of Ctrl-C, or lost it
    return _together([future.result() for future in futures])


def _together(done: Sequence[Done]) -> Done:
    """What all shards tell; each saw the same victims."""
    return Done([flag for one in done for flag in one.flags], done[0].engine if done else [])


def stopping() -> bool:
    """Whether this process, a shard's, is to end before its images are done."""
    return _stop is not None and _stop.is_set()


def _hold(stop: Event) -> None:
    """Keep, in a worker process, the event that ends it early: another shard failed; end it, too, when this command was killed."""
    global _stop
    _stop = stop
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the process that started this one, and end with it, even if it was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
