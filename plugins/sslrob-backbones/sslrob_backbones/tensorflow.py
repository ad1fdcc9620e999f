"""Checkpoints of TensorFlow, read without it: an index of names and places (`.index`), and the values (`.data-…`).

The index is a table of LevelDB's, its values messages of protobuf.  Source: tensorflow/core/util/tensor_bundle and
core/protobuf/tensor_bundle.proto.  `.meta`, which holds the graph, is not looked at.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sslrob.archive import require_room, unpacked_size
from sslrob.checkpoint import first_line
from sslrob.errors import SslrobError
from sslrob.file_kind import is_zip, mistaken
from sslrob_backbones.crc32c import masked
from sslrob_backbones.sstable import entries, varint

INDEX = ".index"
LARGEST_INDEX = 2**24  # bytes; one of a thousand tensors has 100 kB
MOST = 100_000  # tensors
DIMENSIONS = 32  # at most, of a tensor
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}  # of types.proto, those of plain numbers


DAMAGES = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError),  # a field may hold anything
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)


@dataclass(frozen=True)
class Entry:
    """Where a tensor's values lie."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


def read(path: Path, keep: Callable[[str], bool] = lambda name: True) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a checkpoint whose names are to be kept, by name; their checksums are verified.

    Args:
        path: of the `.index`, of the folder in which it lies with its values, or of a zip archive of that folder.

    Raises:
        SslrobError: it is damaged, no checkpoint of TensorFlow, or there are several.
        RunFailed: there is too little memory for it.
    """
    try:
        with ExitStack() as opened:
            open_member, names = _opener(path, opened)
            prefix = _only(path, names)
            shards, found = _index(open_member(prefix + INDEX))
            chosen = sorted((e for e in found if keep(e.name)), key=lambda e: (e.shard, e.offset))
            require_room(sum(e.size for e in chosen), path)
            files: dict[int, IO[bytes]] = {}
            tensors = {}
            for entry in chosen:
                if entry.shard not in files:
                    files[entry.shard] = opened.enter_context(open_member(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}"))
                tensors[entry.name] = _values(files[entry.shard], entry)
            return {entry.name: tensors[entry.name] for entry in found if entry.name in tensors}
    except DAMAGES as error:
        message = f"{str(path)!r} is not a whole checkpoint of TensorFlow: {first_line(error)}"
        raise SslrobError(message, hint="get the file again") from error


def _opener(path: Path, opened: ExitStack) -> tuple[Callable[[str], IO[bytes]], list[str]]:
    """What opens a file of the checkpoint, and the names that there are."""
    if path.is_file() and is_zip(path):
        unpacked_size(path)  # raises where it may not be read
        archive = opened.enter_context(zipfile.ZipFile(path))
        return archive.open, archive.namelist()
    if path.is_file():
        said, hint = mistaken(path)
        if said:
            raise SslrobError(f"{str(path)!r} is not a whole checkpoint of TensorFlow: {said}", hint=hint)
        if path.suffix != INDEX:
            hint = "give its .index, with the .data file beside it, or the zip archive that both came in"
            raise SslrobError(f"{str(path)!r} is no checkpoint of TensorFlow: neither an .index nor a zip archive", hint=hint)
        return (lambda name: (path.parent / name).open("rb")), [path.name]
    if not path.is_dir():
        raise SslrobError(f"no checkpoint of TensorFlow at {str(path)!r}", hint="check the path")
    return (lambda name: (path / name).open("rb")), [file.name for file in path.iterdir()]


def _only(path: Path, names: list[str]) -> str:
    """What the names of the one checkpoint's files begin with; SimCLR's archives also hold a module of TensorFlow Hub, in `variables`."""
    every = [name.removesuffix(INDEX) for name in names if name.endswith(INDEX) and not PurePosixPath(name).name.startswith(".")]
    found = [name for name in every if PurePosixPath(name).parent.name != "variables"] or every
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(found or names)[:3]) or "nothing"
    raise SslrobError(f"{str(path)!r} should hold one .index, and holds {there}", hint="give the path of one .index")


def _index(file: IO[bytes]) -> tuple[int, list[Entry]]:
    """Of how many parts the values are, and all entries."""
    with file:
        content = file.read(LARGEST_INDEX)
    shards, found = 0, list[Entry]()
    for key, value in entries(content):
        message = dict(_fields(value))
        if len(found) == MOST:
            raise ValueError(f"its index has more than {MOST:,} entries")
        if key:
            found.append(_entry(key.decode(), value))
        else:
            shards = int(message.get(1, 0))
            if message.get(2, 0):
                raise ValueError("its numbers are big-endian")
    if not shards:
        raise ValueError("its index has no header")
    return shards, found


def _entry(name: str, message: bytes) -> Entry:
    found = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0, **{n: v for n, v in _fields(message) if n != 2}}
    shape = [number for n, v in _fields(message) if n == 2 for number in _shape(v)]
    if len(shape) > DIMENSIONS:
        raise ValueError(f"{name!r} has {len(shape)} dimensions")
    return Entry(name, found[1], tuple(shape), found[3], found[4], found[5], found[6], 7 in found)


def _shape(message: bytes) -> Iterator[int]:
    """The sizes in a TensorShapeProto."""
    for number, value in _fields(message):
        if number == 2:
            yield dict(_fields(value)).get(1, 0)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers of a protobuf message's fields, and what they hold: int, or bytes for strings and messages."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(message, at)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = varint(message, at)
        if size is None or at + size > len(message):
            raise ValueError("a message of the index is damaged")
        content, at = message[at : at + size], at + size
        yield tag >> 3, content if kind == 2 else int.from_bytes(content, "little")


def _values(file: IO[bytes], entry: Entry) -> npt.NDArray[Any]:
    """A tensor; where files lie in an archive they must be asked for in order."""
    if entry.sliced or entry.dtype not in DTYPES:
        raise ValueError(f"{entry.name!r} is " + ("in slices" if entry.sliced else f"of type {entry.dtype}, not of plain numbers"))
    dtype = np.dtype(DTYPES[entry.dtype])
    if min(entry.shape, default=0) < 0 or math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise ValueError(f"{entry.name!r} has shape {entry.shape} of {dtype} and {entry.size} bytes")
    file.seek(entry.offset, io.SEEK_SET)
    content = file.read(entry.size)
    if len(content) != entry.size:
        raise ValueError(f"{entry.name!r} should have {entry.size} bytes, and {len(content)} are there")
    if masked(content) != entry.checksum:
        raise ValueError(f"{entry.name!r} is not what was written: its checksum is another")
    return np.frombuffer(content, dtype).reshape(entry.shape).astype(dtype.newbyteorder("="))
