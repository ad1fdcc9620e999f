"""A pickle read as data: the stack machine that it is a program for, with a short list of what may be called.

Python's own tokenizer (`pickletools`) splits the file; the machine obeys the opcodes that containers need and refuses all others.  Of
functions and classes it knows those that it is given, each replaced by one that only builds data.  Long strings, which are the values of
arrays, stay in the file until somebody asks for them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from sslrob.checkpoint import refused
from sslrob.errors import SslrobError

LONG = 256  # bytes from which on a string stays in the file


@dataclass(frozen=True)
class Span:
    """A string that was left in the file: `size` bytes at `start`, as they are or, where it is a text, of one byte a character in UTF-8."""

    path: Path
    start: int
    size: int
    text: bool

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.size)
        return content.decode("utf-8").encode("latin-1") if self.text else content


@dataclass(frozen=True)
class Known:
    """What a pickle may call, by its dotted name there: it makes data of the arguments."""

    name: str
    make: Callable[..., Any]


@dataclass(frozen=True)
class Module:
    """A module that a pickle of dill would import to find something in it; nothing is imported."""

    name: str


@runtime_checkable
class Built(Protocol):
    """What a pickle gives its state after it was made."""

    def build(self, state: Any) -> None: ...


class Machine:
    """The stack of one pickle, and what it remembers.

    Args:
        find: what stands for a dotted name; None: it may not be called.
    """

    def __init__(self, path: Path, find: Callable[[str], Callable[..., Any] | None]) -> None:
        self.path = path
        self.find = find
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.idle: list[str] = []  # modules that were named, with nothing found in them yet

    def run(self) -> Any:
        """What the pickle holds.

        Raises:
            SslrobError: it would call something else, or uses an opcode for which there is no need.
            ValueError, KeyError, IndexError, TypeError, OverflowError: it is damaged.
        """
        argument: Any
        with self.path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                name = opcode.name
                if name == "STOP":
                    break
                if "UNICODE" in name or "BYTES" in name:
                    size = len(argument.encode("utf-8", "surrogatepass") if isinstance(argument, str) else argument)
                    left = size >= LONG and name != "UNICODE"
                    self.stack.append(Span(self.path, file.tell() - size, size, isinstance(argument, str)) if left else argument)
                elif name in NUMBERS:
                    self.stack.append(argument)
                elif name in EMPTY:
                    self.stack.append(EMPTY[name]())
                elif name not in ("PROTO", "FRAME"):
                    getattr(self, f"do_{name.lower()}", self._unknown(name))(argument)
        if self.idle:
            raise refused(self.path, f"import {self.idle[0]}")
        return self.stack.pop()

    def _unknown(self, name: str) -> Callable[[Any], NoReturn]:
        def refuse(argument: Any) -> NoReturn:
            if name in ("INST", "OBJ"):
                raise refused(self.path, str(argument).replace(" ", "."))
            raise SslrobError(
                f"{str(self.path)!r} is refused: its pickle uses the opcode {name}",
                hint="files of this kind do not; get it from its authors",
            )

        return refuse

    # ---- names, calls and what is built

    def do_global(self, argument: Any) -> None:
        self.stack.append(self.known(str(argument).replace(" ", ".")))

    def do_stack_global(self, _: Any) -> None:
        name, module = (require_word(self.stack.pop()) for _ in range(2))
        self.stack.append(self.known(f"{module}.{name}"))

    def known(self, name: str) -> Known:
        make = self.find(name)
        if make is None:
            raise refused(self.path, name)
        return Known(name, make)

    def do_reduce(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Known) or not isinstance(arguments, tuple):
            raise ValueError(f"a {type(called).__name__} is called with a {type(arguments).__name__}")
        made = called.make(*arguments)
        if isinstance(made, Module):
            self.idle.append(made.name)
        elif isinstance(made, Looked):
            self.idle = [name for name in self.idle if name != made.module.name]
            made = self.known(f"{made.module.name}.{made.name}")
        self.stack.append(made)

    do_newobj = do_reduce

    def do_build(self, _: Any) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Built):
            raise ValueError(f"state for a {type(self.stack[-1]).__name__}")
        self.stack[-1].build(state)

    # ---- containers

    def do_mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def do_tuple(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(tuple(items))

    def do_list(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(items)

    def do_dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def do_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def do_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_append(self, _: Any) -> None:
        item = self.stack.pop()
        _as(list, self.stack[-1]).append(item)

    def do_appends(self, _: Any) -> None:
        items = self._marked()
        _as(list, self.stack[-1]).extend(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _as(dict, self.stack[-1])[_key(key)] = value

    def do_setitems(self, _: Any) -> None:
        items = self._marked()
        _as(dict, self.stack[-1]).update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def do_pop(self, _: Any) -> None:
        self.stack.pop()

    # ---- what is remembered

    def do_put(self, argument: Any) -> None:
        self.memo[int(argument)] = self.stack[-1]

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, argument: Any) -> None:
        self.stack.append(self.memo[int(argument)])

    do_binput = do_long_binput = do_put
    do_binget = do_long_binget = do_get


@dataclass(frozen=True)
class Looked:
    """What a pickle of dill looks for in a module; the machine goes on as if it had been named directly."""

    module: Module
    name: str


def require_word(value: Any) -> str:
    """A name, as it is.

    Raises:
        ValueError: it is none; what it is instead is not shown, since a few bytes of a pickle may nest what takes forever to write out.
    """
    if not isinstance(value, str):
        raise ValueError(f"a name is a {type(value).__name__}")
    return value


def _key(value: Any) -> Any:
    """A key, as it is; tuples in tuples may take forever to hash."""
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"a key is a {type(value).__name__}")
    return value


def _as(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"items for a {type(value).__name__}")
    return value


NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
