"""Locks between processes that want the same file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SILENT = 1.0  # seconds of waiting before it is told


@contextmanager
def held(lock: Path, what: object) -> Iterator[None]:
    """Keep other processes from the same work; waits for one that is at it already, and says so on stderr.

    Args:
        lock: an empty file that stays; its folder is made.
        what: is waited for, in a word.

    Raises:
        OSError: the lock cannot be made there.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    taken = FileLock(lock)
    try:
        taken.acquire(timeout=SILENT)
    except Timeout:
        print(f"note:  waiting for another process that works on {what}", file=sys.stderr)
        taken.acquire()
    try:
        yield
    finally:
        taken.release()
