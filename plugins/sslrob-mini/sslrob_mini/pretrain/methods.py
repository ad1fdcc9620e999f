"""What a pretraining method is to the loop, and those that train one encoder on full views alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from sslrob.backbone import Backbone
from sslrob_mini.items import CLASSES
from sslrob_mini.pretrain.pool import Pool
from sslrob_mini.pretrain.settings import Architecture, Settings, Supervised
from sslrob_mini.pretrain.views import Batch, draw


class Method(nn.Module, ABC):
    """A backbone with what its pretraining adds to it; all parameters and buffers are trained and checkpointed together."""

    backbone: Backbone

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.schedule = settings.schedule
        self.drawn = settings.views
        self.backbone = build(settings.architecture).to(memory_format=torch.channels_last)

    @abstractmethod
    def objective(self, batch: Batch, step: int) -> Tensor:
        """Scalar loss of a batch of views."""

    def loss(self, pool: Pool, generator: Generator, step: int) -> Tensor:
        """Scalar loss of a random batch of the pool, drawn from the generator."""
        return self.objective(draw(pool, self.schedule.batch, self.drawn, generator), step)

    def before(self, step: int) -> None:
        """Change parameters in place before a step, as a method may have to."""

    def parts(self) -> list[nn.Parameter]:
        """What the optimiser trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


class SupervisedMethod(Method):
    """Classify the item of a scene; the linear classifier is thrown away in the end."""

    def __init__(self, settings: Supervised) -> None:
        super().__init__(settings)
        self.smoothing = settings.smoothing
        self.classifier = nn.Linear(self.backbone.width, len(CLASSES))

    def objective(self, batch: Batch, step: int) -> Tensor:
        return F.cross_entropy(self.classifier(embed(self.backbone, batch.full)), batch.labels, label_smoothing=self.smoothing)


class TwoViews(Method):
    """Compare the projections of a scene's two full views, as SimCLR, Barlow Twins and VICReg do, each by its own criterion."""

    def __init__(self, settings: Settings, projection: Callable[[int], nn.Module], criterion: nn.Module) -> None:
        super().__init__(settings)
        self.projection = projection(self.backbone.width)
        self.criterion = criterion

    def objective(self, batch: Batch, step: int) -> Tensor:
        first, second = self.projection(embed(self.backbone, batch.full)).chunk(2)
        loss: Tensor = self.criterion(first, second)
        return loss


def build(architecture: Architecture) -> Backbone:
    """A backbone with new weights, drawn from the global generator."""
    if architecture.use == "mini-vit":
        from sslrob_mini.vit import VisionTransformer

        return VisionTransformer()
    from sslrob_mini.resnet import ResNet

    return ResNet(architecture.widths) if architecture.widths else ResNet()


def embed(backbone: Backbone, images: Tensor) -> Tensor:
    """Embeddings (n, width) of images (n, 3, h, w) in [0, 1]; convolutions in bfloat16, the rest in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        pooled = backbone(images.contiguous(memory_format=torch.channels_last)).pooled
    return pooled.float()
