"""Which layouts a file fits, told by where its tensors lie and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from sslrob_backbones.architecture import Architecture as Architecture
from sslrob_backbones.architecture import architecture as architecture
from sslrob_backbones.layouts import LAYOUTS
from sslrob_backbones.layouts.moves import State, tensors
from sslrob_backbones.layouts.placed import RESNET, VIT, Fit, Place, Placed

LIGHTNING = "pytorch-lightning_version"  # a key of every checkpoint of Lightning's
TIMM = "timm"


class Candidate(NamedTuple):
    """A layout that a file fits, and what of the file says so."""

    layout: str
    reason: str


def guess(found: Mapping[str, Any]) -> list[Candidate]:
    """The layouts in which the file holds a backbone, the likeliest first; none if it holds no network that is known.

    What only one layout has comes before what several have, a place deep in the file before its top.  timm's names are free, so that
    layout is only named where the network is a ResNet or a ViT, or fits no other and has a first convolution for three colours.  A ViT
    with nothing around it is timm's: nothing tells whether it is DINO's, whose positions are stretched otherwise.
    """
    ranked = []
    for order, layout in enumerate(_layouts()):
        fit = layout.fit(found)
        if fit is not None:
            mark = _mark(layout, fit.place, found)
            word = next((kind.word for kind in (fit.kind, RESNET, VIT) if kind.sign and kind.sign in fit.state), "")
            if word or _sees_colours(fit.state):
                depth = len(fit.place.keys) + bool(fit.place.prefix)
                bare = word == VIT.word and not mark and not depth
                rank = (not word, not mark, -depth, bare and layout.name != TIMM, order)
                ranked.append((rank, Candidate(layout.name, _reason(fit, word, mark) + _doubt(layout.name, found, bare))))
    ranked.sort()
    known_only = [candidate for (unknown, *_), candidate in ranked if not unknown]
    return known_only or [candidate for _, candidate in ranked]


def guess_head(found: Mapping[str, Any]) -> list[Candidate]:
    """The layouts in which the file holds a linear head, those of heads alone first."""
    there = [layout for layout in _layouts() if layout.linear(found) and (not layout.places or layout.fit(found))]
    there.sort(key=lambda layout: bool(layout.places))
    return [Candidate(layout.name, _seen_head(layout, found)) for layout in there]


@cache
def _layouts() -> tuple[Placed, ...]:
    """One of each, in the order of `LAYOUTS`."""
    made = []
    for target in LAYOUTS.values():
        module, _, name = target.partition(":")
        made.append(getattr(import_module(f"sslrob_backbones.layouts.{module}"), name)())
    return tuple(made)


def _mark(layout: Placed, place: Place, found: Mapping[str, Any]) -> str:
    """The first tensor beside or in the network whose name is one of this layout's alone, prefix apart; empty if there is none."""
    names = (name.removeprefix(place.prefix) for name in tensors(found, place.keys))
    return next((name for name in names if layout.marks and re.match(layout.marks, name)), "")


def _sees_colours(state: State) -> bool:
    return any(tensor.ndim == 4 and tensor.shape[1] == 3 for tensor in state.values())


def _reason(fit: Fit, word: str, mark: str) -> str:
    if not word:
        return f"{_where(fit.place)} has a network of another kind than ResNet and ViT, perhaps one of timm's"
    return f"{_where(fit.place)} has {'an' if word[0] in 'AEIOU' else 'a'} {word}" + (f" and {mark!r}" if mark else "")


def _doubt(layout: str, found: Mapping[str, Any], bare: bool) -> str:
    """What else the file may be, though it is read well so."""
    if bare and layout == TIMM:
        return " under timm's names, as in DINO's bare files: if it is DINO's, say layout dino"
    if LIGHTNING in found and layout in ("openmmlab", "lightly"):
        return f": a file of PyTorch Lightning with its tensors where those of {layout} have theirs"
    return ""


def _seen_head(layout: Placed, found: Mapping[str, Any]) -> str:
    rows, width = layout.linear(found)["weight"].shape
    alone = "" if layout.places else ", and nothing else"
    return f"it holds a linear layer from {width} numbers to {rows} classes{alone}"


def _where(place: Place) -> str:
    under = f"{'/'.join(place.keys)!r}" if place.keys else "the file itself"
    return f"{under}, below {place.prefix!r}," if place.prefix else under
