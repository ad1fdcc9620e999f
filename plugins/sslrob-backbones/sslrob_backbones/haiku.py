"""Pickles of Haiku's parameters, as BYOL's are, read without JAX, Haiku or dill and without running anything.

What such files hold: BYOL's `checkpointing.py` writes `dill.dump(..., protocol=2)`.  Haiku's mappings reduce to `(FlatMapping, (dict,))`
(`frozendict` before August 2020), arrays of JAX to those of NumPy; dill writes namedtuples as `_create_namedtuple(name, fields, module)`,
and NumPy's functions as `_get_attr(_import_module(module), name)`; protocol 2 writes bytes as `_codecs.encode(text, "latin1")`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from sslrob.checkpoint import first_line
from sslrob.errors import SslrobError
from sslrob.file_kind import mistaken
from sslrob_backbones.pickle_machine import Known, Looked, Machine, Module, Span, require_word

DIMENSIONS = 32  # at most, of an array; NumPy's own limit until 2
ORDERS = ("<", ">", "=", "|")  # of bytes
PLAIN = "fiub"  # kinds of dtypes: floats, integers with and without sign, booleans
STATE = ("online_params", "target_params", "online_state", "target_state", "opt_state")  # of BYOL's `_ByolExperimentState`
NUMPY = ("numpy.core.multiarray", "numpy.core._multiarray_umath", "numpy._core.multiarray", "numpy._core._multiarray_umath")
DILL = ("dill._dill", "dill.dill")  # the second until 2018


class Dtype:
    """One of plain numbers; NumPy's pickles say the byte order afterwards."""

    def __init__(self, code: str, *_: Any) -> None:
        self.numpy = np.dtype(require_word(code))
        self.require_plain()

    def build(self, state: Sequence[Any]) -> None:
        _, order, *compound = state
        if any(compound[:3]) or order not in ORDERS:
            raise ValueError("a dtype that is not of plain numbers")
        self.numpy = self.numpy.newbyteorder(order)

    def require_plain(self) -> None:
        if self.numpy.kind not in PLAIN:
            raise ValueError(f"a dtype that is not of plain numbers: {self.numpy}")


class Array:
    """An array whose values may still lie in the file."""

    shape: tuple[int, ...] = (0,)
    dtype: np.dtype[Any] = np.dtype("u1")
    fortran = False
    values: bytes | Span = b""

    def build(self, state: Sequence[Any]) -> None:
        shape, dtype, self.fortran, values = state[-4:]  # the version of the format comes first, or nothing
        if not isinstance(dtype, Dtype) or not isinstance(values, bytes | Span) or not isinstance(shape, tuple):
            raise ValueError(f"an array of a {type(shape).__name__}, a {type(dtype).__name__} and {type(values).__name__}")
        if len(shape) > DIMENSIONS or not all(isinstance(side, int) and 0 <= side < 2**63 for side in shape):
            raise ValueError(f"an array of {len(shape)} dimensions that are no sizes")
        self.shape, self.dtype, self.values = shape, dtype.numpy, values

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> npt.NDArray[Any]:
        """The array, read now.

        Raises:
            ValueError: there are more or fewer bytes than its shape needs.
        """
        content = self.values.read() if isinstance(self.values, Span) else self.values
        if len(content) != self.size:
            raise ValueError(f"{len(content)} bytes for an array of {self.dtype} and shape {self.shape}")
        flat = np.frombuffer(content, self.dtype).astype(self.dtype.newbyteorder("="))
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


@dataclass(frozen=True)
class Record:
    """A namedtuple."""

    fields: Mapping[str, Any]


def read(path: Path) -> Any:
    """What a pickle holds: containers, numbers, strings, a `Record` for each namedtuple and an `Array` for each array.

    Raises:
        SslrobError: it is damaged, no pickle, or would call anything that these files do not need.
    """
    said, hint = mistaken(path) if path.is_file() else ("there is no such file", "check the path")
    if said:
        raise SslrobError(f"{str(path)!r} is not a pickle of Haiku parameters: {said}", hint=hint)
    try:
        return Machine(path, find).run()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, MemoryError, OSError) as error:
        message = f"{str(path)!r} is not a whole pickle of Haiku parameters: {first_line(error)}"
        raise SslrobError(message, hint="get the file again") from error


def find(name: str) -> Callable[..., Any] | None:
    """What stands for a name of such a pickle; None if these files do not need it."""
    if name.endswith("._ByolExperimentState"):
        return lambda *values: _record(STATE, values)
    if re.fullmatch(r"(byol|optax)\.[\w.]+State", name):  # the optimizer's, named by the pickle only
        return lambda *values: _record([str(i) for i in range(len(values))], values)
    return CALLS.get(name)


def _record(fields: Sequence[str], values: Sequence[Any]) -> Record:
    return Record(dict(zip(fields, values, strict=True)))


def _namedtuple(name: str, fields: Sequence[str], *_: Any) -> Known:
    words = [require_word(field) for field in fields]
    return Known(require_word(name), lambda *values: _record(words, values))


def _look(module: Any, name: str) -> Looked:
    if not isinstance(module, Module):
        raise ValueError(f"something is looked for in a {type(module).__name__}")
    return Looked(module, require_word(name))


def _array(*_: Any) -> Array:
    return Array()


def _array_of_jax(make: Known, arguments: Sequence[Any], state: Sequence[Any], *_: Any) -> Array:
    if not isinstance(make, Known) or make.make is not _array:
        raise ValueError("an array of JAX that something else would make")
    array = _array(*arguments)
    array.build(state)
    return array


def _scalar(dtype: Dtype, value: bytes) -> Any:
    return np.frombuffer(value, dtype.numpy)[0].item()


def _encode(text: str | Span, encoding: str) -> bytes | Span:
    if require_word(encoding) != "latin1":
        raise ValueError(f"bytes in {encoding!r}")
    return text if isinstance(text, Span) else text.encode("latin1")


def _mapping(*parts: Any) -> dict[Any, Any]:
    """A copy of one, or of pairs as Python 2 wrote them; the machine has seen to the keys of a mapping."""
    if not parts or isinstance(parts[0], dict):
        return dict(*parts)
    return {require_word(key): value for key, value in parts[0]}


def _named_only(*_: Any) -> NoReturn:
    raise ValueError("a class is called that is only an argument elsewhere")


CALLS: dict[str, Callable[..., Any]] = {
    **{f"haiku._src.data_structures.{name}": _mapping for name in ("frozendict", "FlatMapping", "FlatMap", "FrozenDict")},
    **{f"{module}._reconstruct": _array for module in NUMPY},
    **{f"{module}.scalar": _scalar for module in NUMPY},
    "numpy.dtype": Dtype,
    "numpy.ndarray": _named_only,
    "collections.OrderedDict": _mapping,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # protocol 2 writes the empty ones so
    **{f"{module}._create_namedtuple": _namedtuple for module in DILL},
    **{f"{module}._import_module": lambda name, *_: Module(require_word(name)) for module in DILL},
    **{f"{module}._get_attr": _look for module in DILL},
    "jax._src.array._reconstruct_array": _array_of_jax,
    "jax._src.device_array.reconstruct_device_array": _array_of_jax,
}
