"""The user's own zoo entries, made by commands: a folder each, `zoo.yaml` beside the weights that it names.

The weights are written first, `zoo.yaml` last and in one move: what a killed command leaves behind is a folder without it, which counts
for nothing and which the same command goes on with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from sslrob import yaml_file
from sslrob.runs import locked, telling_of_the_disk
from sslrob.zoo import Record

Sections = Mapping[str, Mapping[str, Record]]  # such as {"heads": {"mini-swav-linear": …}}
FILE = "zoo.yaml"


def home() -> Path:
    """Where own entries live: `$SSLROB_HOME/zoo`, else `sslrob/zoo` in the platform's folder for a user's data."""
    chosen = os.environ.get("SSLROB_HOME")
    return (Path(chosen).expanduser() if chosen else platformdirs.user_data_path("sslrob")) / "zoo"


def folder(name: str) -> Path:
    """The folder of the own entry `name`, whether it is there or not."""
    return home() / name


def files() -> list[Path]:
    """The zoo files of all own entries, in the order of their names."""
    return sorted(home().glob(f"*/{FILE}"))


def write(name: str, sections: Sections) -> Path:
    """Make an own entry, or put it in the place of the one of that name; returns its zoo file.

    Args:
        sections: records by section and name; the files that they name must be there already.

    Raises:
        RunFailed: the disk does not take it.
    """
    path = folder(name) / FILE
    with _alone(path):
        _put(path, {section: plain(records, path.parent) for section, records in sections.items()})
    return path


def add(path: Path, sections: Sections) -> Path:
    """Add records to a zoo file, in the place of those of the same name; see `change`."""

    def put(content: dict[str, dict[str, Any]]) -> None:
        for section, records in sections.items():
            content[section] = {**content.get(section, {}), **plain(records, path.parent)}

    return change(path, put)


def change(path: Path, edit: Callable[[dict[str, dict[str, Any]]], None]) -> Path:
    """Edit the sections of a zoo file, by name, as plain mappings; a file that is not there is made.  Comments in it are lost.

    Raises:
        SslrobError: the file is there, and cannot be read.
        RunFailed: the disk does not take it.
    """
    with _alone(path):
        content: dict[str, Any] = (yaml_file.read(path).data or {}) if path.exists() else {}
        content.pop("schema", None)
        edit(content)
        _put(path, {section: dict(sorted(records.items())) for section, records in content.items()})
    return path


def plain(records: Mapping[str, Record], base: Path) -> dict[str, Any]:
    """Records by name, as a zoo file holds them: without defaults, paths relative to the file's folder where they lie in it."""
    return {name: _relative(record.model_dump(mode="json", exclude_defaults=True), base.resolve()) for name, record in records.items()}


def _relative(value: Any, base: Path) -> Any:
    if isinstance(value, dict):
        return {key: _relative(entry, base) for key, entry in value.items()}
    if isinstance(value, str) and os.path.isabs(value) and Path(value).resolve().is_relative_to(base):
        return Path(value).resolve().relative_to(base).as_posix()
    return value


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same file meanwhile."""
    with telling_of_the_disk(path.parent, "set SSLROB_HOME to another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("ab") as lock, locked(lock):
            yield


def _put(path: Path, content: Mapping[str, Any]) -> None:
    """Write a zoo file, whole or not at all."""
    text = yaml.safe_dump({"schema": 1, **content}, sort_keys=False, allow_unicode=True, width=140)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
