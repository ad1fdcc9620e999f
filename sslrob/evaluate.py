"""The loop: clean → attack → check the budget → judge → record, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslrob.attack import Attack
from sslrob.data import Batch
from sslrob.errors import BudgetExceeded, RunFailed
from sslrob.objective import Guide, Objective, build
from sslrob.quantise import to_8bit
from sslrob.streams import Streams
from sslrob.task import Task, Victim
from sslrob.threat_model import ThreatModel
from sslrob.transfer import through
from sslrob.trust import Watch

Row = dict[str, Any]


class Verdict(NamedTuple):
    """What a victim makes of n images.

    Attributes:
        fooled: (n,) bool.
        quality: (n,).
        predictions: n, on the CPU.
    """

    fooled: Tensor
    quality: Tensor
    predictions: Sequence[Any]


class Judged(NamedTuple):
    """A batch that was attacked: what a picture needs, and the rows."""

    batch: Batch
    adversarial: Tensor  # (n, 3, h, w)
    clean: Verdict
    robust: Verdict
    rows: list[Row]


@dataclass(frozen=True)
class Question:
    """Everything that an evaluation composes.

    Attributes:
        objective, guide: what the attack raises, as `build()` takes it.
        surrogates: on whom it is raised; none: on the victim.
        seed: of every image's random streams.
    """

    task: Task
    victim: Victim
    attack: Attack
    threat_model: ThreatModel
    objective: str = "task"
    seed: int = 0
    guide: Guide | None = None
    surrogates: tuple[Victim, ...] = ()


def evaluate(question: Question, batches: Iterable[Batch], *, watch: Watch | None = None) -> Iterator[Judged]:
    """Attack every image that the victim gets right, judge, and yield each batch with one row an image.

    Images that are wrong already are not attacked and count as not robust.  The adversary may decline: where the attack leaves
    the victim better off than the clean image does, the clean image is kept, so robust ≤ clean for every image.

    Args:
        batches: on the victim's device.  An attack that learns must be fitted before, on other images.
        watch: collects warning signs.

    Raises:
        BudgetExceeded: an attack returned an image outside the threat model; there is no row of its batch.
        RunFailed: the victim returned NaN.
    """
    watch = watch or Watch()
    with at_rest(nn.ModuleList([question.victim, *question.surrogates])):
        for batch in batches:
            yield _evaluate_batch(question, batch, watch)


def _evaluate_batch(question: Question, batch: Batch, watch: Watch) -> Judged:
    victim, images = question.victim, batch.images
    clean = judge(victim, images, batch.targets)
    watch.repeat(clean.quality, lambda: judge(victim, images, batch.targets).quality)
    adversarial = images.clone()
    left = ~clean.fooled
    spent = torch.zeros(3, len(batch), dtype=torch.long)
    fooled_by: dict[int, Row] = {}
    if left.any():
        part = batch[left]
        objective = _goal(question, part)
        streams = Streams(question.seed, part.ids)
        found = question.attack.perturb(objective, part.images.clone(), question.threat_model, streams=streams)
        require_allowed(found, part, question.threat_model, question.attack)
        adversarial[left] = found.detach()
        cost = objective.cost
        spent[:, left.cpu()] = torch.stack([cost.forwards, cost.backwards, cost.dead]).cpu()
        places = left.nonzero()[:, 0].tolist()
        fooled_by = {places[i]: {"fooled_by": {"attack": name, "access": access}} for i, (name, access) in cost.fooled_by.items()}
    attacked = judge(victim, adversarial, batch.targets)
    declined = left & ~attacked.fooled & (attacked.quality > clean.quality)
    adversarial[declined] = images[declined]
    same = declined | ~left  # of a victim that draws at random, another look at the clean image would be another verdict
    robust = Verdict(
        torch.where(same, clean.fooled, attacked.fooled),
        torch.where(same, clean.quality, attacked.quality),
        [(clean if kept else attacked).predictions[i] for i, kept in enumerate(same.tolist())],
    )
    rounded = judge(victim, to_8bit(adversarial, images), batch.targets)
    distance = question.threat_model.distance(adversarial, images)
    rows = [
        {
            "id": id,
            "clean": _verdict_row(question.task, clean, i, batch.targets[i]),
            "robust": _verdict_row(question.task, robust, i, batch.targets[i]),
            "rounded": _verdict_row(question.task, rounded, i, batch.targets[i]),
            "distance": round(float(distance[i]), 6),
            "declined": bool(declined[i]),
            "forwards": int(spent[0, i]),
            "backwards": int(spent[1, i]),
            "dead_gradients": int(spent[2, i]),
            **fooled_by.get(i, {}),
        }
        for i, id in enumerate(batch.ids)
    ]
    return Judged(batch, adversarial, clean, robust, rows)


def _goal(question: Question, batch: Batch) -> Objective:
    if question.surrogates:
        return through(question.surrogates, question.objective, batch, question.attack.access, question.guide)
    return build(question.objective, question.victim, batch, question.attack.access, question.guide)


def _verdict_row(task: Task, verdict: Verdict, i: int, target: Any) -> Row:
    return {
        "fooled": bool(verdict.fooled[i]),
        "quality": round(float(verdict.quality[i]), 6),
        "measure": task.measure(verdict.predictions[i], target),
    }


@torch.no_grad()
def judge(victim: Victim, images: Tensor, targets: Sequence[Any]) -> Verdict:
    """What the victim makes of these images.

    Raises:
        RunFailed: its quality is NaN.
    """
    outputs = victim(images)
    quality = victim.quality(outputs, targets)
    if quality.isnan().any():
        raise RunFailed("the victim returned NaN on a clean or adversarial image", hint="check its weights: sslrob zoo verify")
    return Verdict(victim.fooled(outputs, targets), quality, victim.predict(outputs))


def require_allowed(adversarial: Tensor, batch: Batch, threat_model: ThreatModel, attack: Attack) -> None:
    """Raises:
    BudgetExceeded: an image lies outside the threat model, or is not an image of the batch's shape and type.
    """
    images, name = batch.images, type(attack).__name__
    hint = "the fault is the attack's, not yours; show its author: sslrob plugins check"
    if not isinstance(adversarial, Tensor) or (adversarial.shape, adversarial.dtype) != (images.shape, images.dtype):
        got = f"{adversarial.dtype} {tuple(adversarial.shape)}" if isinstance(adversarial, Tensor) else type(adversarial).__name__
        raise BudgetExceeded(f"attack {name} returned {got} for images of {images.dtype} {tuple(images.shape)}", hint=hint)
    outside = ~threat_model.allows(adversarial, images)
    if outside.any():
        distance = threat_model.distance(adversarial, images)
        worst = int(torch.where(outside, distance, -1.0).argmax())
        raise BudgetExceeded(
            f"attack {name} left {threat_model} on {int(outside.sum())} of {len(images)} images: {batch.ids[worst]!r} moved by "
            f"{float(distance[worst]):.6f}, values from {float(adversarial[worst].min()):.6f} to {float(adversarial[worst].max()):.6f}",
            hint=hint,
        )


@contextmanager
def at_rest(victim: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for parameters meanwhile; every module and parameter gets its own flag back."""
    training = {module: module.training for module in victim.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in victim.parameters()}
    victim.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
