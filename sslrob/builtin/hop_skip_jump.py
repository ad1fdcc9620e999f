"""Along the border between right and wrong, for who sees nothing but the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack
from sslrob.objective import Access, Objective
from sslrob.streams import Streams
from sslrob.threat_model import TINY, Linf, ThreatModel, per_image

BLOCKS = (1, 2, 4, 8)  # pixels of a side, in turn: to many a victim all fine noise is of one class
FINEST = 1e-6  # of the way to the clean image: float32 tells no finer steps apart
FIRST_PROBE = 0.1  # length of the moves that are tried at the first point of the border, as in the paper's code
HALVINGS = 10  # of a step that leaves the wrong side


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """The smallest fooling move by verdicts alone (Chen, Jordan & Wainwright, IEEE S&P 2020), cut back to epsilon where it is longer.

    It begins with random blocks that fool, and bisects the way from there to the clean image.  On the border, the verdicts on small random
    moves tell which way wrong lies; it steps there, half as far while that does not fool, bisects again, and so on.  Where no blocks fool,
    the clean image is returned: of a segmenter, every labelled pixel would have to be wrong.
    """

    access: ClassVar[Access] = "decision"
    objectives: ClassVar[frozenset[str] | None] = frozenset({"task"})  # of a representation there is no verdict
    norms: ClassVar[frozenset[str] | None] = frozenset({"linf", "l2"})
    queries: Annotated[int, Field(ge=100, description="forward passes an image, at most")] = 5000
    draws: Annotated[int, Field(ge=1, le=50_000, description="random images tried at first, until one fools")] = 50
    directions: Annotated[int, Field(ge=1, description="random moves tried in the first iteration; they grow with its root")] = 100
    smallest: Annotated[bool, Field(description="go on to the smallest move; if not, an image fooled within epsilon is done")] = True

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        precision = _precision(images, threat_model)
        bisections = math.ceil(-math.log2(precision))
        draws = min(self.draws, self.queries - bisections)
        found, left = _start(objective, images, streams, draws)
        if not left.any():
            return found
        x, origin, objective, streams = found[left], images[left], objective[left], streams[left]
        x = _border(objective, x, origin, threat_model, bisections)
        closest = threat_model.distance(found, images)
        spent, iteration = draws + bisections, 0
        while True:
            distance = threat_model.distance(x, origin)
            nearer = distance < closest[left]
            found[left] = x.where(per_image(nearer, x), found[left])
            closest[left] = closest[left].minimum(distance)
            iteration += 1
            tried = min(int(self.directions * math.sqrt(iteration)), self.queries - spent - HALVINGS - bisections)
            if tried < 1:
                break
            if not self.smallest and (done := threat_model.allows(x, origin)).any():
                left = left.masked_scatter(left, ~done)
                x, origin, distance, objective, streams = x[~done], origin[~done], distance[~done], objective[~done], streams[~done]
                if not len(x):
                    break
            probe = distance * precision * _spread(x, threat_model) if iteration > 1 else torch.full_like(distance, FIRST_PROBE)
            wrong = _wrong_side(objective, x, probe.clamp_min(TINY).to(x), tried, threat_model, streams)
            x = _stepped(objective, x, wrong, (distance / math.sqrt(iteration)).to(x))
            x = _border(objective, x, origin, threat_model, bisections)
            spent += tried + HALVINGS + bisections
        return found.where(per_image(threat_model.allows(found, images), images), threat_model.project(found, images))


def _precision(images: Tensor, threat_model: ThreatModel) -> float:
    """How near bisection comes to the border, as a share of the way: the paper's theta."""
    values = images[0].numel()
    return max(math.pow(values, -2 if isinstance(threat_model, Linf) else -1.5), FINEST)


def _spread(images: Tensor, threat_model: ThreatModel) -> float:
    """Euclidean length of the moves that are tried, per share of the way that bisection may be off."""
    values = images[0].numel()
    return float(values) if isinstance(threat_model, Linf) else math.sqrt(values)


def _start(objective: Objective, images: Tensor, streams: Streams, draws: int) -> tuple[Tensor, Tensor]:
    """Images of random blocks that fool, clean ones where none did, and (n,) bool whether one did."""
    found = images.clone()
    left = torch.ones(len(images), dtype=torch.bool, device=images.device)  # who waits for one
    _, _, height, width = images.shape
    for draw in range(draws):
        side = BLOCKS[draw % len(BLOCKS)]
        blocks = streams.uniform((3, -(-height // side), -(-width // side))).to(images)
        blocks = blocks.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
        fooled = objective(blocks).fooled
        there = left.masked_scatter(left, fooled)
        found[there] = blocks[fooled]
        left = left & ~there
        objective, streams = objective[~fooled], streams[~fooled]
        if not len(objective):
            break
    return found, ~left


def _border(objective: Objective, x: Tensor, origin: Tensor, threat_model: ThreatModel, bisections: int) -> Tensor:
    """Fooling images on the way from x, which fools, to the clean images, as near to these as bisection finds."""
    move = x.double() - origin.double()
    length = move.flatten(1).abs().amax(1)

    def at(share: Tensor) -> Tensor:
        if isinstance(threat_model, Linf):
            reach = per_image(share * length, x)
            return (origin.double() + move.clamp(-reach, reach)).to(x)
        return (origin.double() + per_image(share, x) * move).to(x)

    right, wrong = torch.zeros_like(length), torch.ones_like(length)
    for _ in range(bisections):
        middle = (right + wrong) / 2
        fooled = objective(at(middle)).fooled
        right, wrong = middle.where(~fooled, right), middle.where(fooled, wrong)
    return at(wrong)


def _wrong_side(objective: Objective, x: Tensor, probe: Tensor, tried: int, threat_model: ThreatModel, streams: Streams) -> Tensor:
    """The move of length 1, in the threat model's norm, that leads away from right, estimated from verdicts `probe`, (n,), away."""
    total, weighed, balance = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(probe)
    for _ in range(tried):
        direction = (streams.uniform(x.shape[1:], -1, 1) if isinstance(threat_model, Linf) else streams.normal(x.shape[1:])).to(x)
        direction = direction / per_image(direction.flatten(1).norm(dim=1), x)
        there = (x + per_image(probe, x) * direction).clamp(0, 1)
        verdict = objective(there).fooled.to(x) * 2 - 1
        moved = (there - x) / per_image(probe, x)
        total += moved
        weighed += per_image(verdict, x) * moved
        balance += verdict
    mean = balance / tried
    estimate = torch.where(per_image(mean.abs() == 1, x), weighed, weighed - per_image(mean, x) * total)
    return threat_model.steepest(estimate, x, 1 / threat_model.epsilon)


def _stepped(objective: Objective, x: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    """x moved by `size`, (n,), half as far while that does not fool; where it is at last not far enough to matter, x itself."""
    moved = x.clone()
    left = torch.ones_like(size, dtype=torch.bool)
    for _ in range(HALVINGS):
        candidates = (x[left] + per_image(size[left], x) * direction[left]).clamp(0, 1)
        fooled = objective(candidates).fooled
        there = left.masked_scatter(left, fooled)
        moved[there] = candidates[fooled]
        left, objective, size = left & ~there, objective[~fooled], size / 2
        if not len(objective):
            break
    return moved
