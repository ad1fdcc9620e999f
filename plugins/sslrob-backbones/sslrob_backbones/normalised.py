"""What the architectures here share: their first layer brings pixels to the mean and spread that the weights were trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslrob.backbone import Backbone
from sslrob.errors import SslrobError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision gives them
Colour = float | Sequence[float]  # of all channels, or of red, green and blue


class Normalised(Backbone):
    """Holds the colours that become zero and one.

    Raises:
        SslrobError: they are no colours.
    """

    def __init__(self, mean: Colour, std: Colour) -> None:
        super().__init__()
        means, spreads = _three(mean, "mean"), _three(std, "std")
        if not all(0 <= number <= 1 for number in means):
            raise SslrobError(f"mean {mean!r} is no colour in [0, 1]", hint="divide it by 255")
        if not all(0 < number <= 1 for number in spreads):
            raise SslrobError(f"std {std!r} is not in (0, 1]", hint="divide it by 255")
        self.register_buffer("mean", torch.tensor(means).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spreads).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def normalised(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) as the weights know them: the colour `mean` is zero."""
        return (images - self.mean) / self.std


def _three(value: Colour, name: str) -> list[float]:
    numbers = [value] * 3 if isinstance(value, int | float) else list(value)
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise SslrobError(f"{name} {value!r} is neither a number nor three of them", hint=f"give {name} of red, green and blue")
    return [float(number) for number in numbers]
