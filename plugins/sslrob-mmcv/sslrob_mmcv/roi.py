"""Features of regions: RoIAlign by torchvision's operator, RoIPool as mmcv bins it.

Regions are (r, 5) rows ``(image index, x1, y1, x2, y2)`` in input pixels; ``spatial_scale`` takes them to the feature map (n, c, h, w).
Pooled features are (r, c, pooled height, pooled width). Every operator writes its result into a tensor that the caller made.
"""

from __future__ import annotations

from math import ceil, floor

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

__all__ = ["roi_align_backward", "roi_align_forward", "roi_pool_backward", "roi_pool_forward"]

AVERAGE = 1  # mmcv's code of RoIAlign's pool_mode "avg"; 0 is "max"


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the average of bilinear samples in each bin of each region to ``output``; He et al., Mask R-CNN, ICCV 2017.

    Raises:
        NotImplementedError: for ``pool_mode="max"``.
    """
    _require_average(pool_mode)
    output.copy_(torch.ops.torchvision.roi_align(input, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of :func:`roi_align_forward` with respect to the feature map to ``grad_input``.

    Raises:
        NotImplementedError: for ``pool_mode="max"``.
    """
    _require_average(pool_mode)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output, rois, spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned
        )
    )


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Write the maximum of each bin of each region to ``output`` and its place ``y * w + x`` to ``argmax``.

    Girshick, Fast R-CNN, ICCV 2015. A bin without a pixel gives 0, with place -1. The bins are those of mmcv: a region's corners are scaled
    but not rounded, and each bin grows to whole pixels; torchvision's RoIPool rounds the corners first.
    """
    height, width = input.shape[2:]
    output.zero_()
    argmax.fill_(-1)
    for index, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        rows = _bins(y1 * spatial_scale, (y2 + 1) * spatial_scale, pooled_height, height)
        columns = _bins(x1 * spatial_scale, (x2 + 1) * spatial_scale, pooled_width, width)
        for row, (top, bottom) in enumerate(rows):
            for column, (left, right) in enumerate(columns):
                if bottom <= top or right <= left:
                    continue
                values, places = input[int(image), :, top:bottom, left:right].flatten(1).max(dim=1)
                output[index, :, row, column] = values
                argmax[index, :, row, column] = (top + places // (right - left)) * width + left + places % (right - left)


def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Add the gradient of :func:`roi_pool_forward` with respect to the feature map to ``grad_input``: each bin's goes to its maximum."""
    planes = grad_input.view(*grad_input.shape[:2], -1)
    places = argmax.flatten(2).long()
    gradients = grad_output.flatten(2) * (places >= 0)
    image = rois[:, 0].long().view(-1, 1, 1).expand_as(places)
    channel = torch.arange(places.shape[1], device=places.device).view(1, -1, 1).expand_as(places)
    planes.index_put_((image, channel, places.clamp(min=0)), gradients, accumulate=True)


def _bins(start: float, stop: float, count: int, size: int) -> list[tuple[int, int]]:
    """Pixel ranges of ``count`` equal bins of [start, stop), each grown to whole pixels and cut to [0, size)."""
    step = (stop - start) / count
    edges = [(floor(start + i * step), ceil(start + (i + 1) * step)) for i in range(count)]
    return [(min(max(first, 0), size), min(max(last, 0), size)) for first, last in edges]


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise NotImplementedError("roi_align with pool_mode='max' has no implementation in sslrob-mmcv; use 'avg' or a compiled mmcv")
