"""Weights out of OpenMMLab checkpoint files, without executing anything a file contains.

Such files hold, beside the weights, records of the training: mmengine's ``HistoryBuffer``, numpy scalars and arrays. PyTorch's restricted
unpickler (``weights_only=True``) refuses them, and mmengine's ``load_checkpoint`` with it. Here every such record is replaced by an
:class:`Inert` object when it is read, so neither mmengine nor numpy runs, and only the weights are returned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

INERT_GLOBALS = (
    "builtins.getattr",  # how pickle names a method: HistoryBuffer.mean
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
)
"""Names that a file may mention and that are read as :class:`Inert`. Any other that PyTorch does not allow refuses the file."""


REFUSAL = re.compile(r"GLOBAL (?P<name>\S+)|reduce for unrecognized function|Can only (create new object|build)")
"""What PyTorch's unpickler says of an object it does not make, with the name where it gives one."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, is incomplete, or does not hold weights where OpenMMLab puts them."""


class CheckpointRefused(CheckpointError):
    """A file that names something it is not allowed to name; loading it without restrictions could execute code.

    ``name`` is the dotted name, or ``None`` where the unpickler did not say.
    """

    def __init__(self, message: str, name: str | None) -> None:
        super().__init__(message)
        self.name = name


class Inert:
    """What is left of a record of the training: an object without content."""

    def __init__(self, *args: object) -> None:
        """Ignore what the record was made from."""

    def __setstate__(self, state: object) -> None:
        """Ignore the record's content."""


class Checkpoint(NamedTuple):
    """What a file is read for: the weights by name, and the names of the classes, none where it does not tell them."""

    weights: dict[str, Tensor]
    classes: tuple[str, ...]


def load_state_dict(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The weights of :func:`load`."""
    return load(path, map_location).weights


def load(path: str | Path, map_location: str | torch.device = "cpu") -> Checkpoint:
    """The file's ``state_dict``, or the whole file where it is one, without the prefix ``module.`` of wrapped models, and its classes.

    Raises:
        OSError: if the file cannot be opened.
        CheckpointRefused: if the file names anything that PyTorch's unpickler and :data:`INERT_GLOBALS` do not allow.
        CheckpointError: if the file is damaged, no checkpoint, or has no weights.
    """
    path = Path(path)
    content = _read(path, map_location)
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f"no weights in '{path}': expected a mapping 'state_dict' of tensors, found {_describe(weights)}")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"entry {name!r} of the weights in '{path}' is {_describe(tensor)}, not a tensor with a name")
    return Checkpoint({name.removeprefix("module."): tensor for name, tensor in weights.items()}, _classes(content))


def _classes(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What mmengine writes as ``dataset_meta``'s ``classes``, earlier releases as ``CLASSES``, in the file's ``meta``."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta")
    data = data if isinstance(data, Mapping) else {}
    for names in (data.get("classes"), data.get("CLASSES"), meta.get("CLASSES")):
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _read(path: Path, map_location: str | torch.device) -> Any:
    """What the file holds, with its records of the training as :class:`Inert` objects."""
    stand_ins: list[Any] = [(Inert, name) for name in INERT_GLOBALS]
    with path.open("rb") as file, torch.serialization.safe_globals(stand_ins):
        try:
            return torch.load(file, map_location=map_location, weights_only=True)
        except Exception as error:  # damaged files raise anything: OSError, struct.error, IndexError, ...
            if refusal := REFUSAL.search(str(error)):
                name = refusal["name"]
                asked = f"'{name}'" if name else "an object that is not allowed"
                raise CheckpointRefused(f"refused to load '{path}': it asks for {asked}, which could execute code", name) from error
            raise CheckpointError(f"cannot read '{path}' as a checkpoint: it is incomplete, damaged or another kind of file") from error


def _describe(value: object) -> str:
    if isinstance(value, Inert):
        return "a numpy array or a record of the training"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(repr(key) for key in list(value)[:5])}" if value else "an empty mapping"
    return f"of type '{type(value).__name__}'"
