"""Tables as LevelDB writes them, in memory: sorted keys with their values, in blocks with checksums.

Source: LevelDB's table_format.md; TensorFlow's index files are such tables.  Blocks may be compressed by snappy.
"""

from __future__ import annotations

from collections.abc import Iterator

from sslrob_backbones.crc32c import masked

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
TRAILER = 5  # bytes after each block: its compression, its checksum
LARGE = 2**24  # bytes; no block of an index comes near
LONGEST = 4096  # bytes of a key: with the beginning of the one before, a few bytes of a file make a whole one


def entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key and its value, in order.

    Raises:
        ValueError: it is no such table, cut off, or another than was written.
    """
    if len(table) < FOOTER or int.from_bytes(table[-8:], "little") != MAGIC:
        raise ValueError(f"its end is not that of a table; it has {len(table)} bytes")
    footer = table[-FOOTER:]
    _, at = varint(footer, 0)  # two numbers of the block about other blocks, which is empty
    _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, _ = varint(footer, at)
    end = 0
    for _, handle in _pairs(_block(table, offset, size)):
        offset, at = varint(handle, 0)
        size, _ = varint(handle, at)
        if offset < end:
            raise ValueError(f"the block at {offset} would begin before the one before it ends")
        end = offset + size
        yield from _pairs(_block(table, offset, size))


def varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends.

    Raises:
        ValueError: it has no end.
    """
    number = 0
    for place, byte in enumerate(content[at : at + 10]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError("a number has no end")


def _block(table: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + TRAILER > len(table) - FOOTER:
        raise ValueError(f"a block at {offset} would have {size} bytes, and the table has {len(table)}")
    if masked(table[offset : end + 1]) != int.from_bytes(table[end + 1 : end + TRAILER], "little"):
        raise ValueError(f"the block at {offset} is not what was written: its checksum is another")
    if table[end] > 1:
        raise ValueError(f"compression {table[end]} is not known")
    return _unsnap(table[offset:end]) if table[end] else table[offset:end]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key, of which a beginning may be that of the key before, and its value."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError("a block is too short for its keys")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + own + size > end:
            raise ValueError("a key or its value would lie outside of the block")
        if shared + own > LONGEST:
            raise ValueError(f"a key has {shared + own} bytes")
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + size]
        at += own + size


def _unsnap(packed: bytes) -> bytes:
    """What snappy compressed: copies of texts, and of what came before."""
    size, at = varint(packed, 0)
    if size > min(LARGE, 64 * len(packed)):
        raise ValueError(f"a block would unpack {len(packed)} bytes to {size}")
    out = bytearray()
    while at < len(packed):
        tag, at = packed[at], at + 1
        kind, length = tag & 3, tag >> 2
        if kind == 0:
            extra = max(0, length - 59)  # bytes that tell the length
            length = int.from_bytes(packed[at : at + extra], "little") if extra else length
            at += extra
            out += packed[at : at + length + 1]
            at += length + 1
            continue
        if kind == 1:
            length, distance, extra = (length & 7) + 4, (tag >> 5) << 8 | packed[at], 1
        else:
            extra = 2 if kind == 2 else 4
            length, distance = length + 1, int.from_bytes(packed[at : at + extra], "little")
        at += extra
        if not 0 < distance <= len(out):
            raise ValueError("a copy of what is not there")
        for _ in range(length):
            out.append(out[-distance])
        if len(out) > size:
            break
    if len(out) != size:
        raise ValueError(f"a block unpacks to {len(out)} bytes, not {size}")
    return bytes(out)
