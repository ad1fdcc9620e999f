"""What a pretraining method is to the loop, and the supervised one."""

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from sslrob_mini.augment import compose, crop, place, recolour, turned
from sslrob_mini.items import CLASSES
from sslrob_mini.pretrain.pool import Pool
from sslrob_mini.pretrain.settings import Schedule, Supervised
from sslrob_mini.resnet import ResNet


class Method(nn.Module, ABC):
    """A backbone with what its pretraining adds to it; all parameters and buffers are trained and checkpointed together."""

    backbone: ResNet

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.backbone = ResNet().to(memory_format=torch.channels_last)

    @abstractmethod
    def loss(self, pool: Pool, generator: Generator, step: int) -> Tensor:
        """Scalar loss of a random batch of the pool, drawn from the generator."""

    def before(self, step: int) -> None:
        """Change parameters in place before a step, as a method may have to."""

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (n, width) of images (n, 3, h, w) in [0, 1]; convolutions in bfloat16, the rest in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            pooled = self.backbone(images.contiguous(memory_format=torch.channels_last)).pooled
        return pooled.float()


class SupervisedMethod(Method):
    """Classify the item of a scene; the linear classifier is thrown away in the end."""

    def __init__(self, settings: Supervised) -> None:
        super().__init__(settings.schedule)
        self.settings = settings
        self.classifier = nn.Linear(self.backbone.width, len(CLASSES))

    def loss(self, pool: Pool, generator: Generator, step: int) -> Tensor:
        n, settings = self.schedule.batch, self.settings
        chosen = torch.randint(len(pool.items), (n,), generator=generator)
        behind = torch.randint(len(pool.backgrounds), (n,), generator=generator)
        layout = place(generator, n, settings.placing)
        scenes = compose(turned(generator, pool.backgrounds[behind]), pool.items[chosen], layout)
        views = recolour(generator, crop(generator, scenes, layout, settings.view), settings.colours)
        return F.cross_entropy(self.classifier(self.embed(views)), pool.labels[chosen], label_smoothing=settings.smoothing)
