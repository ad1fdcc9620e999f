"""Files from the network, verified: sha256 sums and downloads."""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from sslrob.errors import RunFailed, SslrobError

TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20  # bytes between two looks at the progress bar


def sha256(path: Path) -> str:
    """64 hex digits; the file is read again only when its size or time has changed.

    Raises:
        SslrobError: the file cannot be read.
    """
    try:
        status = path.stat()
        return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise SslrobError(f"cannot read {str(path)!r}: {error.strerror}", hint="check the path and its permissions") from error


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, time: int) -> str:
    del size, time  # parts of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(expected: str | None, path: Path, source: str, hint: str) -> None:
    """Raises:
    SslrobError: the file's checksum is not the expected one.
    """
    if expected is not None and (found := sha256(path)) != expected:
        raise SslrobError(f"{source!r} has sha256 {found}, not {expected}: it is not the file that the zoo means", hint=hint)


def download(url: str, expected: str, path: Path) -> None:
    """Put the file at `path`, once it is whole and has the expected sha256: nothing else ever stands there.

    Raises:
        SslrobError: what came is another file.
        RunFailed: no network, no such address, or no room.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            part = Path(folder) / path.name
            _receive(url, part)
            hint = "nothing of it was kept; try again, or ask whoever wrote the zoo entry for the right sha256"
            require_sha256(expected, part, url, hint)
            part.replace(path)
    except (OSError, HTTPException) as error:
        raise _failed(url, path, error) from error


def _receive(url: str, path: Path) -> None:
    """Raises:
    OSError, HTTPException: the network or the disk fails, or the connection ends too early.
    """
    request = Request(url, headers={"User-Agent": "sslrob"})  # some servers refuse urllib's own
    with urlopen(request, timeout=TIMEOUT) as response, path.open("wb") as file, _progress(path.name) as advance:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        while chunk := response.read(CHUNK):
            file.write(chunk)
            advance(len(chunk), total)
        if total is not None and file.tell() < total:
            raise IncompleteRead(b"", total - file.tell())


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, nothing elsewhere; it is told how many bytes came, and how many there are in all."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"downloading {name}", total=None)
        yield lambda size, total: bar.update(task, advance=size, total=total)


def _failed(url: str, path: Path, error: OSError | HTTPException) -> RunFailed:
    if isinstance(error, HTTPError):
        error.close()
        return RunFailed(f"{url!r} answers {error.code} {error.reason}", hint="check the url in the zoo entry")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunFailed(f"no room for {path.name!r} in {str(path.parent)!r}", hint="free some space, or set SSLROB_CACHE")
    if isinstance(error, OSError) and error.filename is not None:
        return RunFailed(f"cannot write to {str(path.parent)!r}: {error.strerror}", hint="set SSLROB_CACHE to another folder")
    reason = (
        error.reason if isinstance(error, URLError) else "the connection ended too early" if isinstance(error, HTTPException) else error
    )
    return RunFailed(f"cannot download {url!r}: {reason}", hint=f"check the network, or fetch it elsewhere and put it at {path}")
