"""Adversarial training that raises the mutual information between clean and adversarial embeddings."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sslrob import Attack, Backbone, Batch, Defense, Streams, ThreatModel
from sslrob.defense import Training
from sslrob.evaluate import at_rest
from sslrob_mi.bound import bound_objective, info_nce, scores

WARMUP = 0.25  # of the steps
CLIP = 5.0  # the gradient's largest norm


@dataclass(frozen=True)
class MIAT(Defense):
    """Fine-tuning that raises InfoNCE between clean and adversarial images (Chen et al., ICASSP 2020), without labels.

    The defaults were chosen on held-out images of the embedded collection's fit split; the README has the figures, and what the paper's code has.
    """

    steps: Annotated[int, Field(ge=1, description="batches that are shown")] = 150
    batch_size: Annotated[int, Field(ge=2, description="images in each; the others are the negatives of one")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="Adam's highest, after a short rise; it falls to zero along a cosine")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="Adam's, added to the gradient")] = 1e-4
    temperature: Annotated[float, Field(gt=0, description="of the cosines of embeddings")] = 0.1
    clean: Annotated[
        Literal["trained", "natural"],
        Field(description="whose embeddings of clean images: of the backbone in training, or the natural one"),
    ] = "natural"

    def begin(self, backbone: Backbone, attack: Attack, threat_model: ThreatModel) -> MITraining:
        return MITraining(self, backbone, attack, threat_model)


class MITraining(Training):
    """Each step attacks a batch, then raises the bound by one step of Adam.

    Batch norm is in eval mode for the attack and in training mode for the update; all else (dropout) is in eval mode throughout.
    """

    def __init__(self, settings: MIAT, natural: Backbone, attack: Attack, threat_model: ThreatModel) -> None:
        self.settings, self.natural, self.attack, self.threat_model = settings, natural, attack, threat_model
        self.backbone = copy.deepcopy(natural).eval().requires_grad_(True)
        parameters = list(self.backbone.parameters())
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def step(self, batch: Batch, streams: Streams, progress: float) -> dict[str, float]:
        settings = self.settings
        source = self.natural if settings.clean == "natural" else self.backbone
        with at_rest(self.backbone):
            with torch.no_grad():
                known = source(batch.images).pooled
            objective = bound_objective(self.backbone, known, settings.temperature, self.attack.access)
            adversarial = self.attack.perturb(objective, batch.images.clone(), self.threat_model, streams=streams).detach()
        with _learning_statistics(self.backbone):
            if settings.clean == "trained":
                asked, known = self.backbone(torch.cat([adversarial, batch.images])).pooled.chunk(2)
            else:
                asked = self.backbone(adversarial).pooled
        pairs = scores(asked, known, settings.temperature)
        loss = info_nce(pairs).mean()
        rate = settings.learning_rate * _rate(progress)
        _descend(loss, self.optimizer, rate)
        found = (pairs.argmax(1) == torch.arange(len(batch), device=pairs.device)).float().mean()
        return {"loss": loss.item(), "found": found.item(), "rate": rate}

    def state(self) -> dict[str, Any]:
        return {"backbone": self.backbone.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.backbone.load_state_dict(state["backbone"])
        self.optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _learning_statistics(backbone: Backbone) -> Iterator[None]:
    """Batch norm normalises by the batch, and follows it, meanwhile."""
    layers = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


def _rate(progress: float) -> float:
    """The learning rate as a share of its peak."""
    rise = min(1.0, (progress + WARMUP / 10) / WARMUP)
    return rise * 0.5 * (1 + math.cos(math.pi * progress))


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], CLIP)
    optimizer.step()
