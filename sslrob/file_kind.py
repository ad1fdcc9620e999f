"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import codecs
import json
import re
import zipfile
from pathlib import Path

from sslrob import old_torch
from sslrob.errors import Unreadable

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
    if _is_text(head):
        return f"it is a text, which begins {head[:40].decode(errors='ignore').splitlines()[0]!r}", "give the checkpoint itself"
    return "", ""


def require_whole(path: Path, source: str) -> None:
    """Raise unless a file of an unknown checksum may be a checkpoint, and all of it.

    Whatever format it has: archives, safetensors and files of torch tell where they end, and so does a single pickle.

    Args:
        source: what the error calls it.

    Raises:
        Unreadable: it is something else, or cut.
        OSError: it cannot be read.
    """
    said, hint = mistaken(path)
    said = said or _cut(path)
    if said:
        raise Unreadable(f"{source!r} is not a whole checkpoint: {said}", hint=hint or "get the file again")


def _cut(path: Path) -> str:
    """How one sees that the file ends too early; empty if one does not."""
    size = path.stat().st_size
    if is_zip(path):
        try:
            with zipfile.ZipFile(path):
                return ""
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return f"its {size:,} bytes are the beginning of a larger archive"
    with path.open("rb") as file:
        length, first = file.read(8), file.read(1)
        if first == b"{" and len(length) == 8:
            return _cut_safetensors(path, int.from_bytes(length, "little"), size)
        file.seek(0)
        start = file.read(len(old_torch.MAGIC))
        file.seek(-1, 2)
        last = file.read(1)
    if start != old_torch.MAGIC:
        single = re.match(rb"\x80[\x02-\x05]", start)
        return f"its {size:,} bytes are the beginning of a larger pickle" if single and last != b"." else ""
    try:
        whole = old_torch.length(path) or 0
    except EOFError:
        return f"its {size:,} bytes are the beginning of a larger file"
    return f"it has {size:,} of {whole:,} bytes" if size < whole else ""


def _cut_safetensors(path: Path, header: int, size: int) -> str:
    if header > size - 8:
        return f"its header would have {header} bytes, and the file has {size}"
    with path.open("rb") as file:
        file.seek(8)
        try:
            ends = [tensor["data_offsets"][1] for name, tensor in json.loads(file.read(header)).items() if name != "__metadata__"]
            whole = 8 + header + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return ""  # something else that happens to begin so, or damaged: whoever reads it says how
    return f"it has {size:,} of {whole:,} bytes" if size < whole else ""


def _is_text(head: bytes) -> bool:
    """Whether it is words; pickles of protocol 0 are printable too, and begin with a mark or a name to import."""
    try:
        words = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    pickled = re.match(rb"[(\]}]|c[\w.]+\n\w+\n", head)
    return not pickled and bool(words.strip()) and all(letter.isprintable() or letter in "\t\r\n" for letter in words)


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def header_of_safetensors(path: Path) -> int:
    """How many bytes of header the file declares, if it is one of safetensors."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")
