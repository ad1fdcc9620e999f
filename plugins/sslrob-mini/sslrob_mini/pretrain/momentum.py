"""Methods with a momentum encoder: BYOL, MoCo v3 and DINO, with lightly's heads and, where it has them, losses."""

import copy
import math
import warnings
from collections.abc import Callable

import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, DINOProjectionHead, MoCoProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob_mini.pretrain.methods import Method, embed
from sslrob_mini.pretrain.settings import Byol, Dino, MocoV3, Momentum
from sslrob_mini.pretrain.views import Batch


class MomentumMethod(Method):
    """A backbone and projection whose slow copies are the teacher; the copies follow, and are not trained."""

    def __init__(self, settings: Momentum, projection: Callable[[int], nn.Module]) -> None:
        super().__init__(settings)
        self.momentum = settings.momentum
        self.projection, self.slow_projection = (projection(self.backbone.width) for _ in range(2))
        self.slow_projection.load_state_dict(self.projection.state_dict())
        self.slow_projection.requires_grad_(False)
        self.slow_backbone = copy.deepcopy(self.backbone).requires_grad_(False)

    def before(self, step: int) -> None:
        """Let the slow copies follow what the last step made of the others."""
        momentum = 1 - (1 - self.momentum) * 0.5 * (1 + math.cos(math.pi * step / self.schedule.steps))
        with torch.no_grad():
            for fast, slow in ((self.backbone, self.slow_backbone), (self.projection, self.slow_projection)):
                for new, old in zip(fast.parameters(), slow.parameters(), strict=True):
                    old.lerp_(new, 1 - momentum)

    def quick(self, views: Tensor) -> Tensor:
        """Projections (n, dimensions) of views by the trained encoder."""
        projected: Tensor = self.projection(embed(self.backbone, views))
        return projected

    @torch.no_grad()
    def slow(self, views: Tensor) -> Tensor:
        """Projections (n, dimensions) of views by the momentum encoder, without gradient."""
        projected: Tensor = self.slow_projection(embed(self.slow_backbone, views))
        return projected


class ByolMethod(MomentumMethod):
    """Each full view predicts the momentum encoder's projection of the other."""

    def __init__(self, settings: Byol) -> None:
        super().__init__(settings, lambda width: BYOLProjectionHead(width, settings.hidden, settings.embedding))
        self.predictor = BYOLPredictionHead(settings.embedding, settings.hidden, settings.embedding)
        self.criterion = NegativeCosineSimilarity()

    def objective(self, batch: Batch, step: int) -> Tensor:
        told, truth = self.predictor(self.quick(batch.full)).chunk(2), self.slow(batch.full).chunk(2)
        loss: Tensor = self.criterion(told[0], truth[1]) + self.criterion(told[1], truth[0])
        return loss / 2


class MocoV3Method(MomentumMethod):
    """Each full view picks the momentum encoder's projection of its other view out of the batch's."""

    def __init__(self, settings: MocoV3) -> None:
        super().__init__(settings, lambda width: _mlp(width, settings))
        self.predictor = _mlp(settings.embedding, settings)
        self.temperature = settings.temperature

    def objective(self, batch: Batch, step: int) -> Tensor:
        queries, keys = self.predictor(self.quick(batch.full)).chunk(2), self.slow(batch.full).chunk(2)
        return self.contrast(queries[0], keys[1]) + self.contrast(queries[1], keys[0])

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """InfoNCE of (n, dimensions) queries with their keys, scaled by twice the temperature (Chen et al. 2021, algorithm 1)."""
        scores = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / self.temperature
        return 2 * self.temperature * F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


class DinoMethod(MomentumMethod):
    """Full and local views agree with the momentum encoder's view of the other full ones; centring keeps it from collapsing."""

    def __init__(self, settings: Dino) -> None:
        super().__init__(settings, lambda width: _dino_head(width, settings))
        self.frozen = settings.frozen
        self.criterion = DINOLoss(
            settings.outputs,
            teacher_temp=settings.teacher_temperature,
            student_temp=settings.student_temperature,
            center_momentum=settings.centre_momentum,
        )

    def objective(self, batch: Batch, step: int) -> Tensor:
        self.projection.last_layer.weight_v.requires_grad_(step >= self.frozen)
        students = list(self.quick(batch.full).chunk(2))
        if self.drawn.locals:
            students += self.quick(batch.local).chunk(self.drawn.locals)
        loss: Tensor = self.criterion(list(self.slow(batch.full).chunk(2)), students, teacher_temp=self.criterion.teacher_temp)
        return loss


def _mlp(inputs: int, settings: MocoV3) -> nn.Module:
    return MoCoProjectionHead(inputs, settings.hidden, settings.embedding, num_layers=2, batch_norm=True)


def _dino_head(width: int, settings: Dino) -> nn.Module:
    """DINO's head, with batch normalisation under a ResNet and without under a ViT, as the paper has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # lightly's head uses torch's old weight_norm
        convolutional = settings.architecture.use == "mini-resnet"
        return DINOProjectionHead(width, settings.hidden, settings.bottleneck, settings.outputs, batch_norm=convolutional)
