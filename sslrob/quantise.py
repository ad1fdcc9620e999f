"""Adversarial images as an 8-bit file would hold them."""

from __future__ import annotations

from torch import Tensor

LEVELS = 255
SLACK = 1e-3  # of a level: 3.9999 is 4 that was stored in float32


def to_8bit(images: Tensor, origin: Tensor) -> Tensor:
    """Images on the 256 levels, each value rounded towards the original's level, so that no move grows.

    Where the budget is below one level (1/255 under Linf) this is the clean image: no 8-bit file can hold such an attack.

    Args:
        images, origin: (n, 3, h, w) in [0, 1].
    """
    start = (origin * LEVELS).round()
    move = images * LEVELS - start
    return ((start + (move + SLACK * move.sign()).trunc()) / LEVELS).clamp(0, 1)
