"""YAML read strictly: the same key twice is an error, and everything knows its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sslrob.errors import SslrobError

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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SslrobError(f"cannot read {str(path)!r}: {reason[:1].lower()}{reason[1:]}", hint="check the path") from error
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is not None:
            _check(path, root, {})
        return Document(path, None if root is None else loader.construct_document(root), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SslrobError(f"{path}{line}: not valid YAML: {error.problem or error.context}", hint="mend the file there") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise SslrobError(f"{path}: not valid YAML: {error}", hint="mend the file") from error


def _check(path: Path, node: yaml.Node, finished: dict[int, bool]) -> None:
    """Look at every node once.

    Args:
        finished: False for the nodes that `node` stands in, True for those already seen.

    Raises:
        SslrobError: a key stands twice in one mapping, or an alias stands inside what it means.
    """
    line = node.start_mark.line + 1
    if not finished.get(id(node), True):
        raise SslrobError(f"{path}:{line}: this entry contains itself", hint="remove the alias")
    if id(node) in finished:
        return
    finished[id(node)] = False
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SslrobError(f"{path}:{line}: this key is not a word", hint="use plain words as keys")
            if key.value in lines:
                twice = f"{key.value!r} is given twice, first in line {lines[key.value]}"
                raise SslrobError(f"{path}:{line}: {twice}", hint="remove one of them")
            lines[key.value] = line
            _check(path, value, finished)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check(path, value, finished)
    finished[id(node)] = True
