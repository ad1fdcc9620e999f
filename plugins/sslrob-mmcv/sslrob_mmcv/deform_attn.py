"""Multi-scale deformable attention, one level at a time; Zhu et al., Deformable DETR, ICLR 2021.

Shapes, with n images, k keys in all levels, q queries, m heads, d channels a head, l levels and p points a level: ``value`` (n, k, m, d);
``value_spatial_shapes`` (l, 2), height before width; ``sampling_locations`` (n, q, m, l, p, 2), x before y, in [0, 1] over a level's map;
``attention_weights`` (n, q, m, l, p).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ms_deform_attn_backward", "ms_deform_attn_forward"]


@dataclass(frozen=True)
class Level:
    """The place of one level: its number, the slice of the keys it owns, and its map's size in pixels."""

    index: int
    keys: slice
    height: int
    width: int


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """The attended values (n, q, m · d): for each query and head, the weighted sum of the bilinear samples of every level."""
    output = value.new_zeros(*sampling_locations.shape[:3], value.shape[3])
    for level in _levels(value_spatial_shapes):
        output += _attend(level, value[:, level.keys], sampling_locations[:, :, :, level.index], attention_weights[:, :, :, level.index])
    return output.flatten(2)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward`, whose samples are computed again: no more than one level's graph is held."""
    grad_heads = grad_output.view(*sampling_locations.shape[:3], value.shape[3])
    for level in _levels(value_spatial_shapes):
        places = (
            (value, grad_value, (slice(None), level.keys)),
            (sampling_locations, grad_sampling_loc, (slice(None), slice(None), slice(None), level.index)),
            (attention_weights, grad_attn_weight, (slice(None), slice(None), slice(None), level.index)),
        )
        leaves = [tensor[place].detach().requires_grad_() for tensor, _, place in places]
        with torch.enable_grad():
            output = _attend(level, *leaves)
        for gradient, (_, total, place) in zip(torch.autograd.grad(output, leaves, grad_heads), places, strict=True):
            total[place] = gradient


def _levels(value_spatial_shapes: Tensor) -> Iterator[Level]:
    """The levels in order; their keys follow one another."""
    start = 0
    for index, (height, width) in enumerate(value_spatial_shapes.tolist()):
        yield Level(index, slice(start, start + height * width), height, width)
        start += height * width


def _attend(level: Level, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """One level's share of the output (n, q, m, d), from its values (n, keys, m, d), locations (n, q, m, p, 2) and weights (n, q, m, p)."""
    images, _, heads, channels = value.shape
    maps = value.permute(0, 2, 3, 1).reshape(images * heads, channels, level.height, level.width)
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weighted = samples * weights.transpose(1, 2).flatten(0, 1)[:, None]
    return weighted.sum(dim=-1).view(images, heads, channels, -1).permute(0, 3, 1, 2)
