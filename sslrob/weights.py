"""Checkpoints: fetched, checked before use, read without executing code, and put into modules without leftovers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sslrob.checkpoint import State, few, load
from sslrob.checkpoint import format_of as format_of
from sslrob.checkpoint import load_torch as load_torch
from sslrob.checkpoint import require_finite as require_finite
from sslrob.checksums import sha256 as sha256
from sslrob.converted import Part, convert
from sslrob.errors import SslrobError
from sslrob.fetching import cache as cache
from sslrob.fetching import fetch as fetch
from sslrob.zoo import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sslrob.task import Victim


def read(weights: Weights, part: Part = "backbone") -> State:
    """The tensors that a zoo entry means, under the names that its module gives them.

    Args:
        part: of a published checkpoint, which may hold both; any other file holds one or the other.

    Raises:
        SslrobError: see `fetch`, `load`, `convert` and `wanted`.
    """
    path = fetch(weights)
    found = load(path, weights.format) if weights.layout is None else convert(path, weights.layout, part)
    return wanted(found, weights, path)


def wanted(state: Mapping[str, Tensor], weights: Weights, path: Path) -> State:
    """Those tensors of a file that a zoo entry means: renamed by its `drop_prefix`, without those that it ignores.

    Raises:
        SslrobError: no tensor has the prefix.
    """
    chosen = {name.removeprefix(weights.drop_prefix): t for name, t in state.items() if name.startswith(weights.drop_prefix)}
    if not chosen:
        raise SslrobError(
            f"no tensor of {str(path)!r} has a name that starts with {weights.drop_prefix!r}", hint=f"its names are {few(state)}"
        )
    return {name: tensor for name, tensor in chosen.items() if not name.startswith(weights.ignore)}


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
        f"{len(names)} {label}: {few(names)}"
        for label, names in (("missing", missing), ("unexpected", surplus), ("of another shape", misshapen))
        if names
    ]
    if complaints:
        hint = (
            "check that the weights belong to these settings, or this config; drop_prefix and ignore in the zoo entry rename and leave out"
        )
        raise Misfit(f"the weights of {what} do not fit: {'; '.join(complaints)}", hint=hint)
    module.load_state_dict(state, strict=False)


class Misfit(SslrobError):
    """Tensors that are not those of the module."""


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
