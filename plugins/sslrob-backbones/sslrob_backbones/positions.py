"""Positions of patches in images of another size than a network was trained on, stretched as its authors do."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

OFFSET = 0.1  # of a patch, by which both repositories stretch too far


def stretch_as_dino(net: Any) -> None:
    """Let a vision transformer of timm with one class token stretch its positions as DINO, iBOT and DINOv2 without registers do.

    Bicubic, without antialiasing, by a factor a little too large; timm antialiases.
    Source: facebookresearch/dino vision_transformer.py and dinov2 models/vision_transformer.py, interpolate_pos_encoding.
    """
    net._pos_embed = partial(_positioned, net)


def _positioned(net: Any, x: Tensor) -> Tensor:
    n, rows, columns, width = x.shape
    positions: Tensor = net.pos_embed
    grid = tuple(net.patch_embed.grid_size)
    if (rows, columns) != grid:
        patches = positions[:, 1:].reshape(1, *grid, width).permute(0, 3, 1, 2)
        factors = [(wanted + OFFSET) / trained for wanted, trained in zip((rows, columns), grid, strict=True)]
        stretched = F.interpolate(patches, scale_factor=factors, mode="bicubic")
        positions = torch.cat((positions[:, :1], stretched.permute(0, 2, 3, 1).flatten(1, 2)), 1)
    dropped: Tensor = net.pos_drop(torch.cat((net.cls_token.expand(n, -1, -1), x.flatten(1, 2)), 1) + positions)
    return dropped
