"""`file:PATH`: a checkpoint on this machine, whose layout and architecture are guessed, and the guess explained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sslrob.errors import SslrobError
from sslrob.layout import Layout
from sslrob.plugins import installed
from sslrob.references import file_of, split
from sslrob.zoo import Backbone, Settings, Victim, Weights
from sslrob_backbones.guess import LIGHTNING, Candidate, architecture, guess, guess_head
from sslrob_backbones.layouts import efficientnet
from sslrob_backbones.layouts.openmmlab import OpenMMLab
from sslrob_backbones.normalised import MEAN, STD
from sslrob_backbones.references.timm import configuration

LAYOUT, USE, MODEL = "layout", "use", "model"  # settings of the reference itself: what is known need not be guessed


class Guess(NamedTuple):
    """How a file was understood.

    Attributes:
        settings: of the backbone `use`.
        notes: what was guessed, and from what.
    """

    weights: Weights
    use: str
    settings: Settings
    notes: str


def backbone(text: str) -> Backbone:
    """The record of `file:PATH`, perhaps with `?layout=NAME`, `?model=TIMM_NAME` and settings of the backbone.

    Raises:
        SslrobError: the file is missing or broken, or nothing that is known fits it.
    """
    found = understood(text)
    return Backbone(use=found.use, settings=found.settings, weights=found.weights, license="unknown", notes=found.notes)


def victim(text: str) -> Victim:
    """The record of a whole classifier in one file: a backbone and the linear layer on it.

    Raises:
        SslrobError: see `backbone`; or the file holds no classifier.
    """
    found = understood(text, whole=True)
    settings: Settings = {USE: found.use, **found.settings}
    return Victim(
        task="classification", reference=split(text)[0], weights=found.weights, settings=settings, license="unknown", notes=found.notes
    )


def understood(text: str, *, whole: bool = False) -> Guess:
    """What a file holds, by its names and shapes.

    Args:
        whole: it has to hold a classifier too.
    """
    bare, given = split(text)
    path = file_of(bare)
    asked = str(given.pop(LAYOUT, ""))
    reader, held = _read(path, asked)
    candidates = guess(held)
    if whole:
        heads = {candidate.layout for candidate in guess_head(held)}
        candidates = [candidate for candidate in candidates if candidate.layout in heads]
    if asked:
        candidates = [Candidate(asked, "you say so")]
    elif installed().get("layout", reader).read is not Layout.read:
        candidates = candidates or [Candidate(reader, f"only layout {reader} reads such files")]
    if not candidates:
        what = "classifier" if whole else "backbone"
        raise SslrobError(
            f"{str(path)!r} holds no {what} in any layout that is known: {_names(held)}",
            hint="give the backbone's architecture: --backbone NAME --weights FILE"
            if not whole
            else "attack its backbone under a head of its own",
        )
    name, why = candidates[0]
    state = installed().get("layout", name)().backbone(held)
    habits = "" if name == OpenMMLab.name and LIGHTNING in held else name  # its tensors lie there, but whoever trained them is not known
    use, settings, told = _architecture(state, habits, given)
    notes = [f"{path.name}: layout {name}, since {why}", f"  {told}", f"  {_pixels(use, settings)}"]
    return Guess(Weights(file=path, layout=name), use, settings, "\n".join(notes))


def _read(path: Path, asked: str) -> tuple[str, Mapping[str, Any]]:
    """The first layout that reads the file, those first that allow the least, and what it finds there.

    Raises:
        SslrobError: none does; says what the plainest said.
    """
    if not path.is_file():
        raise SslrobError(f"no weights at {str(path)!r}", hint="check the path")
    kinds: dict[str, Any] = {component.name: component.load() for component in installed().of("layout")}
    readers = {(kind.read, kind.allowed): name for name, kind in reversed(kinds.items())}
    ordered = sorted(readers.items(), key=lambda entry: (entry[0][0] is not Layout.read, len(entry[0][1])))
    errors: list[SslrobError] = []
    for name in [asked] if asked else [name for _, name in ordered]:
        try:
            return name, installed().get("layout", name)().read(path)
        except SslrobError as error:
            errors.append(error)
    raise errors[0]


def _architecture(state: Mapping[str, Any], layout: str, given: Settings) -> tuple[str, Settings, str]:
    """The backbone, its settings, and what told them."""
    if MODEL in given:
        return "timm", given, f"architecture: timm's {given[MODEL]}, as you say"
    if USE in given:
        settings = {key: value for key, value in given.items() if key != USE}
        return str(given[USE]), settings, f"architecture: {given[USE]}, as you say"
    model = efficientnet.model(state) if layout == efficientnet.EfficientNetPytorch.name else ""
    if model:
        return "timm", {"model": model, **given}, f"architecture: timm's {model}, by the number of blocks and their channels"
    found = architecture(state, layout)
    return found.backbone, {**found.settings, **given}, f"architecture: {found.reason}"


def _pixels(use: str, settings: Settings) -> str:
    usual = (MEAN, STD)
    if use == "timm":
        known = configuration(str(settings[MODEL]))
        usual = (known.mean, known.std)
    mean, std = settings.get("mean", list(usual[0])), settings.get("std", list(usual[1]))
    return f"pixels: mean {mean}, std {std}, which no checkpoint says; if they were others: 'file:PATH?mean=…&std=…'"


def _names(held: Mapping[str, Any]) -> str:
    from sslrob_backbones.layouts.moves import described

    return described(held)
