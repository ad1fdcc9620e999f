"""What the pickles in a file would call: read as text, never run."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from sslrob.file_kind import is_zip

HARMLESS = re.compile(  # what a state dict needs; to call these is no reason to refuse a file
    r"collections\.(OrderedDict|defaultdict|Counter)|torch\._utils\._rebuild_\w+|torch(\.\w+)?\.\w+Storage|torch\.(\w+\d|bool|Size)"
    r"|_codecs\.encode|numpy(\._?core)?(\.multiarray)?\.(ndarray|dtype|scalar|_reconstruct)"
)
PROTO = b"\x80"  # how pickles of protocol 2 and later start
PICKLED = (".pkl", ".npy")  # members of archives that are, or may hold, pickles


def suspect(path: Path, allowed: Collection[str] = ()) -> str:
    """The first thing that a file's pickles would call beyond rebuilding tensors, as `module.name`; empty if there is none.

    Args:
        allowed: names that are no reason to refuse the file.
    """
    return next((name for name in calls(path) if not HARMLESS.fullmatch(name) and name not in allowed), "")


def calls(path: Path) -> Iterator[str]:
    """Each thing that the file's pickles name in order to call it: a pickle, several one after another, or in a whole archive or .npy."""
    if is_zip(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(PICKLED):
                    yield from _in_part(partial(archive.open, member))
    else:
        yield from _in_part(lambda: path.open("rb"))


def _in_part(opened: Callable[[], IO[bytes]]) -> Iterator[str]:
    try:
        with opened() as file:
            yield from _in_file(file)
    except Exception:  # bytes that are damaged, or no pickle, make the readers raise anything: what they name before that was said
        return


def _in_file(file: IO[bytes]) -> Iterator[str]:
    if file.read(6) == b"\x93NUMPY":
        import numpy as np

        file.seek(0)
        version = np.lib.format.read_magic(file)
        (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    else:
        file.seek(0)
    more = True
    while more:
        yield from _in_pickle(file)
        here = file.tell()
        more = file.read(1) == PROTO  # old torch checkpoints are some pickles, then the tensors
        file.seek(here)


def _in_pickle(file: IO[bytes]) -> Iterator[str]:
    words: list[str] = []  # the last strings that were put on the stack
    memo: dict[int, str] = {}
    put, last = 0, ""
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield ".".join(words[-2:])
        elif name.startswith("EXT"):
            yield f"copyreg.extension_{argument}"
        elif "UNICODE" in name or "STRING" in name:
            last = argument if isinstance(argument, str) and len(argument) < 1000 else ""
            words = [*words[-1:], last]
            continue
        elif name == "MEMOIZE":
            memo[put] = last
        elif name.endswith("PUT"):
            memo[int(argument)] = last
        elif name.endswith("GET"):
            words = [*words[-1:], memo.get(int(argument), "")]
        if name == "MEMOIZE" or name.endswith("PUT"):
            put += 1
        last = ""
