"""Moves that the layouts share: find tensors, take prefixes off, rename, leave out, tell what a file holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
SHOWN = 3  # names in an error


def tensors(found: Mapping[Any, Any], keys: tuple[str, ...] = ()) -> State:
    """The tensors by name that lie under nested keys; empty if nothing lies there."""
    import torch

    here: Any = found
    for key in keys:
        here = here.get(key) if isinstance(here, Mapping) else None
    if not isinstance(here, Mapping):
        return {}
    return {name: value.detach() for name, value in here.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """Those whose names start with a prefix, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def without(state: Mapping[str, Tensor], pattern: str) -> State:
    """Those whose names do not begin as a regular expression says; all of them if it is empty."""
    return {name: tensor for name, tensor in state.items() if not (pattern and re.match(pattern, name))}


def renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> State:
    """All of them, each named as the first of the rules (a regular expression, what to put for it) that fits makes it."""
    return {_renamed(name, rules): tensor for name, tensor in state.items()}


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        changed, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return changed
    return name


def counted(state: Mapping[str, Tensor]) -> State:
    """All of them, and a count of zero batches for each batch norm that was saved before torch 0.4.1 counted them."""
    import torch

    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    missing = {f"{norm}num_batches_tracked" for norm in norms} - state.keys()
    return {**state, **{name: torch.tensor(0) for name in sorted(missing)}}


def described(found: Mapping[Any, Any]) -> str:
    """The first few tensors of a file with the keys that lead to them, or its first few keys if it has none."""
    names = [repr(name) for name in _walk(found)]
    if not names:
        return f"no tensors, only {_few([repr(str(key)) for key in found])}" if found else "nothing at all"
    return f"{_few(names)}, {len(names)} tensor{'s' if len(names) > 1 else ''} in all"


def _walk(found: Mapping[Any, Any]) -> Iterator[str]:
    """The names of tensors in order, each mapping looked into once: one may lie in several, or in itself."""
    import torch

    seen, left = {id(found)}, [iter([(str(key), value) for key, value in found.items()])]
    while left:
        here = next(left[-1], None)
        if here is None:
            left.pop()
            continue
        name, value = here
        if isinstance(value, torch.Tensor):
            yield name
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            left.append(iter([(f"{name}/{key}", inner) for key, inner in value.items()]))


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
