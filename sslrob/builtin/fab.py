"""FAB: along the border between two classes, back towards the clean image; away from the true class, or towards wrong ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack, overwrite
from sslrob.builtin.gradient import COMPACT_EVERY
from sslrob.builtin.hyperplane import onto
from sslrob.builtin.minimal import ORDERS, Smallest, norm
from sslrob.objective import Feedback, Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel

BEYOND = 1.05  # of the way to the border
CLEAN = 0.1  # at most this share of a step starts from the clean image rather than from where the search is
BACK = 0.9  # of the move is kept after the border was crossed


@dataclass(frozen=True)
class FAB(Attack):
    """Fast adaptive boundary attack (Croce & Hein, ICML 2020): the smallest move that fools, found by steps to the linearised border.

    The border is linearised where the search crossed it, not after going back from there: a step costs one pass each way, not two and one.
    """

    tasks: ClassVar[frozenset[str] | None] = frozenset({"classification"})
    objectives: ClassVar[frozenset[str] | None] = frozenset({"task"})
    norms: ClassVar[frozenset[str] | None] = frozenset({"linf", "l2", "l1"})

    steps: Annotated[int, Field(ge=1, description="steps to the border")] = 100
    random_start: Annotated[bool, Field(description="start within half of epsilon rather than at the clean image, for restarts")] = False
    smallest: Annotated[bool, Field(description="go on after a success, for a smaller move")] = True
    rivals: Annotated[int | None, Field(ge=1, description="likeliest wrong classes whose borders are looked at; null: all")] = None

    @property
    def randomised(self) -> bool:  # type: ignore[override]
        return self.random_start

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        return self.search(objective, images, threat_model, streams=streams).result()

    def search(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Smallest:
        """The smallest move of each image, and what was seen of it."""
        found, goal, origin, x = Smallest(images, threat_model), objective, images, images.clone()
        if self.random_start:
            x = replace(threat_model, epsilon=threat_model.epsilon / 2).random_start(images, streams)
        left, last = torch.arange(len(x), device=x.device), images.clone()  # who is still attacked, and where the others' search ended
        whole = True
        for step in range(self.steps):
            margin, gradient, feedback = self._border(goal, x.requires_grad_(), threat_model)
            x = x.detach()
            found.update(x, feedback, None if whole else left)
            x = _step(x, margin, gradient, feedback.fooled, origin, threat_model)
            if not self.smallest and step % COMPACT_EVERY == 0 and (done := found.distance[left].isfinite()).any():
                last[left], whole = x, False
                left, x, origin, goal = left[~done], x[~done], origin[~done], goal[~done]
                if not len(left):
                    return found
        last[left] = x
        with torch.no_grad():
            found.update(x, goal(x), None if whole else left)
        found.fill(last, objective)
        return found

    def _border(self, objective: Objective, x: Tensor, threat_model: ThreatModel) -> tuple[Tensor, Tensor, Feedback]:
        """(n,) the margin to the nearest border of the linearised victim, its gradient (n, 3, h, w), and the rest of the look."""
        margins, feedback = objective.margins(x)
        k = margins.shape[1] - 1
        columns = margins.detach().topk(min(self.rivals or k, k), largest=False).indices
        nearest, gradient = margins.new_full((len(x),), math.inf), torch.zeros_like(x, requires_grad=False)
        dual = ORDERS[type(threat_model)][1]
        margin = torch.zeros_like(nearest)
        for i in range(columns.shape[1]):
            one = margins.gather(1, columns[:, i : i + 1])[:, 0]
            (slope,) = torch.autograd.grad(one.sum(), x, retain_graph=i + 1 < columns.shape[1])
            slope = slope.nan_to_num(0, 0, 0)
            distance = one.detach().abs() / norm(slope, dual).clamp_min(torch.finfo(slope.dtype).tiny)
            nearer = distance < nearest
            nearest, margin = torch.where(nearer, distance, nearest), torch.where(nearer, one.detach(), margin)
            overwrite(gradient, nearer, slope)
        return margin, gradient, feedback


@dataclass(frozen=True)
class TargetedFAB(Attack):
    """FAB towards each of the likeliest wrong classes in turn (FAB-T, Croce & Hein, ICML 2020), whose cost no number of classes raises."""

    tasks: ClassVar[frozenset[str] | None] = frozenset({"classification"})
    objectives: ClassVar[frozenset[str] | None] = frozenset({"task"})
    norms: ClassVar[frozenset[str] | None] = frozenset({"linf", "l2", "l1"})
    randomised: ClassVar[bool] = False

    steps: Annotated[int, Field(ge=1, description="steps to the border with each class")] = 100
    targets: Annotated[int, Field(ge=1, description="classes to aim at, the likeliest first; at most all wrong ones")] = 9
    smallest: Annotated[bool, Field(description="go on after a success, for a smaller move, and towards all classes")] = True

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        found, attack = Smallest(images, threat_model), _TowardsOne(self.steps, smallest=self.smallest)
        left = torch.ones(len(images), dtype=torch.bool, device=images.device)
        for rank in range(1, max(1, min(self.targets, objective.rivals)) + 1):
            goal = objective[left].towards(rank).raising("margin-targeted")
            found.merge(attack.search(goal, images[left], threat_model, streams=streams[left]), left)
            if not self.smallest and not (left := found.distance.isinf()).any():
                break
        return found.result()


class _TowardsOne(FAB):
    """The border with the one class that the objective aims at."""

    def _border(self, objective: Objective, x: Tensor, threat_model: ThreatModel) -> tuple[Tensor, Tensor, Feedback]:
        feedback = objective(x)
        (gradient,) = torch.autograd.grad(feedback.loss.sum(), x)
        return -feedback.loss.detach(), gradient.nan_to_num(0, 0, 0).neg_(), feedback


def _step(x: Tensor, margin: Tensor, gradient: Tensor, fooled: Tensor, origin: Tensor, threat_model: ThreatModel) -> Tensor:
    """A little across the linearised border, from x and, the nearer x is to it, the more from the clean image."""
    clean, slope, here = origin.flatten(1), gradient.flatten(1), x.flatten(1)
    moved = here - clean
    back, climbed = (1 - BACK) * fooled, torch.linalg.vecdot(slope, moved)
    start = torch.addcmul(here, moved, back[:, None], value=-1)
    onward = onto(start, slope, margin - back * climbed, threat_model)
    outward = onto(clean, slope, margin - climbed, threat_model)
    near, far = (norm(move, ORDERS[type(threat_model)][0]).clamp_min(1e-8) for move in (onward, outward))
    share = (near / (near + far)).clamp_max(CLEAN)[:, None]
    ahead = start.add_(onward, alpha=BEYOND).lerp_(outward.mul_(BEYOND).add_(clean), share)
    return ahead.clamp_(0, 1).view_as(x)
