"""Zip archives that may be opened: whole, of members that stay inside, and no larger than they pretend to be."""

from __future__ import annotations

import os
import stat
import sys
import zipfile
from pathlib import Path, PureWindowsPath

from sslrob.errors import RunFailed, Unreadable

RATIO = 100  # weights hardly shrink; deflate reaches 1032 on zeros
SMALL = 16 * 2**20  # bytes; what unpacks to less harms nobody


def unpacked_size(path: Path) -> int:
    """How many bytes an archive that may be read unpacks to; nothing of it is unpacked to find out.

    Raises:
        SslrobError: it is cut off, a zip bomb, encrypted, or has members that lie outside of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        message = f"{str(path)!r} is not a whole torch checkpoint or zip archive: {error}; it has {path.stat().st_size} bytes"
        raise Unreadable(message, hint="get the file again") from error
    for member in members:
        wrong = _wrong(member)
        if wrong:
            raise Unreadable(f"{str(path)!r} is refused: its member {member.filename!r} {wrong}", hint="get the file from its authors")
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise Unreadable(f"{str(path)!r} is refused: its members overlap, as in a zip bomb", hint="get the file from its authors")
    return sum(member.file_size for member in members)


def _wrong(member: zipfile.ZipInfo) -> str:
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or PureWindowsPath(name).drive or ".." in name.split("/"):
        return "would be written outside of the folder that it is unpacked to"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > max(SMALL, RATIO * member.compress_size):
        return f"would unpack {member.compress_size} bytes to {member.file_size}, as in a zip bomb"
    return ""


def require_room(size: int, path: Path) -> None:
    """Raise a RunFailed unless `size` bytes from a file fit this machine's memory now."""
    room = _room()
    if size > room:
        raise RunFailed(
            f"{str(path)!r} holds {size / 2**30:.1f} GiB of tensors, and {room / 2**30:.1f} GiB of memory are free",
            hint="free some memory, or use a larger machine",
        )


def _room() -> int:
    """Bytes of memory that are free; all there are where the system tells no more, and no bound where it tells nothing."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize
