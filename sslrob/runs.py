"""A run is a folder: run.json says what was asked and what came out, images.jsonl has one row an image.

Rows are appended a batch at a time under a file lock, so a `kill -9` loses at most the batch in flight, and shards may write at once.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sslrob.errors import RunFailed, SslrobError

try:
    import fcntl
except ImportError:  # Windows has no advisory locks; one process at a time is then the user's care
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
Row = dict[str, Any]


class Run:
    """A folder of results.

    Args:
        folder: made when the run is opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def record_path(self) -> Path:
        return self.folder / "run.json"

    @property
    def rows_path(self) -> Path:
        return self.folder / "images.jsonl"

    def open(self, id: str, spec: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
        """Say what is asked, before any work; a run of the same question goes on where it stopped.

        Args:
            id: of the question; see `Spec.id`.

        Returns:
            what the record said before; empty for a new run.

        Raises:
            SslrobError: the folder holds another question's run.
            RunFailed: the disk does not take it.
        """
        with telling_of_the_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        before = self.record() if self.record_path.exists() else {}
        if before and before.get("id") != id:
            raise SslrobError(
                f"{str(self.folder)!r} holds the run of another question", hint="choose another --runs folder, or move it away"
            )
        if before and self.count():
            before["earlier"] = [*before.get("earlier", []), before["provenance"]]
        self._write({**before, "format": FORMAT, "status": "started", "id": id, "spec": spec, "provenance": provenance})
        return before

    def record(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            SslrobError: it is missing, damaged, or of a format this version does not know.
        """
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SslrobError(
                f"{str(self.folder)!r} is not a run: it has no run.json", hint="runs are in the folder runs/ by default"
            ) from None
        except ValueError as error:
            hint = "move the folder away and run again"
            raise SslrobError(f"{str(self.record_path)!r} is damaged: {error}", hint=hint) from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise SslrobError(f"{str(self.record_path)!r} is not of run format {FORMAT}", hint="read it with the sslrob that wrote it")
        return record

    def rows(self) -> list[Row]:
        """One row an image, ordered by id, whatever order they were written in; a torn last line is dropped.

        Raises:
            SslrobError: a line other than the last is damaged.
        """
        if not self.rows_path.exists():
            return []
        lines = self.rows_path.read_bytes().split(b"\n")
        by_id: dict[str, Row] = {}
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn
            try:
                row = json.loads(line)
                by_id[row["id"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise SslrobError(f"{self.rows_path}:{number}: not a row: {error}", hint="remove that line and run again") from None
        return [by_id[id] for id in sorted(by_id)]

    def count(self) -> int:
        """How many rows are written, without reading them."""
        return self.rows_path.read_bytes().count(b"\n") if self.rows_path.exists() else 0

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows, all in one write.

        Raises:
            RunFailed: the disk is full; the rows that were there are untouched.
        """
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
        with telling_of_the_disk(self.folder), self.rows_path.open("ab+", buffering=0) as file, locked(file):
            end = _end_of_last_row(file)
            file.truncate(end)
            try:
                while text:  # a disk that fills up takes a part, then refuses the rest
                    text = text[file.write(text) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise

    def finish(self, **more: Any) -> dict[str, Any]:
        """Record the results; returns the whole record."""
        record = {**self.record(), "status": "finished", **more}
        record.pop("error", None)
        self._write(record)
        return record

    def fail(self, error: BaseException) -> None:
        """Record why the run stopped; its rows stay."""
        self._write({**self.record(), "status": "failed", "error": f"{type(error).__name__}: {error}"})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from working on the same run meanwhile.

        Raises:
            SslrobError: one already does.
        """
        with alone(self.folder / ".lock", self.folder):
            yield

    def _write(self, record: dict[str, Any]) -> None:
        part = self.folder / "run.json.part"
        with telling_of_the_disk(self.folder):
            part.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            part.replace(self.record_path)


@contextmanager
def alone(lock: Path, what: object) -> Iterator[None]:
    """Keep other processes from the same work meanwhile.

    Args:
        lock: an empty file that stays; its folder is made.
        what: they work on, for the error.

    Raises:
        SslrobError: one already does.
    """
    with telling_of_the_disk(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SslrobError(f"another process is working on {str(what)!r}", hint="wait for it, or stop it") from None
        yield


@contextmanager
def locked(file: BinaryIO) -> Iterator[None]:
    """Hold the file against other writers."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_UN)


def _end_of_last_row(file: BinaryIO) -> int:
    """Where the last whole line ends: what a killed process left behind it is dropped."""
    size = position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            return end if end < size else size
        position = start
    return 0


@contextmanager
def telling_of_the_disk(folder: Path, otherwise: str = "choose another folder with --runs") -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do: `otherwise`, unless it is full."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space and run the same command again: it goes on where it stopped",
            errno.EDQUOT: "free some of your quota and run the same command again: it goes on where it stopped",
        }
        hint = hints.get(error.errno or 0, otherwise)
        raise RunFailed(f"cannot write to {str(folder)!r}: {error.strerror or error}", hint=hint) from error
