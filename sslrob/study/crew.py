"""Jobs on processes that stay alive from job to job, so that imports and compiled kernels are paid for once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from sslrob.errors import RunFailed, SslrobError

Tell = Callable[[int, int], None]  # what is done, of what there is to do


class Job(Protocol):
    """Work that can be sent to another process."""

    def __call__(self, device: str, tell: Tell) -> Any:
        """Do it; returns what the one who asked wants to know, which can be sent back."""


class Event(NamedTuple):
    """What a job has come to.

    Attributes:
        kind: "begun", "progress" (with `done` and `total`), "done" (with `result`) or "failed" (with `error`).
    """

    job: Job
    kind: str
    done: int = 0
    total: int = 0
    result: Any = None
    error: SslrobError | None = None


Listen = Callable[[Event], None]


def work_off(queue: deque[Job], devices: Sequence[str], *, threads: int | None, listen: Listen) -> None:
    """Do all jobs, one at a time on each device; where there is one device only, in this process.

    Args:
        queue: the next first; `listen` may add to it.
        devices: of each worker; "cpu" may be among them several times.
        threads: of each worker's computations; None: as torch chooses.
    """
    if len(devices) == 1:
        while queue:
            job = queue.popleft()
            listen(Event(job, "begun"))
            listen(_done(job, devices[0], partial(_tell, listen, job)))
        return
    workers = [_Worker(device, threads) for device in devices]
    try:
        while queue or any(worker.job for worker in workers):
            for worker in workers:
                if queue and worker.job is None:
                    job = queue.popleft()
                    worker.begin(job)
                    listen(Event(job, "begun"))
            for ready in connection.wait([worker.pipe for worker in workers if worker.job]):
                listen(next(worker for worker in workers if worker.pipe is ready).event())
    finally:
        for worker in workers:
            worker.end()


def _tell(listen: Listen, job: Job, done: int, total: int) -> None:
    listen(Event(job, "progress", done, total))


class _Worker:
    """A process, started when it gets its first job, and again should it have died."""

    def __init__(self, device: str, threads: int | None) -> None:
        self.device, self.threads = device, threads
        self.job: Job | None = None
        self.pipe: Connection
        self.process: Any = None

    def begin(self, job: Job) -> None:
        if self.process is None or not self.process.is_alive():
            context = get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs, self.device, self.threads), daemon=True)
            self.process.start()
            theirs.close()
        self.job = job
        self.pipe.send(job)

    def event(self) -> Event:
        """The next one of its job; a worker that died fails its job and no other."""
        if self.job is None:
            raise ValueError("a worker without a job has no events")
        job = self.job
        try:
            event = Event(job, *self.pipe.recv())
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self.process = None
            error = RunFailed(
                f"its process was ended from outside (exit code {code})", hint="there may be too little memory: use fewer --jobs"
            )
            event = Event(job, "failed", error=error)
        if event.kind in ("done", "failed"):
            self.job = None
        return event

    def end(self) -> None:
        """At once: rows that are written stay."""
        if self.process is not None:
            self.process.terminate()
            self.process.join()
            self.pipe.close()


def _serve(pipe: Connection, device: str, threads: int | None) -> None:
    """A worker's life."""
    import torch

    from sslrob.shards import end_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    threading.Thread(target=end_with_parent, daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)
    with redirect_stdout(sys.stderr):
        while True:
            try:
                job = pipe.recv()
            except EOFError:
                os._exit(0)
            event = _done(job, device, lambda done, total: pipe.send(("progress", done, total)))
            pipe.send(event[1:])


def _done(job: Job, device: str, tell: Tell) -> Event:
    """The last event of a job that is done here."""
    try:
        return Event(job, "done", result=job(device, tell))
    except Exception as error:  # whatever it is, it must not stop the other jobs
        from sslrob.cli.telling import told

        reason = told(error)
        return Event(job, "failed", error=SslrobError(str(reason), hint=reason.hint, note=reason.note))
