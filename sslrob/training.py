"""The one training loop, for heads and for whole victims."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sslrob.data import Batch
from sslrob.precision import Precision, lower
from sslrob.task import Victim


@dataclass(frozen=True)
class Schedule:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up and a cosine to zero.

    Args:
        train: "head" keeps the backbone frozen and in eval mode; "all" trains it too.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    train: Literal["head", "all"] = "head"
    backbone_rate: Annotated[float, Field(gt=0, description="of the backbone, as a fraction of learning_rate")] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of the steps")] = 0.05
    clip: Annotated[float, Field(gt=0, description="the gradient's largest norm")] = 5.0
    precision: Annotated[Precision, Field(description="of the backbone's products, in training")] = "float32"

    def rate(self, progress: float) -> float:
        """The learning rate, as a fraction of its peak, when `progress` in [0, 1) of the steps are done."""
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


def train(
    victim: Victim,
    batches: Callable[[int], Iterable[Batch]],
    steps: int,
    schedule: Schedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    log: Callable[[dict[str, float]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Lower the victim's first loss, on the device that it is on; leaves it in eval mode.

    Args:
        batches: the batches of an epoch, by its number; the same number must give the same batches.
        steps: batches in an epoch, at most.
        seed: of what the victim itself draws in training (dropout); the global generators are left as they were.
        checkpoint: after every epoch all state is kept here, in one atomic move, and a later call goes on from it.
        log: takes {epoch, epochs, loss, rate} after every epoch.
        progress: takes the steps done and the steps in all, after every step.
    """
    optimizer = torch.optim.AdamW(_groups(victim, schedule), weight_decay=schedule.weight_decay)
    device = next(victim.parameters()).device
    start = _resume(checkpoint, victim, optimizer) if checkpoint is not None and checkpoint.exists() else 0
    for epoch in range(start, schedule.epochs):
        _training_mode(victim, schedule)
        total, count = 0.0, 0
        with torch.random.fork_rng([device] if device.type == "cuda" else []), _computing_in(victim, schedule.precision):
            torch.manual_seed(1000 * seed + epoch)
            for step, batch in enumerate(batches(epoch), epoch * steps):
                rate = schedule.rate((step + 1) / (schedule.epochs * steps + 1))
                for group in optimizer.param_groups:
                    group["lr"] = schedule.learning_rate * group["share"] * rate
                loss = victim.loss(victim(batch.images.to(device)), batch.targets, victim.losses[0], 1.0).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], schedule.clip)
                optimizer.step()
                total, count = total + loss.item() * len(batch), count + len(batch)
                if progress is not None:
                    progress(step + 1, schedule.epochs * steps)
        if log is not None:
            rate = optimizer.param_groups[0]["lr"]
            log({"epoch": epoch + 1, "epochs": schedule.epochs, "loss": total / max(count, 1), "rate": rate})
        if checkpoint is not None:
            keep(checkpoint, {"epoch": epoch + 1, "victim": victim.state_dict(), "optimizer": optimizer.state_dict()})
    victim.eval()


@contextmanager
def _computing_in(victim: Victim, precision: Precision) -> Iterator[None]:
    """Meanwhile the backbone multiplies in `precision`; what it answers is float32 as ever."""
    backbone = victim.backbone
    if backbone is None or precision == "float32":
        yield
        return
    lower(backbone, precision)
    try:
        yield
    finally:
        del backbone.forward


def _groups(victim: Victim, schedule: Schedule) -> list[dict[str, object]]:
    backbone = {id(p) for p in victim.backbone.parameters()} if victim.backbone is not None else set()
    head = [p for p in victim.parameters() if id(p) not in backbone]
    groups: list[dict[str, object]] = [{"params": head, "share": 1.0}]
    if schedule.train == "all" and victim.backbone is not None:
        groups.append({"params": list(victim.backbone.parameters()), "share": schedule.backbone_rate})
    return groups


def _training_mode(victim: Victim, schedule: Schedule) -> None:
    victim.train()
    if victim.backbone is not None:
        whole = schedule.train == "all"
        victim.backbone.train(whole).requires_grad_(whole)


def _resume(checkpoint: Path, victim: Victim, optimizer: torch.optim.Optimizer) -> int:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    victim.load_state_dict(state["victim"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


def keep(checkpoint: Path, state: dict[str, Any]) -> None:
    """Put a checkpoint in the place of the last one in one move, so that a kill leaves one of the two whole."""
    part = checkpoint.with_name(checkpoint.name + ".part")
    torch.save(state, part)
    part.replace(checkpoint)
