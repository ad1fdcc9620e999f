"""Where the files of weights are: on this machine already, or in the cache after one download."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import platformdirs

from sslrob import hub, pins
from sslrob.checksums import Expected, sha256
from sslrob.download import download
from sslrob.errors import RunFailed, SslrobError
from sslrob.locks import held
from sslrob.zoo import Weights

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
    if weights.file is not None:
        return _own_file(weights, weights.file)
    found = there(weights)
    if found is None and (is_offline() if offline is None else offline):
        raise _refused(weights)
    if found is None:
        try:
            with held(lock_of(part_of(weights)), name_of(weights)):
                found = there(weights) or _download(weights)
                pins.pin(weights, found)
        except OSError as error:
            hint = "set SSLROB_CACHE to another folder"
            raise RunFailed(f"cannot write to {str(cache())!r}: {error.strerror or error}", hint=hint) from error
    pins.pin(weights, found)
    return found


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


def _own_file(weights: Weights, file: Path) -> Path:
    if not file.is_file():
        raise SslrobError(f"no weights at {str(file)!r}", hint="check the path in the zoo entry, or reinstall its plugin")
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
    before = hub.cached(place) is not None
    path = hub.download(place)
    try:
        expected.check(path, f"hf:{source}")
    except SslrobError:
        if not before:
            raise
        path = hub.download(place, again=True)  # what was in its cache may be damaged
        expected.check(path, f"hf:{source}")
    return path


def _torch_home() -> Path:
    """Where torch keeps its own downloads."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or usual).expanduser()


def _refused(weights: Weights) -> RunFailed:
    digest = pins.expected(weights).sha256
    place = f"put the file at {path_of(weights, digest)}" if digest else "add the file itself: sslrob zoo add FILE"
    return RunFailed(f"{pins.source(weights)!r} is not in the cache, and downloads are off", hint=f"unset SSLROB_OFFLINE, or {place}")
