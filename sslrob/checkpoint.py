"""Files of weights, read without executing anything that they bring; what is wrong with them is said."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sslrob.archive import require_room, unpacked_size
from sslrob.errors import RunFailed, SslrobError, Unreadable
from sslrob.file_kind import header_of_safetensors, is_zip, mistaken
from sslrob.packed import unpack
from sslrob.pickle_calls import calls, suspect
from sslrob.stand_in import stand_in

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
Format = Literal["safetensors", "torch", "numpy"]
NAMES: dict[Format, str] = {"safetensors": "safetensors file", "torch": "torch checkpoint", "numpy": "NumPy archive"}
WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put the tensors, beside optimizers and epochs
SHOWN = 3  # names in an error
SAVE = "save the tensors by name: torch.save(model.state_dict(), FILE)"


def load(path: Path, format: Format | None = None) -> State:
    """Every tensor of a checkpoint, on the CPU, all of them finite.

    A checkpoint that keeps its tensors in `state_dict` or `model`, beside the state of its training, is unwrapped.

    Args:
        format: by default what the file's suffix says.

    Raises:
        SslrobError: it is damaged, no checkpoint, would execute code, or holds NaN.
        RunFailed: there is too little memory for it.
    """
    found = {"safetensors": _load_safetensors, "torch": load_torch, "numpy": _load_numpy}[format or format_of(path)](path)
    state = _tensors(found)
    for wrapper in WRAPPERS:
        if not state and isinstance(found.get(wrapper), Mapping):
            state = _tensors(found[wrapper])
    if not state:
        raise Unreadable(f"{str(path)!r} holds no tensors, only {few(found) or 'nothing'}", hint=SAVE)
    require_finite(state, path)
    return state


def format_of(path: Path) -> Format:
    """What a file's suffix says."""
    return {".safetensors": "safetensors", ".npz": "numpy"}.get(path.suffix, "torch")  # type: ignore[return-value]


def _tensors(found: Mapping[Any, Any]) -> State:
    import torch

    return {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}


def require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless each tensor of a file holds values, and all of them are finite.

    Raises:
        SslrobError: one has no values of its own, as on the meta device, or is not dense, or holds NaN or infinity.
        RunFailed: they need more memory than there is, each with values of its own: in the file several may share theirs.
    """
    import torch

    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "has no values" if tensor.is_meta else f"is stored as {tensor.layout}"
            raise Unreadable(f"tensor {name!r} of {str(path)!r} {kind}", hint="save it as an ordinary, dense tensor")
    require_room(_unshared(state.values()), path)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Unreadable(f"tensor {name!r} of {str(path)!r} holds NaN or infinity", hint="get the file again, or train again")


def _unshared(tensors: Iterable[Tensor]) -> int:
    """How many bytes more than are stored the tensors would need, each on its own: an expanded one, or several on the same storage."""
    stored: dict[int, int] = {}
    needed: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        needed[storage.data_ptr()] = needed.get(storage.data_ptr(), 0) + tensor.numel() * tensor.element_size()
    return sum(max(0, needed[place] - stored[place]) for place in needed)


def load_torch(path: Path, *, allowed: Sequence[str] = ()) -> Mapping[Any, Any]:
    """What a torch checkpoint holds, as it is nested there, on the CPU.

    Args:
        allowed: dotted names of classes that may be in it besides tensors and containers; objects that only keep their attributes
            stand for theirs, so nothing is imported.

    Raises:
        SslrobError: it is damaged, no checkpoint, or would execute code.
        RunFailed: there is too little memory for it.
    """
    import torch

    _require_possible(path, "torch")
    if is_zip(path):
        require_room(unpacked_size(path), path)
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # about pickle protocols; what matters comes as an exception
            torch.serialization.safe_globals([stand_in(name) for name in allowed]),
        ):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make the unpickler raise anything
        said = re.search(r"GLOBAL (\S+)", str(error))
        name = suspect(path, allowed) or (said[1] if said else "")
        if name:
            raise refused(path, name) from error
        raise damaged(path, "torch", plainly(error), "if it is a safetensors file, say `format: safetensors`") from error
    if not isinstance(found, Mapping):
        raise Unreadable(f"{str(path)!r} holds a {type(found).__name__}, not tensors by name", hint=SAVE)
    return found


def _load_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _require_possible(path, "safetensors")
    hint = "if it is a torch checkpoint, say `format: torch`"
    header, size = header_of_safetensors(path), path.stat().st_size
    if header > size - 8:
        raise damaged(path, "safetensors", f"its header would have {header} bytes, and the file has {size}", hint)
    try:
        return unpack(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:  # the last two: dtypes that torch lacks
        raise damaged(path, "safetensors", first_line(error), hint) from error


def _load_numpy(path: Path) -> Mapping[str, Any]:
    import numpy as np
    import torch

    _require_possible(path, "numpy")
    hint = "if it is a torch checkpoint, say `format: torch`"
    if not is_zip(path):
        raise damaged(path, "numpy", "it is no zip archive", hint)
    require_room(unpacked_size(path), path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except Exception as error:  # as many kinds as there are ways to break a header
        name = suspect(path)
        if name:
            raise refused(path, name) from error
        raise damaged(path, "numpy", plainly(error), hint) from error


def _require_possible(path: Path, format: Format) -> None:
    """Raise unless the file may be a checkpoint at all."""
    try:
        said, hint = mistaken(path)
    except OSError as error:
        raise RunFailed(f"cannot read {str(path)!r}: {error.strerror or error}", hint="check the path and its permissions") from error
    if said:
        raise Unreadable(f"{str(path)!r} is not a whole {NAMES[format]}: {said}", hint=hint)


def refused(path: Path, name: str) -> SslrobError:
    """The error for a file whose pickle would call something."""
    if any(called.startswith("torch.nn.modules.") for called in calls(path)):
        said = f"{str(path)!r} is refused: it is a whole pickled model, and loading it would call {name!r}"
        return Unreadable(said, hint="save its tensors alone, where you trust it: torch.save(model.state_dict(), FILE)")
    return Unreadable(
        f"{str(path)!r} is refused: loading it would call {name!r}",
        hint="convert it to safetensors where you trust it; sslrob executes nothing that a checkpoint brings",
    )


def damaged(path: Path, format: Format, said: str, otherwise: str) -> SslrobError:
    return Unreadable(f"{str(path)!r} is not a whole {NAMES[format]}: {said}", hint=f"get the file again; {otherwise}")


def few(names: Iterable[object]) -> str:
    """The first names of many, for an error."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def plainly(error: Exception) -> str:
    """What a reader's error means for the file, without the names that Python has for it."""
    if isinstance(error, EOFError):
        return "it ends too early"
    told = isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, (UnicodeError, NotImplementedError))
    text = str(error).strip().splitlines() if told else []
    return text[0] if text else "its bytes are damaged, or of another kind"


def first_line(error: Exception) -> str:
    """What an error says, after its kind."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
