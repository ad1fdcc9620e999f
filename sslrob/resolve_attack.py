"""The words about an attack → what they mean: the component, its settings and objective, and the threat model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sslrob import epsilon as epsilons
from sslrob import perturbation
from sslrob import zoo as records
from sslrob.attack import Attack
from sslrob.errors import SslrobError, close_names, unknown
from sslrob.plugins import Component, Plugins
from sslrob.settings import checked, complete
from sslrob.spec import AttackSpec, BackboneSpec, PerturbationSpec
from sslrob.zoo import Zoo

if TYPE_CHECKING:
    from sslrob.resolve import Words


def learned(asked: Words, path: Path) -> tuple[AttackSpec, PerturbationSpec]:
    typed = {"attack": asked.attack, "objective": asked.objective, "set": asked.settings or None, "restarts": asked.restarts}
    if extra := [word for word, value in typed.items() if value is not None]:
        raise SslrobError(f"--perturbation says all of the attack, --{extra[0]} too", hint=f"leave --{extra[0]} out")
    return perturbation.read(path)


def attack_spec(asked: Words, task: Component, zoo: Zoo, plugins: Plugins) -> AttackSpec:
    name = asked.attack or "pgd"
    preset: records.Attack = zoo.attacks[name] if name in zoo.attacks else records.Attack(use=registered("attack", name, zoo, plugins))
    component = find(plugins, "attack", preset.use, name, zoo)
    attack = component.load()
    if attack.tasks is not None and task.name not in attack.tasks:
        raise SslrobError(f"attack {name!r} is not defined for task {task.name!r}", hint=f"it is for {', '.join(sorted(attack.tasks))}")
    restarts = preset.restarts if asked.restarts is None else asked.restarts
    if restarts < 1:
        raise SslrobError(f"{restarts} restarts are no attack", hint="use 1 or more")
    objective = _objective(asked.objective or preset.objective, name, attack)
    settings = complete(attack, preset.settings, asked.settings, f"attack {name!r}")
    if restarts > 1 and not checked(attack, settings, f"attack {name!r}").randomised:
        raise SslrobError(
            f"attack {name!r} draws nothing at random: {restarts} restarts would find the same again",
            hint="leave --restarts out" + (", or --set random_start=true" if "random_start" in settings else ", or choose pgd"),
        )
    return AttackSpec(
        id=name,
        use=preset.use,
        plugin=component.plugin,
        objective=objective,
        settings=settings,
        restarts=restarts,
    )


def _objective(objective: str, name: str, attack: type[Attack]) -> str:
    """The objective by its shortest name; whether the victim has the loss is seen once it is built."""
    kind = objective.partition(":")[0]
    if kind not in ("task", "embedding", "activation"):
        raise unknown("objective", objective, ("task", "task:LOSS", "embedding", "activation"))
    if attack.objectives is not None and kind not in attack.objectives:
        hint = f"add --objective {' or '.join(sorted(attack.objectives))}"
        raise SslrobError(f"attack {name!r} is not defined for objective {objective!r}", hint=hint)
    if kind == "task":
        return objective
    from sslrob.representation import Goal

    return str(Goal.parse(objective))


def require_loss(attack: AttackSpec, name: str, head: records.Head, task: Component, *, typed: bool) -> None:
    """Look at the losses before a victim is built: that of the objective, or those that the attack's settings name.

    Args:
        name, head: of the victim, or of a surrogate.
        typed: whether --objective named the loss, rather than the attack's preset.

    Raises:
        SslrobError: victims with this head have no such loss.  Where that is not known before one is built, it is seen then.
    """
    kind, colon, loss = attack.objective.partition(":")
    known = task.load().losses(head.kind) if kind == "task" else ()
    own = attack.settings.get("losses")
    named = [loss] if colon else own if isinstance(own, list | tuple) else []
    strangers = [str(one) for one in named if one not in known]
    if known and strangers:
        close = close_names(strangers[0], known)
        meant = f"'task:{close[0]}'" if colon and close else repr(close[0]) if close else ""
        note = "the setting 'losses' names it; with --set losses=[] these are the victim's strongest"
        if colon:
            other = f"attack {attack.id!r} raises {attack.objective}; --objective task raises the head's usual loss instead"
            note = "" if typed else other
        raise SslrobError(
            f"no loss of head {name!r} is named {strangers[0]!r}",
            hint=f"did you mean {meant}?" if meant else f"its losses are {', '.join(known)}",
            note=note,
        )


def require_maps(attack: AttackSpec, backbone: BackboneSpec, plugins: Plugins) -> None:
    """Look at the maps that an objective asks for by number, before any weights are read.

    Raises:
        SslrobError: the backbone does not have them.
    """
    if not re.search(r":map[1-9]|\+map", attack.objective):
        return
    from sslrob.assemble import backbone as built
    from sslrob.representation import require_levels

    bare = backbone.model_copy(update={"weights": None})
    require_levels(attack.objective, built(bare, name=backbone.id, plugins=plugins))


def radius(asked: Words, usual: str, attack: AttackSpec, move: PerturbationSpec | None, plugins: Plugins) -> str:
    """The threat model; of a move that was learned before, its own is the usual one."""
    bounded = move is not None or plugins.find("attack", attack.use).load().bounded
    usual = usual if move is None else move.threat_model
    if move is not None and asked.norm is not None:
        perturbation.require_norm(move, asked.norm)
    found = threat_model(asked.norm, asked.epsilon, usual if bounded else epsilons.EVERY_IMAGE)
    if not bounded and found != epsilons.EVERY_IMAGE:
        raise SslrobError(f"no epsilon holds attack {attack.id!r}: its threat model is every image", hint="leave --epsilon and --norm out")
    if move is None:
        require_norm(attack.id, plugins.find("attack", attack.use).load(), found)
    else:
        perturbation.require_fits(move, found)
    return found


def require_norm(name: str, attack: type[Attack], radius: str) -> None:
    """Raises:
    SslrobError: the attack has no meaning in the norm of this threat model.
    """
    norm = radius.partition(":")[0]
    if attack.norms is not None and norm not in attack.norms:
        raise SslrobError(
            f"attack {name!r} is not defined for norm {norm!r}",
            hint=f"add --norm {sorted(attack.norms)[0]} --epsilon VALUE, or choose another",
        )


def registered(kind: str, name: str, zoo: Zoo, plugins: Plugins) -> str:
    """The name of a registered component that has no preset.

    Args:
        kind: "attack" or "defense".
    """
    known = {c.name for c in plugins.of(kind)}
    if name.rpartition("/")[2] not in known:
        raise unknown(kind, name, {*zoo.of(kind), *known}, broken=dict.fromkeys([*plugins.complaints(), *zoo.complaints()]))
    return name


def find(plugins: Plugins, kind: str, use: str, entry: str, zoo: Zoo) -> Component:
    """The component that a zoo entry uses; an error tells which entry, where it is not the component's own name."""
    try:
        return plugins.find(kind, use)
    except SslrobError as error:
        origin = zoo.origins.get((f"{kind}s", entry))
        if origin is not None:
            told = f"{kind}s.{entry} of {origin} uses it"
            error.note = f"{error.note}; {told}" if error.note else told
        raise


def threat_model(norm: str | None, epsilon: str | None, usual: str) -> str:
    """What `--norm` and `--epsilon` make of the usual threat model."""
    own, radius = epsilons.parse_text(usual)
    if epsilon is None and norm not in (None, own):
        epsilons.require_norm(str(norm))
        raise SslrobError(f"norm {norm!r} has no usual epsilon here: the usual threat model is {usual}", hint="add --epsilon VALUE")
    norm = norm or own
    return epsilons.write(norm, radius if epsilon is None else epsilons.parse_epsilon(epsilon, norm))
