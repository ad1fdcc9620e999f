"""Whole models of other libraries: filled from those libraries' checkpoints, and held against the data set's classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslrob.checkpoint import format_of, load, require_finite
from sslrob.errors import SslrobError
from sslrob.fetching import fetch
from sslrob.weights import apply, wanted
from sslrob.zoo import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

Reader = Callable[[Path], tuple[Mapping[str, "Tensor"], Sequence[str]]]  # tensors by name, and names of classes, none where it has none


def fill(model: nn.Module, weights: Weights, *, what: str, classes: Sequence[str], reader: Reader) -> None:
    """Fill a model, all of it, from a checkpoint; counters of BatchNorm, which old files lack, may be missing.

    Args:
        what: the model, for the error.
        classes: the data set's names, in the order of its labels; empty: not known.
        reader: reads the library's own kind of file, executes nothing that it brings, and raises OSError or ValueError.

    Raises:
        SslrobError: the file is missing or broken, or does not fit the model or the classes.
        RunFailed: it cannot be downloaded.
    """
    path = fetch(weights)
    names: Sequence[str] = ()
    if (weights.format or format_of(path)) == "safetensors":
        state: Mapping[str, Tensor] = load(path, "safetensors")
    else:
        try:
            state, names = reader(path)
        except (OSError, ValueError) as error:
            raise SslrobError(str(error), hint=f"give a checkpoint that was trained with the config of {what!r}") from error
        require_finite(state, path)
    require_classes(what, names, classes)
    counters = {name for name in model.state_dict() if name.endswith("num_batches_tracked")}
    apply(model, wanted(state, weights, path), what=repr(what), allow_missing=counters)


def require_classes(what: str, own: Sequence[str] | int, classes: Sequence[str]) -> None:
    """See that a model's labels mean what the data set's mean; case, spaces and punctuation of names do not matter.

    Args:
        what: the model, for the error.
        own: the names of its classes, or how many it has; empty: not known.
        classes: the data set's; empty: not known.

    Raises:
        SslrobError: there are more or fewer, another name or another order.
    """
    if not own or not classes:
        return
    hint = "name the data set's classes as the model's, in the model's order, or choose the data set that it was trained on"
    count = own if isinstance(own, int) else len(own)
    if count != len(classes):
        raise SslrobError(f"{what!r} has {count} classes, but the data set has {len(classes)}", hint=hint)
    if isinstance(own, int):
        return
    mine, theirs = [_plain(name) for name in own], [_plain(name) for name in classes]
    for label, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        if one != other:
            note = "the names are the same, in another order" if sorted(mine) == sorted(theirs) else ""
            raise SslrobError(f"class {label} of {what!r} is {own[label]!r}, but {classes[label]!r} in the data set", hint=hint, note=note)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) or name
