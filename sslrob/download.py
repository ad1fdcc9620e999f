"""Files from the network: each comes whole and checked, or not at all; what a cut leaves behind is gone on with."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sslrob.checksums import Expected
from sslrob.errors import RunFailed, SslrobError
from sslrob.file_kind import require_whole

if TYPE_CHECKING:
    from requests import RequestException, Response, Session

TIMEOUT = 30.0  # seconds without an answer
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 0.5  # seconds before the second attempt; twice as many before each further one
PATIENCE = 60.0  # seconds at most that a server may ask us to wait
PASSING = (408, 416, 425, 429, 500, 502, 503, 504)  # answers that another attempt may not get
CHUNK = 1 << 16  # bytes; at most so many are lost by a cut

Show = Callable[[int, int | None], None]  # told how many bytes there are, and how many there will be


class DiskFailed(RunFailed):
    """The disk does not take a download: no mirror helps."""


@dataclass(frozen=True)
class _Note:
    """What is known of a part of a file, kept beside it.

    Attributes:
        validator: the server's word for this version of the file; empty if it has none.
        total: bytes of the whole file, if the server said so.
    """

    url: str
    validator: str
    total: int | None


def download(urls: Sequence[str], part: Path, expected: Expected) -> None:
    """Bring a file to `part`, whole and checked.

    If the connection is cut or the process is killed, what has come stays there, and the next call asks only for the rest.

    Args:
        urls: of the same file; each is tried when those before it failed.
        part: not the final name of the file, which nothing else than the whole file should ever have.

    Raises:
        SslrobError: what came is another file or, where no checksum is known, no whole checkpoint; nothing of it is kept.
        RunFailed: no network, no such address, or no room.
    """
    import requests

    failures: list[SslrobError] = []
    with requests.Session() as session:
        session.headers.update({"User-Agent": "sslrob", "Accept-Encoding": "identity"})
        for url in urls:
            try:
                _bring(session, url, part, expected)
                return
            except DiskFailed:
                raise
            except SslrobError as error:
                failures.append(error)
            except OSError as error:
                raise _disk(part, error) from error
    first, *others = failures
    first.note = "; ".join(f"mirror: {other}" for other in others)
    raise first


def discard(part: Path) -> None:
    """Remove a part of a file, and what is known of it."""
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)


def note_of(part: Path) -> Path:
    """Where it stands what is known of a part."""
    return part.with_name(f"{part.name}.json")


def _bring(session: Session, url: str, part: Path, expected: Expected) -> None:
    """As `download`, from one address; pieces that do not make the file are fetched anew, once."""
    for last in (False, True):
        pieces = _receive(session, url, part, expected)
        try:
            expected.check(part, url)
            if expected.sha256 is None:
                require_whole(part, url)
            note_of(part).unlink(missing_ok=True)
            return
        except SslrobError:
            discard(part)
            if last or not pieces:
                raise


def _receive(session: Session, url: str, part: Path, expected: Expected) -> bool:
    """Bring a file to `part`, whole, by as many attempts as bring something; returns whether it came in pieces."""
    import requests

    pieces, most, vain = part.exists(), _size(part), 0
    with _progress(_called(part)) as show:
        while True:
            try:
                _ask(session, url, part, expected, show)
                return pieces
            except requests.RequestException as error:
                vain = 0 if _size(part) > most else vain + 1
                if vain == ATTEMPTS or not _passing(error):
                    raise _failed(url, error) from error
                pieces, most = True, max(most, _size(part))
                time.sleep(_pause(vain, error))


def _ask(session: Session, url: str, part: Path, expected: Expected, show: Show) -> None:
    """Ask once for what is missing, and write it.

    Raises:
        SslrobError: what would come is another file, or there is no room for it.
        RequestException: the network or the server fails; what came is kept.
        OSError: the disk fails.
    """
    have, note = _left(part, url, expected)
    if note is not None and have == note.total:
        return
    headers = {"Range": f"bytes={have}-", **({"If-Range": note.validator} if note.validator else {})} if note is not None else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 or (response.status_code == 206 and not _goes_on(response, have, note)):
            discard(part)
            raise _cut()
        response.raise_for_status()
        have = have if response.status_code == 206 else 0
        total = _total(response)
        _require_meant(response, url, total, expected)
        _require_room(part, total, have)
        if not have:
            discard(part)
            if "Content-Encoding" not in response.headers:
                note_of(part).write_text(json.dumps(asdict(_Note(url, _validator(response), total))), encoding="utf-8")
        with part.open("ab") as file:
            show(have, total)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                file.flush()
                show(file.tell(), total)
            if total is not None and file.tell() < total:
                raise _cut()
            os.fsync(file.fileno())


def _left(part: Path, url: str, expected: Expected) -> tuple[int, _Note | None]:
    """How many bytes are there and can be gone on with, and what is known of them; None: begin anew."""
    try:
        note = _Note(**json.loads(note_of(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return 0, None
    have = _size(part)
    fits = note.url == url and (note.validator or expected.sha256) and 0 < have <= (note.total or have)
    return (have, note) if fits else (0, None)


def _goes_on(response: Response, have: int, note: _Note | None) -> bool:
    """Whether a partial answer is the rest of the very same file."""
    total = _total(response)
    same = note is not None and (note.total is None or total == note.total)
    return same and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _total(response: Response) -> int | None:
    """Bytes of the whole file, if the server says so."""
    if "Content-Encoding" in response.headers:
        return None
    told = response.headers.get("Content-Range", "").rpartition("/")[2] if response.status_code == 206 else ""
    told = told or response.headers.get("Content-Length", "")
    return int(told) if told.isdecimal() else None


def _validator(response: Response) -> str:
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _require_meant(response: Response, url: str, total: int | None, expected: Expected) -> None:
    """Raise an SslrobError for an answer that cannot be the file, before it is read."""
    expected.check_size(total, url)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        hint = "the file may have moved, or want a login; check the url in the zoo entry"
        raise SslrobError(f"{url!r} answers with a web page, not with a file", hint=hint)
    endless = total is None and "chunked" not in response.headers.get("Transfer-Encoding", "")
    if endless and expected.sha256 is None and expected.size is None:
        raise SslrobError(f"{url!r} does not say where the file ends", hint="add its sha256 or size to the zoo entry")


def _require_room(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise DiskFailed(
            f"no room for {_called(part)!r} in {str(part.parent)!r}: {(total - have) / 1e6:,.1f} MB are to come, {free / 1e6:,.1f} MB are free",
            hint="free some space, or set SSLROB_CACHE to another folder",
        )


def _called(part: Path) -> str:
    """What the file is called where it comes from."""
    return re.sub(r"^[0-9a-f]{16}-|\.part$", "", part.name)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _cut() -> RequestException:
    from requests.exceptions import ChunkedEncodingError

    return ChunkedEncodingError("the connection ended too early")


def _passing(error: RequestException) -> bool:
    """Whether another attempt may go better."""
    from requests.exceptions import ChunkedEncodingError, ConnectionError, SSLError, Timeout

    if error.response is not None:
        return error.response.status_code in PASSING
    return isinstance(error, (ChunkedEncodingError, ConnectionError, Timeout)) and not isinstance(error, SSLError)


def _pause(vain: int, error: RequestException) -> float:
    """Seconds to wait before the next attempt."""
    asked = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return min(float(asked), PATIENCE) if asked.isdecimal() else PAUSE * 2.0 ** max(vain - 1, 0)


def _failed(url: str, error: RequestException) -> RunFailed:
    if error.response is not None:
        hint = "check the url in the zoo entry, or try again later"
        return RunFailed(f"{url!r} answers {error.response.status_code} {error.response.reason}", hint=hint)
    return RunFailed(f"cannot download {url!r}: {_reason(error)}", hint="check the network; the same command goes on where it stopped")


def _reason(error: BaseException) -> str:
    """What went wrong, as the innermost error says it."""
    from requests import RequestException
    from requests.exceptions import ChunkedEncodingError

    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 20:
        chain.append(inner)
    if any("timed out" in str(e).lower() for e in chain):
        return f"nothing came for {TIMEOUT:g} seconds"
    if isinstance(error, ChunkedEncodingError):
        return "the connection ended too early"
    said = [e.strerror for e in chain if isinstance(e, OSError) and not isinstance(e, RequestException) and e.strerror]
    return said[-1] if said else (str(error).splitlines() or [type(error).__name__])[0]


def _disk(part: Path, error: OSError) -> DiskFailed:
    folder = str(part.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        discard(part)
        return DiskFailed(f"no room for {_called(part)!r} in {folder!r}", hint="free some space, or set SSLROB_CACHE to another folder")
    return DiskFailed(f"cannot write to {folder!r}: {error.strerror or error}", hint="set SSLROB_CACHE to another folder")


@contextmanager
def _progress(name: str) -> Iterator[Show]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"downloading {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
