"""A backbone turns images in [0, 1] into one embedding and a pyramid of feature maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """What a backbone sees in a batch of n images of h × w pixels.

    Attributes:
        pooled: (n, width) the embedding.
        maps: fine to coarse; map i is (n, channels[i], ceil(h / strides[i]), ceil(w / strides[i])).
    """

    pooled: Tensor
    maps: tuple[Tensor, ...]


class Backbone(nn.Module, ABC):
    """Its first layer normalises, so that pixels in [0, 1] are the only currency outside.

    Constructor arguments are settings (the zoo's `settings`), each with a default; it builds without weights.

    Attributes:
        width: length of the embedding.
        channels, strides: of the feature maps, fine to coarse.
        mean: buffer (3, 1, 1) in [0, 1], the colour that the normalisation maps to zero; images are padded with it.
    """

    width: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: Tensor

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Args:
        images: (n, 3, h, w) RGB in [0, 1].
        """
