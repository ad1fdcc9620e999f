"""The contract of defenses."""

from __future__ import annotations

import copy
import math
from itertools import count

import torch

from sslrob.attack import Attack
from sslrob.backbone import Backbone
from sslrob.data import batches
from sslrob.defense import Defense
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
    """Check that hardening returns a new backbone of the same kind, and that its training's `loss` falls on a toy.

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
    toy, log, draw = toys()["classification"], list[dict[str, float]](), count()
    shown = [batch for _ in range(epochs) for batch in batches(toy.dataset, 3)]
    start = {key: value.clone() for key, value in backbone.state_dict().items()}

    def streams(ids: tuple[str, ...]) -> Streams:
        return Streams(0, ids, f"harden {next(draw)}")

    with generators_unused(name), module_unchanged(backbone, name):
        hardened = defense.harden(
            backbone, shown, attack or PGD(steps=3), threat_model or Linf(8 / 255), streams=streams, log=lambda m: log.append(dict(m))
        )
    assert isinstance(hardened, Backbone), f"{name}.harden returned {type(hardened).__name__}; return a Backbone"
    assert hardened is not backbone, f"{name}.harden returned the backbone it was given; work on copy.deepcopy(backbone)"
    for key in ("width", "channels", "strides"):
        was, now = getattr(backbone, key), getattr(hardened, key)
        assert was == now, f"{name}.harden changed {key} from {was} to {now}; heads rely on it"
    after = copy.deepcopy(hardened).state_dict()
    same = start.keys() == after.keys() and all(torch.equal(start[key], after[key]) for key in start)
    assert not same, f"{name}.harden returned the same weights; train the copy"
    losses = [measures["loss"] for measures in log if "loss" in measures]
    assert len(losses) >= 4, f"{name} logged `loss` {len(losses)} times in {len(shown)} batches; call log({{'loss': ...}}) at every step"
    assert all(map(math.isfinite, losses)), f"{name}: a loss is not finite; look at learning rate and normalisation"
    quarter = len(losses) // 4
    first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
    assert last < first, f"{name}: the loss went from {first:.4g} to {last:.4g} on a toy; training must lower it"
    adaptive = defense.adaptive_attack()
    assert adaptive is None or isinstance(adaptive, str), f"{name}.adaptive_attack returned {adaptive!r}; return an attack's name or None"
