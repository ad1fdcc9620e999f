"""The one architecture of the collection's backbones: a ResNet of 0.7 M parameters for images of 32 to 128 pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob.backbone import Backbone, Features

MEAN, STD = 0.45, 0.25  # of every channel: what the scenes are made of has random colours


class ResNet(Backbone):
    """ResNet (He et al. 2016) whose stem halves the image and each of whose four stages halves it again; no pooling between.

    Args:
        widths: channels of the four stages; the embedding is as long as the last.
        blocks: residual blocks of each stage.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192), blocks: Sequence[int] = (1, 1, 1, 1)) -> None:
        super().__init__()
        if not widths or len(widths) != len(blocks):
            raise ValueError(f"a ResNet needs as many widths as blocks, not {tuple(widths)} and {tuple(blocks)}")
        self.channels = tuple(widths)
        self.strides = tuple(4 << stage for stage in range(len(widths)))
        self.width = widths[-1]
        self.register_buffer("mean", torch.full((3, 1, 1), MEAN), persistent=False)
        self.register_buffer("std", torch.full((3, 1, 1), STD), persistent=False)
        self.std: Tensor
        self.stem = _convolution(3, widths[0], size=3, stride=2)
        inputs = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(_stage(i, width, count) for i, width, count in zip(inputs, widths, blocks, strict=True))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Features:
        """Features of images (n, 3, h, w) RGB in [0, 1]; the embedding is the mean of the coarsest map."""
        x = F.relu(self.stem((images - self.mean) / self.std))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(x.mean((2, 3)), tuple(maps))


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution of one pixel where the block changes the shape."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, size=3, stride=stride)
        self.second = _convolution(outputs, outputs, size=3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _stage(inputs: int, width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Block(inputs if k == 0 else width, width, stride=2 if k == 0 else 1) for k in range(blocks)))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs))
