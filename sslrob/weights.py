"""Checkpoints: fetched, checked before use, read without executing code, and put into modules without leftovers."""

from __future__ import annotations

import os
import pickletools
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import platformdirs

from sslrob.download import download, require_sha256
from sslrob.download import sha256 as sha256
from sslrob.errors import RunFailed, SslrobError
from sslrob.packed import unpack
from sslrob.zoo import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sslrob.task import Victim

State = dict[str, "Tensor"]
Format = Literal["safetensors", "torch"]
WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put the tensors, beside optimizers and epochs
SHOWN = 3  # names in an error


def read(weights: Weights) -> State:
    """The tensors that a zoo entry means, under the names that its module gives them.

    Raises:
        SslrobError: see `fetch`, `load` and `wanted`.
    """
    path = fetch(weights)
    return wanted(load(path, weights.format), weights, path)


def wanted(state: Mapping[str, Tensor], weights: Weights, path: Path) -> State:
    """Those tensors of a file that a zoo entry means: renamed by its `drop_prefix`, without those that it ignores.

    Raises:
        SslrobError: no tensor has the prefix.
    """
    chosen = {name.removeprefix(weights.drop_prefix): t for name, t in state.items() if name.startswith(weights.drop_prefix)}
    if not chosen:
        raise SslrobError(
            f"no tensor of {str(path)!r} has a name that starts with {weights.drop_prefix!r}", hint=f"its names are {_few(state)}"
        )
    return {name: tensor for name, tensor in chosen.items() if not name.startswith(weights.ignore)}


def fetch(weights: Weights, *, offline: bool | None = None) -> Path:
    """A file on this machine whose checksum is right; downloaded once into the cache.

    Args:
        offline: never download; by default, whether `SSLROB_OFFLINE` is set.

    Raises:
        SslrobError: there is no such file, or it is not the one that the zoo means.
        RunFailed: no network, or no room.
    """
    if weights.file is not None:
        if not weights.file.is_file():
            raise SslrobError(f"no weights at {str(weights.file)!r}", hint="check the path in the zoo entry, or reinstall its plugin")
        require_sha256(weights.sha256, weights.file, str(weights.file), "get the file again, or correct sha256 in the zoo")
        return weights.file
    url, expected = str(weights.url), str(weights.sha256)
    path = cache() / f"{expected[:16]}-{PurePosixPath(unquote(urlsplit(url).path)).name or 'weights'}"
    if path.is_file() and sha256(path) == expected:
        return path
    if os.environ.get("SSLROB_OFFLINE", "0") not in ("", "0") if offline is None else offline:
        raise RunFailed(f"{url!r} is not in the cache, and downloads are off", hint=f"unset SSLROB_OFFLINE, or put the file at {path}")
    download(url, expected, path)
    return path


def cache() -> Path:
    """Where downloads are kept: `$SSLROB_CACHE`, else the platform's cache folder."""
    chosen = os.environ.get("SSLROB_CACHE")
    return (Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("sslrob")) / "weights"


def load(path: Path, format: Format | None = None) -> State:
    """Every tensor of a checkpoint, on the CPU, all of them finite.

    A checkpoint that keeps its tensors in `state_dict` or `model`, beside the state of its training, is unwrapped.

    Args:
        format: by default safetensors if the file's suffix says so, else torch.

    Raises:
        SslrobError: it is damaged, no checkpoint, would execute code, or holds NaN.
    """
    found = _load_safetensors(path) if (format or format_of(path)) == "safetensors" else load_torch(path)
    state = _tensors(found)
    for wrapper in WRAPPERS:
        if not state and isinstance(found.get(wrapper), Mapping):
            state = _tensors(found[wrapper])
    if not state:
        raise SslrobError(f"{str(path)!r} holds no tensors, only {_few(found) or 'nothing'}", hint="point the entry to a state dict")
    require_finite(state, path)
    return state


def require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise an SslrobError that names the first tensor of a file with NaN or infinity in it."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise SslrobError(f"tensor {name!r} of {str(path)!r} holds NaN or infinity", hint="get the file again, or train again")


def _tensors(found: Mapping[Any, Any]) -> State:
    import torch

    return {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}


def format_of(path: Path) -> Format:
    """What a file's suffix says."""
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def _load_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return unpack(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        hint = "get the file again; if it is a torch checkpoint, say `format: torch`"
        raise SslrobError(f"{str(path)!r} is not a whole safetensors file: {_first_line(error)}", hint=hint) from error


def load_torch(path: Path, *, allowed: Sequence[str] = ()) -> Mapping[Any, Any]:
    """What a torch checkpoint holds, as it is nested there, on the CPU.

    Args:
        allowed: dotted names of classes that it may rebuild besides tensors and containers.

    Raises:
        SslrobError: it is damaged, no checkpoint, or would execute code.
    """
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols; what matters comes as an exception
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make the unpickler raise anything
        refused = _refused(path, error)
        if refused:
            raise SslrobError(
                f"{str(path)!r} is refused: loading it would call {refused!r}",
                hint="convert it to safetensors where you trust it; sslrob executes nothing that a checkpoint brings",
            ) from error
        hint = "get the file again; if it is a safetensors file, say `format: safetensors`"
        raise SslrobError(f"{str(path)!r} is not a whole torch checkpoint: {_first_line(error)}", hint=hint) from error
    if not isinstance(found, Mapping):
        raise SslrobError(f"{str(path)!r} holds a {type(found).__name__}, not tensors by name", hint="point the entry to a state dict")
    return found


def _refused(path: Path, error: Exception) -> str:
    """What the checkpoint wanted to call: torch says it, or the pickle is read without being run; empty if nothing."""
    said = re.search(r"GLOBAL (\S+)", str(error))
    if said:
        return said[1]
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                return ".".join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except ValueError:  # not a pickle
        return ""
    return ""


def apply(module: nn.Module, state: Mapping[str, Tensor], *, what: str, allow_missing: Collection[str] = frozenset()) -> None:
    """Copy tensors into a module, which must want exactly these; each takes the module's dtype and device.

    Args:
        what: whose weights these are, for the error.
        allow_missing: names that may keep what the module has.

    Raises:
        SslrobError: tensors are missing, left over, or of another shape; nothing is copied.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and name not in allow_missing]
    surplus = [name for name in state if name not in own]
    shapes = {name: f"{tuple(state[name].shape)} for {tuple(own[name].shape)}" for name in own if name in state}
    misshapen = [f"{name} {shapes[name]}" for name in shapes if state[name].shape != own[name].shape]
    complaints = [
        f"{len(names)} {label}: {_few(names)}"
        for label, names in (("missing", missing), ("unexpected", surplus), ("of another shape", misshapen))
        if names
    ]
    if complaints:
        hint = (
            "check that the weights belong to these settings, or this config; drop_prefix and ignore in the zoo entry rename and leave out"
        )
        raise SslrobError(f"the weights of {what} do not fit: {'; '.join(complaints)}", hint=hint)
    module.load_state_dict(state, strict=False)


def head_state(victim: Victim) -> State:
    """The victim's tensors without its backbone's: what the file of a head on a frozen backbone holds."""
    return {name: tensor for name, tensor in victim.state_dict().items() if not name.startswith(_backbone_prefixes(victim))}


def load_head(victim: Victim, state: Mapping[str, Tensor], *, what: str) -> Literal["frozen", "finetuned"]:
    """Put a trained head into the victim; returns which kind of file it was.

    A file with the backbone's tensors in it was trained with the backbone, and replaces them all.

    Raises:
        SslrobError: it does not fit; see `apply`.
    """
    prefixes = _backbone_prefixes(victim)
    if any(name.startswith(prefixes) for name in state):
        apply(victim, state, what=what)
        return "finetuned"
    apply(victim, state, what=what, allow_missing={name for name in victim.state_dict() if name.startswith(prefixes)})
    return "frozen"


def _backbone_prefixes(victim: Victim) -> tuple[str, ...]:
    """How the names of the backbone's tensors start; empty if the victim holds none."""
    backbone = victim.backbone
    return tuple(f"{name}." for name, module in victim.named_modules(remove_duplicate=False) if backbone is not None and module is backbone)


def _few(names: Iterable[object]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
