"""The contract of attacks, and their strength where the truth is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sslrob.attack import Attack
from sslrob.data import Batch
from sslrob.objective import Objective, build
from sslrob.streams import Streams
from sslrob.testing.toy_tasks import Toy, toys
from sslrob.testing.toy_victims import LinearVictim
from sslrob.testing.unchanged import generators_unused, module_unchanged
from sslrob.threat_model import L1, L2, NORMS, Linf, ThreatModel

THREAT_MODELS = (Linf(8 / 255), L2(1.0), L1(4.0))
EVERY_IMAGE = Linf(1.0)
WITHIN = 0.95  # of the robust radius: nothing can win there


def check_attack(attack: Attack, *, on: Iterable[Toy] | None = None, threat_models: Sequence[ThreatModel] = THREAT_MODELS) -> None:
    """Check that an attack stays inside the budget and depends on nothing but objective, images, threat model and streams.

    Args:
        on: the toys to attack; by default those of the tasks that the attack is defined for.

    Raises:
        AssertionError: says what broke, where, and what to do.
    """
    frozen = dataclasses.is_dataclass(attack) and getattr(type(attack), "__dataclass_params__").frozen  # noqa: B009
    assert frozen, f"{type(attack).__name__} is not a frozen dataclass; decorate it with @dataclass(frozen=True)"
    chosen = [toy for toy in toys().values() if attack.tasks is None or toy.kind in attack.tasks] if on is None else list(on)
    assert chosen, f"{attack} is for the tasks {sorted(attack.tasks or ())} only, none of which has a toy; give check_attack(on=...)"
    for toy in chosen:
        for threat_model in [model for model in threat_models if _defined(attack, type(model))] if attack.bounded else [EVERY_IMAGE]:
            _check_on(attack, toy, threat_model, f"{attack} on {toy.kind} under {threat_model}")


def _check_on(attack: Attack, toy: Toy, threat_model: ThreatModel, where: str) -> None:
    batch = toy.batch()
    images = batch.images.clone()
    settings = repr(attack)
    with generators_unused(where), module_unchanged(toy.victim, where):
        fitted = attack.fit([(_objective(attack, toy, batch), images)], threat_model, streams=Streams(0, batch.ids, "fit"))
        assert isinstance(fitted, Attack), f"{where}: fit() returned {type(fitted).__name__}; return an attack"
        objective = _objective(attack, toy, batch)
        found = fitted.perturb(objective, images, threat_model, streams=Streams(0, batch.ids))
        again = fitted.perturb(_objective(attack, toy, batch), images.clone(), threat_model, streams=Streams(0, batch.ids))
    assert repr(attack) == settings, f"{where}: changed its own settings; keep state in local variables"
    assert torch.equal(images, batch.images), f"{where}: changed its input in place; start from images.clone()"
    _check_images(found, images, threat_model, where)
    assert torch.equal(found, again), f"{where}: the same streams gave other images; draw every random number from `streams`"
    if not attack.randomised:
        other = fitted.perturb(_objective(attack, toy, batch), images.clone(), threat_model, streams=Streams(1, batch.ids))
        assert torch.equal(found, other), f"{where}: other streams gave other images; leave `randomised` at True"
    for i, id in enumerate(batch.ids):
        one = batch[torch.arange(len(batch)) == i]
        own = _objective(attack, toy, one)
        alone = fitted.perturb(own, one.images.clone(), threat_model, streams=Streams(0, one.ids))
        difference = float((alone - found[i : i + 1]).abs().max())
        assert difference < 1e-4, (
            f"{where}: {id!r} alone and in a batch differ by {difference:.2g}; "
            "let no image depend on another (no batch means, no shared draws, no stop for all at once)"
        )
        spent, shared = ((int(cost.forwards[k]), int(cost.backwards[k])) for cost, k in ((own.cost, 0), (objective.cost, i)))
        assert spent == shared, (
            f"{where}: {id!r} costs {spent} passes alone and {shared} in a batch; let what an image spends depend on no other"
        )


def _check_images(found: Tensor, images: Tensor, threat_model: ThreatModel, where: str) -> None:
    assert isinstance(found, Tensor), f"{where}: returned {type(found).__name__}; return a tensor like `images`"
    got, wanted = ((x.dtype, tuple(x.shape), x.device) for x in (found, images))
    assert got == wanted, f"{where}: returned {got}; return {wanted}, as `images` is"
    assert not found.requires_grad, f"{where}: the returned images carry a graph; return x.detach()"
    assert not found.isnan().any(), f"{where}: returned NaN; guard the step against zero or non-finite gradients"
    outside = ~threat_model.allows(found, images)
    far = float(threat_model.distance(found, images).max())
    assert not outside.any(), (
        f"{where}: left the threat model on {int(outside.sum())} of {len(images)} images, by up to {far:.6f}; "
        "end with threat_model.project(x, images)"
    )


def check_strength(attack: Attack, *, slack: float | None = 1.25, norms: Sequence[type[ThreatModel]] = (Linf, L2, L1)) -> None:
    """Check that an attack wins on a linear victim where it must, at `slack` × the robust radius, and never where it cannot.

    Args:
        slack: at least 1; None: only that it never wins where it cannot.  An attack that sees gradients has no excuse for losing at
            1.25, since those of a linear victim hide nothing.
        norms: those looked at, where the attack is defined for them.

    Raises:
        AssertionError: says where it failed.
    """
    toy = toys()["classification"]
    victim, batch = toy.victim, toy.batch()
    assert isinstance(victim, LinearVictim)
    for norm in (norm for norm in norms if _defined(attack, norm)):
        for i, radius in enumerate(victim.radius(batch.images, norm).tolist()):
            one = batch[torch.arange(len(batch)) == i]
            for factor in (WITHIN,) if slack is None else (WITHIN, slack):
                threat_model = norm(factor * radius)
                fitted = attack.fit([(_objective(attack, toy, one), one.images)], threat_model, streams=Streams(0, one.ids, "fit"))
                found = fitted.perturb(_objective(attack, toy, one), one.images, threat_model, streams=Streams(0, one.ids))
                won = bool(victim.fooled(victim(found), one.targets))
                where = f"{attack} under {threat_model}, {factor} × the robust radius of {one.ids[0]!r} on a linear victim"
                assert won or factor < 1, f"{where}: did not fool it; it is too weak: look at steps, step size and projection"
                assert not won or factor > 1, f"{where}: fooled it, which no allowed image can; it left the threat model"


def _defined(attack: Attack, norm: type[ThreatModel]) -> bool:
    return attack.bounded and (attack.norms is None or norm in {NORMS[name] for name in attack.norms})


def _objective(attack: Attack, toy: Toy, batch: Batch) -> Objective:
    """The task's own, or where the attack is not defined for that, the first that it is defined for."""
    name = "task" if attack.objectives is None else max(sorted(attack.objectives), key=lambda kind: kind == "task")
    return build(name, toy.victim, batch, attack.access)
