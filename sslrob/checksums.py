"""Whether a file is the one that is meant: its size and its checksums."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sslrob.errors import SslrobError


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


@dataclass(frozen=True)
class Expected:
    """What a file must be; None where that is not known.

    Attributes:
        size: in bytes.
        published: the start of a checksum that the publisher gives, such as `md5:a04e12f8`.
        by: who says so, for the error.
        hint: what to do about another file.
    """

    sha256: str | None = None
    size: int | None = None
    published: str | None = None
    by: str = "the zoo means"
    hint: str = "nothing of it was kept; try again, or ask whoever wrote the zoo entry for the right sha256"

    def check(self, path: Path, source: str) -> None:
        """Look at a whole file.

        Args:
            source: what the error calls it.

        Raises:
            SslrobError: it is another file.
        """
        self.check_size(path.stat().st_size, source)
        if self.sha256 is not None and (found := sha256(path)) != self.sha256:
            raise self._other(source, f"sha256 {found}, not {self.sha256}")
        if self.published is not None:
            algorithm, _, start = self.published.partition(":")
            with path.open("rb") as file:
                digest = hashlib.new(algorithm, usedforsecurity=False)  # some machines forbid md5 for other ends
                found = hashlib.file_digest(file, lambda: digest).hexdigest()
            if not found.startswith(start):
                raise self._other(source, f"{algorithm} {found}, not {start}… as its publisher says")

    def check_size(self, size: int | None, source: str) -> None:
        """Raise an SslrobError if a file of so many bytes cannot be it."""
        if None not in (size, self.size) and size != self.size:
            raise self._other(source, f"{size:,} bytes, not {self.size:,}")

    def holds(self, path: Path) -> bool:
        """Whether a file is there, known by a checksum, and it is this one."""
        if not path.is_file() or (self.sha256 is None and self.published is None):
            return False
        try:
            self.check(path, str(path))
        except SslrobError:
            return False
        return True

    def _other(self, source: str, what: str) -> SslrobError:
        return SslrobError(f"{source!r} has {what}: it is not the file that {self.by}", hint=self.hint)
