"""A pickler that writes objects of libraries that are not here, byte for byte as these libraries were pickled at the time.

`save` and `dump` write with it.  Nothing of the named modules is imported, by writing or here.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Name:
    """What a pickle names: a class or a function of a module."""

    module: str
    name: str

    def __call__(self) -> None:
        """The stand-in is never called: what it names is, by whoever unpickles carelessly."""


@dataclass
class Made:
    """An object as a pickle makes it: from what, of which arguments, with which state set afterwards."""

    by: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None
    new: bool = False  # by the class's __new__, as objects without a __reduce__ of their own are


class Pickler(pickle._Pickler):  # type: ignore[misc,name-defined]  # the one in Python, which can be taught
    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_name(self, name: Name) -> None:
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
        self.memoize(name)

    def save_made(self, made: Made) -> None:
        self.save(made.by)
        self.save(made.arguments)
        self.write(pickle.NEWOBJ if made.new else pickle.REDUCE)
        self.memoize(made)
        if made.state is not None:
            self.save(made.state)
            self.write(pickle.BUILD)

    dispatch[Name] = save_name
    dispatch[Made] = save_made


def dump(content: Any, file: BinaryIO, protocol: int = 2) -> None:
    """Write a pickle; dill and torch.save were asked for protocol 2."""
    Pickler(file, protocol=protocol).dump(content)


def save(content: Any, path: Path, *, device: str = "cpu", old: bool = False) -> None:
    """`torch.save`, with this pickler.

    Args:
        device: where the tensors say that they were.
        old: in the format of PyTorch before 1.6, of July 2020.
    """
    with mock.patch("torch.serialization.location_tag", return_value=device):
        torch.save(content, path, pickle_module=sys.modules[__name__], _use_new_zipfile_serialization=not old)


# ---- numpy of 2020: protocol 2 has no bytes, which are written as text and encoded back; numpy.core was not yet numpy._core

DTYPE = Name("numpy", "dtype")
RECONSTRUCT = Name("numpy.core.multiarray", "_reconstruct")
NDARRAY = Name("numpy", "ndarray")


def dtype(text: str) -> Made:
    """A data type such as f4, as `numpy.dtype.__reduce__` gave it."""
    return Made(DTYPE, (text, 0, 1), (3, "<", None, None, None, -1, -1, 0))


def array(values: NDArray[Any]) -> Made:
    """An array, as `numpy.ndarray.__reduce__` gave it."""
    contiguous = np.ascontiguousarray(values).reshape(values.shape)
    kind = dtype(values.dtype.str.lstrip("<|"))
    return Made(RECONSTRUCT, (NDARRAY, (0,), b"b"), (1, values.shape, kind, False, contiguous.tobytes()))


def number(value: float) -> Made:
    """A numpy float64, which schedules in an array leave behind in the optimizer's learning rates."""
    return Made(Name("numpy.core.multiarray", "scalar"), (dtype("f8"), np.float64(value).tobytes()))


# ---- named tuples, as dill 0.3.2 wrote them: `dill/_dill.py` save_type, "special case: namedtuples"


def named_tuple(module: str, name: str, fields: Mapping[str, Any]) -> Made:
    """A named tuple whose class is made again where it is not there."""
    kind = Made(Name("dill._dill", "_create_namedtuple"), (name, tuple(fields), module))
    return Made(kind, tuple(fields.values()), new=True)
