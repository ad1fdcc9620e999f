"""The contract of defenses."""

from __future__ import annotations

import io
import math
from typing import Any

import torch

from sslrob.attack import Attack
from sslrob.backbone import Backbone
from sslrob.data import batches
from sslrob.defense import Defense, Training
from sslrob.streams import Streams
from sslrob.testing.toy_tasks import toys
from sslrob.testing.toy_victims import ToyBackbone
from sslrob.testing.unchanged import generators_unused, module_unchanged
from sslrob.threat_model import Linf, ThreatModel


def check_defense(
    defense: Defense,
    *,
    backbone: Backbone | None = None,
    attack: Attack | None = None,
    threat_model: ThreatModel | None = None,
    epochs: int = 20,
) -> None:
    """Check that a training hardens a copy, that its `loss` falls on a toy, and that it goes on from its state to the same bit.

    Args:
        backbone: to harden; a toy by default.
        attack: inside the training; three steps of PGD by default.
        epochs: how often the toy's images are shown.

    Raises:
        AssertionError: says what broke, where, and what to do.
    """
    from sslrob.builtin.gradient import PGD

    name = type(defense).__name__
    backbone = (backbone or ToyBackbone()).eval()
    attack, threat_model = attack or PGD(steps=3), threat_model or Linf(8 / 255)
    shown = [batch for _ in range(epochs) for batch in batches(toys()["classification"].dataset, 3)]
    middle, kept, log = len(shown) // 2, io.BytesIO(), list[dict[str, float]]()

    def advance(training: Training, first: int, last: int) -> list[dict[str, float]]:
        return [dict(training.step(shown[i], Streams(0, shown[i].ids, f"check {i}"), i / len(shown))) for i in range(first, last)]

    with generators_unused(name), module_unchanged(backbone, name):
        training = defense.begin(backbone, attack, threat_model)
        assert isinstance(training, Training), f"{name}.begin returned {type(training).__name__}; return a Training"
        assert training.backbone is not backbone, f"{name} trains the backbone that it was given; work on copy.deepcopy(backbone)"
        log += advance(training, 0, middle)
        torch.save(training.state(), kept)
        log += advance(training, middle, len(shown))
        kept.seek(0)
        again = defense.begin(backbone, attack, threat_model)
        again.restore(_read(kept, name))
        repeated = advance(again, middle, len(shown))
    _check_hardened(training.backbone, backbone, name)
    _check_losses(log, name)
    same = repeated == log[middle:] and _equal(training.state(), again.state())
    assert same, f"{name}: a training that went on from its state ended differently; keep in state() all that a step changes"
    for amount in ("steps", "batch_size"):
        value = getattr(defense, amount, None)
        assert type(value) is int, f"{name}.{amount} is {value!r}; make it a setting that is a whole number"
    adaptive = defense.adaptive_attack()
    assert adaptive is None or isinstance(adaptive, str), f"{name}.adaptive_attack returned {adaptive!r}; return an attack's name or None"


def _check_losses(log: list[dict[str, float]], name: str) -> None:
    losses = [measures["loss"] for measures in log if "loss" in measures]
    assert len(losses) == len(log), f"{name}: {len(losses)} of {len(log)} steps told a loss; return {{'loss': ...}} from every step"
    numbers = all(isinstance(value, (int, float)) for measures in log for value in measures.values())
    assert numbers, f"{name}: a measure is no number; use .item()"
    assert all(map(math.isfinite, losses)), f"{name}: a loss is not finite; look at learning rate and normalisation"
    quarter = len(losses) // 4
    first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
    assert last < first, f"{name}: the loss went from {first:.4g} to {last:.4g} on a toy; training must lower it"


def _check_hardened(hardened: Backbone, natural: Backbone, name: str) -> None:
    assert isinstance(hardened, Backbone), f"{name} hardens a {type(hardened).__name__}; keep a Backbone"
    for key in ("width", "channels", "strides"):
        was, now = getattr(natural, key), getattr(hardened, key)
        assert was == now, f"{name} changed {key} from {was} to {now}; heads rely on it"
    before, after = natural.state_dict(), hardened.state_dict()
    assert before.keys() == after.keys(), f"{name} changed the names of the weights; the zoo reads them into the natural backbone's class"
    assert not all(torch.equal(before[key], after[key]) for key in before), f"{name} left the weights as they were; train the copy"


def _read(kept: io.BytesIO, name: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(kept, weights_only=True)
    except Exception as error:  # whatever an unpickler refuses
        raise AssertionError(f"{name}: its state cannot be read back: {error}; keep tensors, numbers and texts alone") from error
    return state


def _equal(a: Any, b: Any) -> bool:
    """Whether two states are the same to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
