"""What an attack learns before it attacks: from the fit split alone, once for all images of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sslrob import assemble, universal, weights
from sslrob.attack import Attack
from sslrob.data import Dataset
from sslrob.errors import RunFailed, SslrobError
from sslrob.evaluate import at_rest
from sslrob.fit_batches import SIZE, FitBatches
from sslrob.objective import Guide
from sslrob.representation import Guides, targeted
from sslrob.runs import Run
from sslrob.spec import Spec
from sslrob.streams import Streams
from sslrob.task import Victim
from sslrob.threat_model import parse

DRAFT = "learning.safetensors"  # in the folder of a run that is learning: the move so far


def needs_fit_split(spec: Spec) -> bool:
    """Whether the attack learns from the images of the fit split, or aims at them."""
    return spec.perturbation is None and (targeted(spec.attack.objective) or _learns(_attack(spec)))


def guide(spec: Spec, fit: Callable[[], Dataset]) -> Guide | None:
    """What gives the images that a targeted objective pulls towards; None for any other."""
    return Guides(fit(), spec.seed) if spec.perturbation is None and targeted(spec.attack.objective) else None


def prepare(
    spec: Spec,
    store: Run,
    fit: Callable[[], Dataset],
    victim: Callable[[], Victim],
    tell: Callable[[int, int], None] = lambda done, length: None,
) -> dict[str, Any] | None:
    """What the record tells of the run's universal move, learned now if it was not before; None if there is none to learn.

    Args:
        victim: called only if there is something to learn.
        tell: takes how far the learning is: steps or images done, and in all.

    Raises:
        SslrobError: the move is gone that the run's rows were made with, or it is another run's, or of other images.
        RunFailed: the device or the disk cannot take it.
    """
    if spec.perturbation is not None or not isinstance(attack := _attack(spec), universal.Universal):
        return None
    path = store.folder / universal.FILE
    if not path.exists():
        if store.count():
            hint = "put it back, or move the folder away and run again"
            raise SslrobError(f"{str(path)!r} is gone, the move that the rows of the run were made with", hint=hint)
        lessons = FitBatches(spec, fit(), taught := victim(), attack.access, store.folder / DRAFT, tell)
        if not isinstance(move := _fitted(attack, spec, lessons, taught), universal.Move):
            raise TypeError(f"{type(attack).__name__}.fit() returned {type(move).__name__}, not a Move: override begin() and step() alone")
        learned_on = spec.head.id if spec.head is not None else spec.subject
        told = {"attack": spec.attack.model_dump(mode="json"), "threat_model": spec.threat_model, "learned_on": learned_on}
        universal.save(path, move, {**told, "run": spec.id, "fit": lessons.data.fingerprint, "cost": lessons.spent()})
        (store.folder / DRAFT).unlink(missing_ok=True)
    found = universal.told(path)
    if found.get("run") != spec.id:
        raise SslrobError(f"{str(path)!r} is the move of another run", hint="move it away and run again")
    if found.get("fit") != fit().fingerprint:
        raise SslrobError(f"{str(path)!r} was learned from another fit split", hint="restore the data, or move it away and run again")
    return {"file": universal.FILE, "sha256": weights.sha256(path), **found["cost"]}


def require_unseen(spec: Spec, data: Dataset) -> None:
    """Raises:
    SslrobError: the move that is used again was learned from the very images that are evaluated.
    """
    if spec.perturbation is not None and universal.told(weights.fetch(spec.perturbation.weights)).get("fit") == data.fingerprint:
        raise SslrobError("the move was learned from the images that are evaluated", hint="choose another data set, or learn another move")


def ready(spec: Spec, folder: Path, fit: Callable[[], Dataset], victim: Victim) -> Attack:
    """The attack as the images meet it: after it learned, if it does.

    Args:
        folder: of the run, where `prepare()` left what a universal attack learned.  Any other attack that learns does so here, the same in
            every process.
    """
    if spec.perturbation is not None:
        return universal.load(weights.fetch(spec.perturbation.weights))
    attack = _attack(spec)
    if isinstance(attack, universal.Universal):
        return universal.load(folder / universal.FILE)
    return _fitted(attack, spec, FitBatches(spec, fit(), victim, attack.access), victim) if _learns(attack) else attack


def _attack(spec: Spec) -> Attack:
    return assemble.attack(spec.attack.use, spec.attack.settings, restarts=spec.attack.restarts)


def _learns(attack: Attack) -> bool:
    """Whether an attack has something to learn, or the one that it repeats has."""
    inner: Attack = getattr(attack, "attack", attack)
    return type(inner).fit is not Attack.fit


def _fitted(attack: Attack, spec: Spec, lessons: FitBatches, victim: Victim) -> Attack:
    streams = Streams(spec.seed, lessons.data.ids, "fit")
    try:
        with at_rest(victim), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return attack.fit(lessons, parse(spec.threat_model), streams=streams)
    except torch.OutOfMemoryError as error:
        raise RunFailed(f"the device's memory does not hold the {SIZE} images of a step", hint="use a larger device") from error
