"""The loop: clean → attack → check the budget → judge → record, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
        searched: on whom it is raised in the victim's place, the same but for rounding; None: the victim itself.  It never judges.
    """

    task: Task
    victim: Victim
    attack: Attack
    threat_model: ThreatModel
    objective: str = "task"
    seed: int = 0
    guide: Guide | None = None
    surrogates: tuple[Victim, ...] = ()
    searched: Victim | None = None


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
    searched = [] if question.searched is None else [question.searched]
    with at_rest(nn.ModuleList([question.victim, *question.surrogates, *searched])):
        for batch in batches:
            yield _evaluate_batch(question, batch, watch)


def _evaluate_batch(question: Question, batch: Batch, watch: Watch) -> Judged:
    victim, images = question.victim, batch.images
    clean = judge(victim, images, batch.targets)
    watch.repeat(clean.quality, lambda: judge(victim, images, batch.targets).quality)
    left, search = ~clean.fooled, Search(images)
    search.attack(question, batch, left)
    adversarial = search.images
    attacked = judge(victim, adversarial, batch.targets)
    if (lost := _lost(question, batch, adversarial, left & ~attacked.fooled)).any():
        search.attack(replace(question, searched=None), batch, lost)
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
            "forwards": int(search.spent[0, i]),
            "backwards": int(search.spent[1, i]),
            "dead_gradients": int(search.spent[2, i]),
            **({"searched_again": True} if again else {}),
            **search.fooled_by.get(i, {}),
        }
        for i, (id, again) in enumerate(zip(batch.ids, lost.tolist(), strict=True))
    ]
    return Judged(batch, adversarial, clean, robust, rows)


class Search:
    """What attacks made of a batch.

    Attributes:
        images: (n, 3, h, w), clean where nothing was attacked.
        spent: (3, n) forwards, backwards and dead gradients, on the CPU.
        fooled_by: by place in the batch, what a row tells of the attack of a cascade that fooled the image.
    """

    def __init__(self, images: Tensor) -> None:
        self.images, self.spent = images.clone(), torch.zeros(3, len(images), dtype=torch.long)
        self.fooled_by: dict[int, Row] = {}

    def attack(self, question: Question, batch: Batch, where: Tensor) -> None:
        """Attack the clean images where `where`, (n,) bool, is true; what was found of them before is forgotten, what was spent is not."""
        if not where.any():
            return
        part = batch[where]
        objective = _goal(question, part)
        streams = Streams(question.seed, part.ids)
        found = question.attack.perturb(objective, part.images.clone(), question.threat_model, streams=streams)
        require_allowed(found, part, question.threat_model, question.attack)
        self.images[where] = found.detach()
        cost, places = objective.cost, where.nonzero()[:, 0].tolist()
        self.spent[:, places] += torch.stack([cost.forwards, cost.backwards, cost.dead]).cpu()
        self.fooled_by = {place: told for place, told in self.fooled_by.items() if place not in places}
        self.fooled_by |= {places[i]: {"fooled_by": {"attack": name, "access": access}} for i, (name, access) in cost.fooled_by.items()}


def _goal(question: Question, batch: Batch) -> Objective:
    if question.surrogates:
        return through(question.surrogates, question.objective, batch, question.attack.access, question.guide)
    seen = question.victim if question.searched is None else question.searched
    return build(question.objective, seen, batch, question.attack.access, question.guide)


def _lost(question: Question, batch: Batch, adversarial: Tensor, robust: Tensor) -> Tensor:
    """(n,) bool: the images among `robust`, right by the victim, that fool whom the attack saw in its place: rounding spared them."""
    lost = torch.zeros_like(robust)
    if question.searched is not None and not question.surrogates and robust.any():
        lost[robust] = judge(question.searched, adversarial[robust], batch[robust].targets).fooled
    return lost


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
