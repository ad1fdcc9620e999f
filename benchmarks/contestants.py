"""The same attack, at the same settings, by sslrob and by the libraries that are installed.

A contestant maps (model, images, labels, epsilon) to adversarial images; the model maps images in [0, 1] to logits.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslrob import assemble
from sslrob.data import Batch
from sslrob.engine import prepared
from sslrob.evaluate import at_rest
from sslrob.objective import build
from sslrob.precision import Precision
from sslrob.streams import Streams
from sslrob.threat_model import NORMS

Contestant = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
SEED = 0
COPIES: dict[tuple[nn.Module, Precision], Any] = {}


def ours(
    use: str, *, norm: str = "linf", loss: str = "", engine: bool = True, precision: Precision = "float32", **settings: Any
) -> Contestant:
    """sslrob's attack, as an evaluation calls it; the copy that it searches is made once, before the first run.

    Args:
        engine: search the prepared copy of the model, not the model itself.
        precision: of the copy's products; here what fools only the copy is not searched again.
    """

    def attacked(model: Any, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        attack = assemble.attack(use, settings)
        ids = tuple(map(str, range(len(images))))
        if engine and (model, precision) not in COPIES:
            COPIES[model, precision] = prepared(model, images[0], precision).victim
        seen = COPIES[model, precision] if engine else model
        with at_rest(seen):
            objective = build(f"task:{loss}" if loss else "task", seen, Batch(ids, images, tuple(labels.tolist())), attack.access)
            return attack.perturb(objective, images.clone(), NORMS[norm](epsilon), streams=Streams(SEED, ids))

    return attacked


def foolbox(name: str, **settings: Any) -> Contestant:
    import foolbox as fb

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        wrapped = fb.PyTorchModel(model, bounds=(0, 1), device=images.device)
        found: Tensor = getattr(fb.attacks, name)(**settings)(wrapped, images, labels, epsilons=epsilon)[1]
        return found

    return attacked


def torchattacks(name: str, **settings: Any) -> Contestant:
    import torchattacks as ta

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        relative = {key: value(epsilon) if callable(value) else value for key, value in settings.items()}
        found: Tensor = getattr(ta, name)(model, **relative)(images, labels)
        return found

    return attacked


def adv_lib(module: str, name: str, *positional: Any, **settings: Any) -> Contestant:
    sys.modules.setdefault("visdom", types.ModuleType("visdom")).Visdom = object  # it draws with it, and does not attack with it
    function = getattr(__import__(f"adv_lib.attacks.{module}", fromlist=[name]), name)

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        relative = {key: value(epsilon) if callable(value) else value for key, value in settings.items()}
        given = [value(epsilon) if callable(value) else value for value in positional]
        found: Tensor = function(model, images, labels, *given, **relative)
        return found

    return attacked


def pyautoattack(name: str, **settings: Any) -> Contestant:
    from pyautoattack import AutoAttack

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        given = {"norm": "Linf", "eps": epsilon, "device": images.device, "seed": SEED}
        if name == "AutoAttack":
            whole = AutoAttack(model, **given)
            for part in (whole.apgd, whole.apgd_targeted):
                part.__init__(model, **given, n_iter=settings["steps"], n_restarts=1)
            whole.fab.n_iter, whole.square.n_queries = settings["steps"], settings["queries"]
            whole.apgd_targeted.n_target_classes = whole.fab.n_target_classes = settings["targets"]
            return whole.run_standard_evaluation(images, labels, batch_size=len(images))[0]  # type: ignore[no-any-return]
        from pyautoattack import autopgd_base, fab_pt, square

        home: Any = {"APGDAttack": autopgd_base, "APGDAttack_targeted": autopgd_base, "FABAttack_PT": fab_pt, "SquareAttack": square}[name]
        found: Tensor = getattr(home, name)(model, **given, **settings).perturb(images, labels)
        return found

    return attacked


def art(name: str, **settings: Any) -> Contestant:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        relative = {key: value(epsilon) if callable(value) else value for key, value in settings.items()}
        kind = "gpu" if images.is_cuda else "cpu"
        classes = model(images[:1]).shape[1]
        wrapped = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type=kind,
        )
        given = {"batch_size": len(images), **({"verbose": False} if name != "FastGradientMethod" else {}), **relative}
        found = getattr(evasion, name)(wrapped, **given).generate(images.cpu().numpy(), labels.cpu().numpy())
        return torch.from_numpy(np.asarray(found, dtype=np.float32)).to(images.device)

    return attacked


def same(epsilon: float) -> float:
    return epsilon


def quarter(epsilon: float) -> float:
    return epsilon / 4


# Steps and queries: those of a quick look, not those of a claim about a model.
PGD = int(os.environ.get("STEPS", "20"))
APGD, TARGETED, QUERIES, FAB = 5 * PGD // 2, max(3 * PGD // 4, 1), 25 * PGD, max(PGD // 2, 1)
WHOLE = {"steps": PGD, "targets": 3, "queries": 10 * PGD}  # of AutoAttack, in place of 100, 9 and 5000

ATTACKS: dict[str, dict[str, Callable[[], Contestant]]] = {
    "fgsm": {
        "sslrob": partial(ours, "fgsm"),
        "foolbox": partial(foolbox, "LinfFastGradientAttack"),
        "torchattacks": partial(torchattacks, "FGSM", eps=same),
        "ART": partial(art, "FastGradientMethod", eps=same),
    },
    "pgd": {
        "sslrob": partial(ours, "pgd", steps=PGD, step_size=0.25),
        "foolbox": partial(foolbox, "LinfPGD", steps=PGD, rel_stepsize=0.25),
        "torchattacks": partial(torchattacks, "PGD", eps=same, alpha=quarter, steps=PGD),
        "adv-lib": partial(
            adv_lib,
            "projected_gradient_descent",
            "pgd_linf",
            same,
            steps=PGD,
            random_init=True,
            absolute_step_size=quarter,
            loss_function="ce",
        ),
        "ART": partial(art, "ProjectedGradientDescentPyTorch", eps=same, eps_step=quarter, max_iter=PGD, num_random_init=1),
    },
    "mi-fgsm": {
        "sslrob": partial(ours, "momentum", steps=PGD),
        "torchattacks": partial(torchattacks, "MIFGSM", eps=same, alpha=lambda epsilon: epsilon / PGD, steps=PGD),
    },
    "apgd": {
        "sslrob": partial(ours, "apgd", steps=APGD),
        "pyautoattack": partial(pyautoattack, "APGDAttack", n_iter=APGD, n_restarts=1, loss="ce"),
        "torchattacks": partial(torchattacks, "APGD", eps=same, steps=APGD, n_restarts=1, loss="ce"),
        "adv-lib": partial(adv_lib, "auto_pgd", "apgd", same, norm=float("inf"), n_iter=APGD, n_restarts=1),
        "ART": partial(art, "AutoProjectedGradientDescent", eps=same, eps_step=lambda e: 2 * e, max_iter=APGD, nb_random_init=1),
    },
    "apgd-t": {
        "sslrob": partial(ours, "apgd-t", steps=TARGETED),
        "pyautoattack": partial(pyautoattack, "APGDAttack_targeted", n_iter=TARGETED, n_restarts=1),
        "torchattacks": partial(torchattacks, "APGDT", eps=same, steps=TARGETED, n_restarts=1),
        "adv-lib": partial(adv_lib, "auto_pgd", "apgd_targeted", same, norm=float("inf"), n_iter=TARGETED, n_restarts=1),
    },
    "fab-t": {
        "sslrob": partial(ours, "fab-t", steps=FAB, smallest=False),  # as in AutoAttack: who is fooled within epsilon is done
        "pyautoattack": partial(pyautoattack, "FABAttack_PT", n_iter=FAB, n_restarts=1, targeted=True),
        "torchattacks": partial(torchattacks, "FAB", eps=same, steps=FAB, n_restarts=1, multi_targeted=True),
    },
    "square": {
        "sslrob": partial(ours, "square", queries=QUERIES),
        "pyautoattack": partial(pyautoattack, "SquareAttack", n_queries=QUERIES, n_restarts=1, p_init=0.8, resc_schedule=False),
        "torchattacks": partial(torchattacks, "Square", eps=same, n_queries=QUERIES, n_restarts=1, p_init=0.8),
        "ART": partial(art, "SquareAttack", eps=same, max_iter=QUERIES, p_init=0.8, nb_restarts=1),
    },
    "autoattack": {
        "sslrob": partial(ours, "autoattack", **WHOLE),
        "pyautoattack": partial(pyautoattack, "AutoAttack", **WHOLE),
    },
    "carlini-wagner": {
        "sslrob": partial(ours, "carlini-wagner", norm="l2", steps=APGD, searches=1, weight=1.0),
        "foolbox": partial(foolbox, "L2CarliniWagnerAttack", steps=APGD, binary_search_steps=1, initial_const=1.0),
        "torchattacks": partial(torchattacks, "CW", c=1, steps=APGD, lr=0.01),
        "adv-lib": partial(adv_lib, "carlini_wagner", "carlini_wagner_l2", max_iterations=APGD, binary_search_steps=1, initial_const=1.0),
    },
    "deepfool": {
        "sslrob": partial(ours, "deepfool", norm="l2", steps=PGD),
        "foolbox": partial(foolbox, "L2DeepFoolAttack", steps=PGD, candidates=None),
        "torchattacks": partial(torchattacks, "DeepFool", steps=PGD),
        "adv-lib": partial(adv_lib, "deepfool", "df", steps=PGD, norm=2),
        "ART": partial(art, "DeepFool", max_iter=PGD, nb_grads=10),
    },
    "ddn": {
        "sslrob": partial(ours, "ddn", norm="l2", steps=APGD),
        "foolbox": partial(foolbox, "DDNAttack", steps=APGD),
        "adv-lib": partial(adv_lib, "decoupled_direction_norm", "ddn", steps=APGD, levels=None),
    },
    "fmn": {
        "sslrob": partial(ours, "fmn", steps=APGD),
        "foolbox": partial(foolbox, "LInfFMNAttack", steps=APGD),
        "adv-lib": partial(adv_lib, "fast_minimum_norm", "fmn", norm=float("inf"), steps=APGD),
    },
}
for _contestants in ATTACKS.values():
    _contestants["sslrob, as it is"] = partial(_contestants["sslrob"], engine=False)
    _contestants["sslrob, bfloat16"] = partial(_contestants["sslrob"], precision="bfloat16")
MINIMUM_NORM = {"carlini-wagner": "l2", "deepfool": "l2", "ddn": "l2", "fmn": "linf"}  # what is small is the move, not the accuracy
