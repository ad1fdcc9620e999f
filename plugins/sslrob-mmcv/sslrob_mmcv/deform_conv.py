"""Deformable convolutions, versions 1 and 2 (modulated), by torchvision's operator.

Shapes: ``input`` (n, c, h, w); ``weight`` (out, c / group, kernel height, kernel width); ``offset`` (n, 2 · deformable_group · kernel
pixels, out height, out width), y before x, in input pixels; ``mask``, version 2 only, half as many channels. Results go into tensors that
the caller made. Dai et al., Deformable Convolutional Networks, ICCV 2017; Zhu et al., Deformable ConvNets v2, CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
]


@dataclass(frozen=True)
class Geometry:
    """A convolution's settings, each pair vertical before horizontal."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    group: int
    deformable_group: int

    def arguments(self, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[object, ...]:
        """The arguments of torchvision's operator, which takes placeholders where there is no mask or no bias."""
        return (
            input,
            weight,
            offset,
            input.new_zeros(input.shape[0], 1) if mask is None else mask,
            input.new_zeros(weight.shape[0]) if bias is None else bias,
            *self.stride,
            *self.padding,
            *self.dilation,
            self.group,
            self.deformable_group,
            mask is not None,
        )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the version 1 convolution to ``output`` (n, out, out height, out width)."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    output.copy_(torch.ops.torchvision.deform_conv2d(*geometry.arguments(input, weight, offset, None, None)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`deform_conv_forward` to ``grad_input`` and ``grad_offset``."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    of_input, _, of_offset, _, _ = _backward(grad_output, geometry.arguments(input, weight, offset, None, None))
    grad_input.copy_(of_input)
    grad_offset.copy_(of_offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` with respect to its weight to ``grad_weight``."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    # The weight is not passed, nor does its own gradient depend on it: only its shape matters.
    of_weight = _backward(grad_output, geometry.arguments(input, torch.zeros_like(grad_weight), offset, None, None))[1]
    grad_weight.add_(of_weight, alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the version 2 convolution to ``output`` (n, out, out height, out width); ``bias`` counts only ``with_bias``."""
    geometry = Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    output.copy_(torch.ops.torchvision.deform_conv2d(*geometry.arguments(input, weight, offset, mask, bias if with_bias else None)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients of :func:`modulated_deform_conv_forward`; those of weight and bias are added to what is there."""
    geometry = Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    arguments = geometry.arguments(input, weight, offset, mask, bias if with_bias else None)
    of_input, of_weight, of_offset, of_mask, of_bias = _backward(grad_output, arguments)
    grad_input.copy_(of_input)
    grad_offset.copy_(of_offset)
    grad_mask.copy_(of_mask)
    grad_weight.add_(of_weight)
    if with_bias:
        grad_bias.add_(of_bias)


def _backward(grad_output: Tensor, arguments: tuple[object, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to input, weight, offset, mask and bias."""
    gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = torch.ops.torchvision._deform_conv2d_backward(grad_output, *arguments)
    return gradients
