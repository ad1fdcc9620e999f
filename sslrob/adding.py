"""A checkpoint of the user's own as an entry of the user's own zoo: what it is, whether it fits, whether it is there already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslrob import references
from sslrob.checksums import sha256
from sslrob.errors import RunFailed, SslrobError, Unreadable
from sslrob.file_kind import mistaken
from sslrob.plugins import Plugins
from sslrob.zoo import Backbone, Pretraining, Weights, Zoo

PIXELS = re.compile(r"if they were others: '[^']*'")  # as the notes of a reference say it
RESNET = re.compile(r"resnet(\d+)(?:w(\d+))?")  # resnet50, or resnet50w2 for twice its channels


@dataclass(frozen=True)
class Told:
    """What the user says of a checkpoint; None or empty where nothing was said.

    Attributes:
        arch: resnet50, resnet50w2, a model of timm, or a backbone of the zoo whose architecture it has.
        layout: how its tensors are named.
    """

    method: str
    arch: str | None = None
    layout: str | None = None
    name: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    data: str = "not told"
    license: str = "unknown"
    family: str | None = None


def entry(file: Path, told: Told, zoo: Zoo, plugins: Plugins) -> tuple[str, Backbone]:
    """Name and record of a checkpoint, once it is sure that its tensors fit the architecture.

    Raises:
        SslrobError: no such file; nothing recognises it, and it is not told what it is; it does not fit; it, or its name, is there already.
    """
    file = file.expanduser().resolve()
    if file.is_dir():
        raise SslrobError(f"{str(file)!r} is a folder", hint="name the checkpoint in it; of a TensorFlow checkpoint, zip its folder")
    if not file.is_file():
        raise SslrobError(f"no weights at {str(file)!r}", hint="check the path")
    digest = sha256(file)
    said, hint = mistaken(file)
    if said:
        raise Unreadable(f"{str(file)!r} is no checkpoint: {said}", hint=hint)
    record = _recognised(file, told, zoo, plugins)
    colours = {key: list(value) for key, value in (("mean", told.mean), ("std", told.std)) if value is not None}
    notes = [line for line in record.notes.splitlines() if not (colours and line.strip().startswith("pixels:"))]
    weights = Weights(file=file, sha256=digest, layout=told.layout or (record.weights.layout if record.weights else None))
    made = {
        "settings": {**record.settings, **colours},
        "weights": weights,
        "license": told.license,
        "family": told.family,
        "pretraining": Pretraining(method=told.method, data=told.data),
        "notes": PIXELS.sub("if they were others: --mean R,G,B --std R,G,B of sslrob zoo add", "\n".join(notes)),
    }
    record = Backbone(**{**record.model_dump(), **made})
    name = told.name or f"{_word(told.method)}-{_word(told.arch or _network(record))}"
    _require_new(name, record, digest, zoo)
    _require_fit(name, record, plugins)
    return name, record


def _recognised(file: Path, told: Told, zoo: Zoo, plugins: Plugins) -> Backbone:
    """A record whose architecture is the one that is told, else the one that a plugin guesses."""
    if told.arch is not None and told.arch in zoo.backbones:
        like = zoo.backbones[told.arch]
        layout = like.weights.layout if like.weights is not None else None
        return Backbone(
            use=like.use, settings=like.settings, weights=Weights(file=file, layout=layout), license="", notes=f"as {told.arch}"
        )
    guessed, reason = _guess(file, plugins)
    if told.arch is None:
        if guessed is None:
            raise SslrobError(f"nothing recognises {str(file)!r}", hint="say what it is: --arch resnet50 --layout NAME", note=reason)
        return guessed
    if guessed is None and told.layout is None:
        raise SslrobError(f"nothing recognises how {str(file)!r} names its tensors", hint="say it: --layout NAME", note=reason)
    use, settings = _architecture(told.arch)
    plugins.find("backbone", use)
    if guessed is None or guessed.use != use:
        weights = guessed.weights if guessed is not None else Weights(file=file)
        return Backbone(use=use, settings=settings, weights=weights, license="", notes=f"{told.arch}, as told")
    settings = {**{key: guessed.settings[key] for key in ("mean", "std", "padding") if key in guessed.settings}, **settings}
    return guessed.model_copy(update={"settings": settings})


def _guess(file: Path, plugins: Plugins) -> tuple[Backbone | None, str]:
    """What a plugin takes the file for; or nothing, and why.

    Raises:
        Unreadable: nothing can be made of it, whatever it should be.
        RunFailed: there is too little memory for it.
    """
    try:
        found = plugins.resolve("backbone", f"{references.FILE}{file}")
    except Unreadable as error:
        raise Unreadable(str(error), hint=error.hint.partition("; if it is")[0]) from error  # nobody says a format here
    except RunFailed:
        raise
    except SslrobError as error:
        return None, str(error)
    return (found, "") if isinstance(found, Backbone) else (None, "no plugin that recognises checkpoints is installed: sslrob-backbones")


def _architecture(arch: str) -> tuple[str, dict[str, Any]]:
    """The registered backbone and its settings."""
    if (found := RESNET.fullmatch(arch)) is None:
        return "timm", {"model": arch}
    return "resnet", {"depth": int(found[1]), **({"width": int(found[2])} if found[2] else {})}


def _network(record: Backbone) -> str:
    """What --arch would call it."""
    depth, width = (record.settings.get(key, 1) for key in ("depth", "width"))
    if record.use == "resnet":
        return f"resnet{depth}" + ("" if width == 1 else f"w{width}")
    return str(record.settings.get("model", record.use)).partition(".")[0]


def _require_new(name: str, record: Backbone, digest: str, zoo: Zoo) -> None:
    """Raises:
    SslrobError: the zoo has a backbone of this name, or the same file with the same architecture.
    """
    if not references.NAME.fullmatch(name):
        raise SslrobError(f"{name!r} is no name for a backbone", hint="use lower case letters, digits and . + _ -: --name NAME")
    if name in zoo.backbones:
        raise SslrobError(
            f"backbone {name!r} is already in {str(zoo.origins.get(('backbones', name)))!r}", hint="choose another: --name NAME"
        )
    if name in zoo.families():
        raise SslrobError(f"{name!r} is a family of backbones", hint="choose another name: --name NAME")
    for other, known in zoo.backbones.items():
        same = known.weights is not None and known.weights.sha256 == digest
        if same and (known.use, known.settings) == (record.use, record.settings):
            raise SslrobError(f"the zoo has this file already, as backbone {other!r}", hint=f"use it: --backbone {other}")


def _require_fit(name: str, record: Backbone, plugins: Plugins) -> None:
    """Raises:
    SslrobError: the tensors do not fit the architecture.
    """
    from sslrob import assemble
    from sslrob.weights import Misfit

    try:
        assemble.backbone(record, name=name, plugins=plugins)
    except Misfit as error:
        hint = "say which architecture it has: --arch NAME; or save it anew without what is unexpected, with what is missing, and add that"
        raise Misfit(str(error), hint=hint, note=error.note) from error


def _word(text: str) -> str:
    """As part of a name of the zoo."""
    return re.sub(r"[^a-z0-9.+]+", "-", text.casefold()).strip("-.") or "checkpoint"
