"""Checksums that nobody publishes: each is pinned when its file is first downloaded, and must stay what it was.

They stand in a small JSON file of the user's, to read and to edit: source, then sha256, size in bytes and the day of the download.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from sslrob import own
from sslrob.checksums import Expected, sha256
from sslrob.errors import RunFailed, SslrobError
from sslrob.locks import held
from sslrob.zoo import Weights

FILE = "pins.json"
UNKNOWN = "unknown"  # what the zoo says of a checksum that is to be pinned


def path() -> Path:
    """Where they stand: in `$SSLROB_HOME`, else in the platform's folder for a user's data."""
    return own.home().parent / FILE


def source(weights: Weights) -> str:
    """What a pin is filed under: where the file comes from."""
    return weights.url if weights.url is not None else f"hf:{weights.hf}" if weights.hf is not None else str(weights.file)


def pinned(weights: Weights) -> str | None:
    """The sha256 that was pinned for the source of these weights, 64 hex digits; None if none was.

    Raises:
        SslrobError: the file of pins is damaged, and the zoo knows no better.
    """
    try:
        found = _read().get(source(weights))
    except SslrobError:
        if weights.sha256 == UNKNOWN:
            raise
        return None
    return None if found is None else str(found["sha256"])


def expected(weights: Weights) -> Expected:
    """What the file of these weights must be, as far as the zoo or a pin says."""
    pin = pinned(weights) if weights.file is None else None
    known = None if weights.sha256 == UNKNOWN else weights.sha256
    if pin is not None and known in (None, pin):
        hint = f"the file behind it has changed; if you trust the new one, remove its lines from {str(path())!r}"
        return Expected(pin, weights.size, weights.published_hash, by="was downloaded here before", hint=hint)
    return Expected(known, weights.size, weights.published_hash)


def pin(weights: Weights, file: Path) -> None:
    """Remember the checksum of a downloaded file; says so on stderr.  Does nothing where the zoo or a pin has it already.

    Raises:
        SslrobError: the file of pins is damaged, or another process has just pinned another file.
        RunFailed: the disk does not take it.
    """
    if weights.sha256 != UNKNOWN or pinned(weights) is not None:
        return
    digest, at = sha256(file), path()
    try:
        with held(at.with_name(f".{at.name}.lock"), FILE):
            known = _read()
            if source(weights) in known:  # by another process, meanwhile
                expected(weights).check(file, source(weights))
                return
            record = {"sha256": digest, "size": file.stat().st_size, "pinned": datetime.now(UTC).date().isoformat()}
            part = at.with_name(f"{at.name}.part")
            with part.open("w", encoding="utf-8") as out:
                out.write(json.dumps({**known, source(weights): record}, indent=2, sort_keys=True) + "\n")
                out.flush()
                os.fsync(out.fileno())
            part.replace(at)
    except OSError as error:
        raise RunFailed(
            f"cannot write to {str(at.parent)!r}: {error.strerror or error}", hint="free some space, or set SSLROB_HOME to another folder"
        ) from error
    print(f"warning: nobody publishes the sha256 of {source(weights)}; {digest} is pinned in {at}", file=sys.stderr)


def _read() -> dict[str, dict[str, object]]:
    """Pins by source.

    Raises:
        SslrobError: the file is damaged.
    """
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(pin, dict) and _is_sum(pin.get("sha256")) for pin in found.values()):
        raise _damaged("an entry has no sha256 of 64 hex digits")
    return found


def _is_sum(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _damaged(why: str) -> SslrobError:
    return SslrobError(
        f"{str(path())!r} is no file of pinned checksums: {why}", hint="mend it, or remove it to pin what is downloaded next"
    )
