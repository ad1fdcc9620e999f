"""YAML read strictly: the same key twice is an error, and everything knows its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sslrob.errors import SslrobError

TEXT, MAPPING, LIST = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))
_UNREAD, _OPEN = object(), object()
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is several times faster; some builds lack it


@dataclass(frozen=True)
class Document:
    """A YAML file.

    Attributes:
        data: its content as dicts, lists and scalars; None for an empty file.
    """

    path: Path
    data: Any
    _root: yaml.Node | None

    def line(self, keys: Sequence[str | int]) -> int:
        """The line, from 1, of the entry that `keys` leads to, or of its nearest ancestor in the file."""
        node, found = self._root, 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                entries = [(k, v) for k, v in node.value if k.value == str(key)]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                entries = [(node.value[key], node.value[key])]
            else:
                break
            if not entries:
                break
            found, node = entries[0][0].start_mark.line + 1, entries[0][1]
        return found


def read(path: Path) -> Document:
    """The file's content and lines.

    Raises:
        SslrobError: it cannot be read, is not YAML, or has a key twice; names file and line.
    """
    return parsed(path, text_of(path))


def text_of(path: Path) -> str:
    """What the file holds.

    Raises:
        SslrobError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SslrobError(f"cannot read {str(path)!r}: {reason[:1].lower()}{reason[1:]}", hint="check the path") from error


def parsed(path: Path, text: str) -> Document:
    """Content and lines of a text that stands in a file.

    Raises:
        SslrobError: it is not YAML, or has a key twice; names file and line.
    """
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        return Document(path, None if root is None else _value(path, root, loader, {}), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SslrobError(f"{path}{line}: not valid YAML: {error.problem or error.context}", hint="mend the file there") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise SslrobError(f"{path}: not valid YAML: {error}", hint="mend the file") from error


def _value(path: Path, node: yaml.Node, loader: Any, known: dict[int, Any]) -> Any:
    """What a node means, in one pass: PyYAML's own constructors take several times as long, and let a key stand twice.

    Args:
        known: the values of the mappings and lists that were read, by node; _OPEN for those that `node` stands in.

    Raises:
        SslrobError: a key stands twice in one mapping, or an alias stands inside what it means.
    """
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.tag == TEXT else loader.construct_object(node)
    found = known.get(id(node), _UNREAD)
    if found is _OPEN:
        raise SslrobError(f"{path}:{node.start_mark.line + 1}: this entry contains itself", hint="remove the alias")
    if found is not _UNREAD:
        return found
    known[id(node)] = _OPEN
    if isinstance(node, yaml.MappingNode):
        keys = _keys(path, node)
        values = [_value(path, value, loader, known) for _, value in node.value]
        usual = node.tag == MAPPING and "<<" not in keys  # which takes in the keys of another mapping
        found = dict(zip((_value(path, key, loader, known) for key, _ in node.value), values, strict=True)) if usual else None
    else:
        usual = node.tag == LIST
        found = [_value(path, part, loader, known) for part in node.value]
    known[id(node)] = found if usual else loader.construct_object(node, deep=True)
    return known[id(node)]


def _keys(path: Path, node: yaml.MappingNode) -> dict[str, int]:
    """The line of each key.

    Raises:
        SslrobError: a key stands twice, or is no word.
    """
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise SslrobError(f"{path}:{line}: this key is not a word", hint="use plain words as keys")
        if key.value in lines:
            twice = f"{key.value!r} is given twice, first in line {lines[key.value]}"
            raise SslrobError(f"{path}:{line}: {twice}", hint="remove one of them")
        lines[key.value] = line
    return lines
