"""Files of the cache that no entry of the zoo names any more, and parts of downloads that were cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sslrob import converted, pins
from sslrob.checksums import sha256
from sslrob.download import discard, note_of
from sslrob.errors import RunFailed
from sslrob.fetching import cache, lock_of
from sslrob.zoo import Weights, Zoo

KINDS = ("backbone", "head", "victim")  # of entries with weights
SHORT = 16  # digits of a checksum at the start of a name in the cache
PART = ".part"
NOTE = note_of(Path(PART)).name


class Stray(NamedTuple):
    """A file that may go.

    Attributes:
        size: in bytes.
    """

    path: Path
    size: int
    why: str


def strays(zoo: Zoo) -> list[Stray]:
    """What may go from the cache, by name; what another process is downloading at the moment is not among it.

    What the Hugging Face hub and torch keep is theirs.
    """
    named = [weights for kind in KINDS for record in zoo.of(kind).values() if (weights := record.weights) is not None]
    return sorted([*_parts(), *_downloads(named), *_converted(named)])


def remove(found: Iterable[Stray]) -> None:
    """Remove them.

    Raises:
        RunFailed: the disk does not let go of one.
    """
    for stray in found:
        try:
            discard(stray.path)
            converted.sum_of(stray.path).unlink(missing_ok=True)
        except OSError as error:
            raise RunFailed(f"cannot remove {str(stray.path)!r}: {error.strerror}", hint="check the folder's permissions") from error


def _parts() -> Iterator[Stray]:
    """A part goes together with the note beside it."""
    for path in (*_files(cache()), *_files(converted.folder())):
        part = path if path.suffix == PART else path.with_suffix("") if path.name.endswith(NOTE) else None
        if part is not None and (part == path or not part.exists()) and not _at_work(part):
            yield Stray(path, path.stat().st_size, "a download or a conversion that was cut")


def _downloads(named: Iterable[Weights]) -> Iterator[Stray]:
    known = {digest[:SHORT] for weights in named if weights.file is None and (digest := _sum(weights)) is not None}
    for path in _files(cache()):
        if not path.name.endswith((PART, NOTE)) and path.name[:SHORT] not in known:
            yield Stray(path, path.stat().st_size, "no entry names it")


def _converted(named: Iterable[Weights]) -> Iterator[Stray]:
    files = [path for path in _files(converted.folder()) if path.suffix == ".safetensors"]
    known = {
        converted.stem(digest, weights.layout) for weights in named if files and weights.layout is not None and (digest := _sum(weights))
    }
    for path in files:
        if path.stem.rpartition("-")[0] not in known:
            yield Stray(path, path.stat().st_size, "made from a file or by a layout that no entry names")


def _sum(weights: Weights) -> str | None:
    """The checksum of an entry's file, as far as it is known."""
    if weights.file is not None and weights.sha256 in (None, pins.UNKNOWN):
        return sha256(weights.file) if weights.file.is_file() else None
    return pins.expected(weights).sha256


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _at_work(part: Path) -> bool:
    """Whether another process is downloading it."""
    from filelock import FileLock, Timeout

    lock = lock_of(part)
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
