"""Where the files of weights are: on this machine already, or in the cache after one download."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import platformdirs

from sslrob import hub, pins
from sslrob.checksums import Expected, sha256
from sslrob.download import download
from sslrob.errors import RunFailed, SslrobError, Unreadable
from sslrob.file_kind import require_whole
from sslrob.locks import held
from sslrob.records import unset
from sslrob.zoo import Weights

BY_OPTION = "--offline"  # what `SSLROB_OFFLINE` is in a command with that option
LONGEST = 150  # characters of a file's own name in the cache


def cache() -> Path:
    """Where downloads are kept: `$SSLROB_CACHE`, else the platform's cache folder."""
    chosen = os.environ.get("SSLROB_CACHE")
    return (Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("sslrob")) / "weights"


def fetch(weights: Weights, *, offline: bool | None = None) -> Path:
    """A file on this machine that is the one that is meant; downloaded once, whichever processes want it.

    Args:
        offline: never download; by default, whether `SSLROB_OFFLINE` is set.

    Raises:
        SslrobError: there is no such file, or it is not the one that the zoo means.
        RunFailed: no network, or no room.
    """
    return obtain(weights, offline=offline)[0]


def obtain(weights: Weights, *, offline: bool | None = None) -> tuple[Path, bool]:
    """As `fetch`; and whether it was this call that downloaded the file."""
    if weights.file is not None:
        return _own_file(weights, weights.file), False
    found, new = there(weights), False
    if found is None:
        _tell_of_damage(weights)
    else:
        _require_whole(weights, found)
    if found is None and (is_offline() if offline is None else offline):
        raise _refused(weights, by_option=offline is None and os.environ["SSLROB_OFFLINE"] == BY_OPTION)
    if found is None:
        try:
            with held(lock_of(part_of(weights)), name_of(weights)):
                found = there(weights)  # if another process has just brought it
                if found is None:
                    found, new = _download(weights), True
                pins.pin(weights, found)
        except OSError as error:
            hint = "set SSLROB_CACHE to another folder"
            raise RunFailed(f"cannot write to {str(cache())!r}: {error.strerror or error}", hint=hint) from error
    pins.pin(weights, found)
    return found, new


def there(weights: Weights) -> Path | None:
    """The file if it needs no download: in the cache, or where torch or the Hugging Face hub keep theirs; None if it does."""
    expected = pins.expected(weights)
    if weights.file is not None:
        return weights.file if weights.file.is_file() else None
    places = [path_of(weights, expected.sha256)] if expected.sha256 is not None else []
    if weights.hf is None:
        places.append(_torch_home() / "hub" / "checkpoints" / name_of(weights))
    elif (found := hub.cached(hub.Place.parse(weights.hf))) is not None:
        if expected == Expected():
            return found
        places.append(found)
    return next((place for place in places if expected.holds(place)), None)


def is_offline() -> bool:
    """Whether downloads are off."""
    return os.environ.get("SSLROB_OFFLINE", "0") not in ("", "0")


def name_of(weights: Weights) -> str:
    """What the file itself is called where it comes from."""
    path = hub.Place.parse(weights.hf).file if weights.hf is not None else unquote(urlsplit(str(weights.url)).path)
    return re.sub(r"[^\w.+=@ -]", "_", PurePosixPath(path).name)[-LONGEST:] or "weights"


def path_of(weights: Weights, digest: str) -> Path:
    """Where the cache keeps a downloaded file of that sha256."""
    return cache() / f"{digest[:16]}-{name_of(weights)}"


def part_of(weights: Weights) -> Path:
    """Where the cache keeps what has come of a file so far; one for each source."""
    return cache() / f"{hashlib.sha256(pins.source(weights).encode()).hexdigest()[:16]}-{name_of(weights)}.part"


def lock_of(path: Path) -> Path:
    """Which lock is held by whoever makes a file of the cache."""
    return cache() / ".locks" / f"{path.name}.lock"


def unpinning(weights: Weights, file: Path) -> str:
    """What to do about a file in the cache that was pinned and is no checkpoint."""
    return f"remove {str(file.resolve())!r}, and the lines of {pins.source(weights)!r} in {str(pins.path())!r}; then fetch it again"


def _require_whole(weights: Weights, file: Path) -> None:
    """Raises:
    Unreadable: a file of no published checksum is no checkpoint, as an earlier download may have left it.
    """
    if weights.sha256 == pins.UNKNOWN or weights.sha256 == pins.pinned(weights):
        try:
            require_whole(file, str(file))
        except Unreadable as error:
            raise Unreadable(str(error), hint=unpinning(weights, file)) from error


def _tell_of_damage(weights: Weights) -> None:
    """Say on stderr that a file in a cache is not used, if one is there and is not what it should be."""
    expected = pins.expected(weights)
    if expected.sha256 is None:
        return
    place = path_of(weights, expected.sha256) if weights.hf is None else hub.cached(hub.Place.parse(weights.hf))
    if place is not None and place.is_file() and not expected.holds(place):
        print(f"note:  {str(place)!r} is not used: its checksum is wrong", file=sys.stderr)


def _own_file(weights: Weights, file: Path) -> Path:
    if name := unset(file):
        below = "/".join(file.parts[1:])
        hint = f"export {name}=FOLDER, the folder that holds {below}"
        raise SslrobError(f"the weights lie at {str(file)!r}, and {name} is not set", hint=hint)
    if not file.is_file():
        raise SslrobError(f"no weights at {str(file)!r}", hint="put the file there, or correct the path in its zoo entry")
    digest = None if weights.sha256 == pins.UNKNOWN else weights.sha256
    expected = Expected(digest, weights.size, weights.published_hash, hint="get the file again, or correct its zoo entry")
    expected.check(file, str(file))
    return file


def _download(weights: Weights) -> Path:
    """Raises:
    SslrobError, RunFailed: from the first source, if no mirror helped.
    """
    expected = pins.expected(weights)
    if weights.hf is not None:
        try:
            return _from_hub(weights.hf, expected)
        except SslrobError as error:
            if not weights.mirrors:
                raise
            failed: SslrobError | None = error
    else:
        failed = None
    part = part_of(weights)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        download([*([weights.url] if weights.url else []), *weights.mirrors], part, expected)
    except SslrobError as error:
        if failed is None:
            raise
        failed.note = f"mirror: {error}"
        raise failed from error
    path = path_of(weights, sha256(part))
    part.replace(path)
    return path


def _from_hub(source: str, expected: Expected) -> Path:
    place = hub.Place.parse(source)

    def check(path: Path) -> None:
        expected.check(path, f"hf:{source}")
        if expected.sha256 is None:
            require_whole(path, f"hf:{source}")

    before = hub.cached(place) is not None
    path = hub.download(place)
    try:
        try:
            check(path)
        except SslrobError:
            if not before:
                raise
            path = hub.download(place, again=True)  # what was in its cache may be damaged
            check(path)
    except Unreadable:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return path


def _torch_home() -> Path:
    """Where torch keeps its own downloads."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or usual).expanduser()


def _refused(weights: Weights, *, by_option: bool) -> RunFailed:
    digest = pins.expected(weights).sha256
    on = f"leave {BY_OPTION} out" if by_option else "unset SSLROB_OFFLINE"
    place = f"put the file at {path_of(weights, digest)}" if digest else "fetch it before: sslrob zoo fetch NAME"
    return RunFailed(f"{pins.source(weights)!r} is not in the cache, and downloads are off", hint=f"{on}, or {place}")
