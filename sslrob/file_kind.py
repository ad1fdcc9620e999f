"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 1024  # bytes that are looked at
STARTS = (
    (b"\x1f\x8b\x08", "a gzip archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a rar archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file", "convert it to safetensors"),
    (b"\x93NUMPY", "a single array of NumPy", "give an .npz of arrays by name"),
    (b"%PDF", "a PDF", "give the checkpoint's own address"),
)


def mistaken(path: Path) -> tuple[str, str]:
    """What the file is that cannot be a checkpoint, and what to do about it; two empty strings if it may be one.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not size:
        return "it is empty", "get the file again"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<body")):
        code = re.search(rb"<(?:Code|title)>([^<]{1,80})</", head, re.IGNORECASE)
        said = f" ({code[1].decode(errors='replace').strip()})" if code else ""
        return f"it is a web page{said}: the download was refused", "open the address in a browser to see why, and get the file there"
    if text.startswith(b"version https://git-lfs"):
        found = re.search(rb"^size (\d+)", head, re.MULTILINE)
        whole = f" of {int(found[1])} bytes" if found else ""
        return f"it is a Git-LFS pointer to the file{whole}, not the file", "get the file itself: git lfs pull"
    if head[257:262] == b"ustar":
        return "it is a tar archive", "unpack it first"
    for start, kind, hint in STARTS:
        if head.startswith(start):
            return f"it is {kind}", hint
    if re.match(rb'[{\[]\s*["{]', text) and b"\0" not in head:
        return "it is a text of JSON", "give the checkpoint's own address"
    return "", ""


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def header_of_safetensors(path: Path) -> int:
    """How many bytes of header the file declares, if it is one of safetensors."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")
