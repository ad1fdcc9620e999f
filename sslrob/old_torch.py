"""Where a file of torch before 1.6 ends: pickles that say how many numbers there are, then the numbers themselves."""

from __future__ import annotations

import pickletools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle
BEFORE = 3  # pickles before that of the tensors: the magic number, the protocol, the machine
SIZES = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
}  # bytes a number
COUNT = 8  # bytes before the numbers of each storage: how many they are


def length(path: Path) -> int | None:
    """How many bytes the whole file has at least; None if that cannot be told.

    Raises:
        EOFError: it ends within the pickles.
    """
    with path.open("rb") as file:
        try:
            for _ in range(BEFORE):
                deque(pickletools.genops(file), maxlen=0)
            stored = dict(_storages(file))
            deque(pickletools.genops(file), maxlen=0)  # the order of the storages
            return file.tell() + sum(COUNT + n for n in stored.values())
        except (KeyError, TypeError):  # a kind of number that is not known here, or none
            return None
        except ValueError as error:
            if file.read(1):
                return None  # bytes that are no pickle, which whoever reads the file tells
            raise EOFError(str(path)) from error


def _storages(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Key and bytes of each storage that the next pickle names, as ("storage", type, key, device, how many, None)."""
    last: deque[Any] = deque(maxlen=6)  # values that were put on the stack
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name.endswith("GET"):
            last.append(memo.get(int(argument)))
        elif name.endswith("PUT"):
            memo[int(argument)] = last[-1] if last else None
        elif name == "BINPERSID":
            if len(last) == last.maxlen and last[0] == "storage":
                _, kind, key, _, numbers, _ = last
                yield str(key), SIZES[str(kind).rpartition(" ")[2].removesuffix("Storage")] * int(numbers)
        elif name not in ("MARK", "TUPLE", "PROTO"):
            last.append(argument)
