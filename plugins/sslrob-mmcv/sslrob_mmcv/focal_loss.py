"""Focal losses; Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.

``input`` (n, c) holds logits for the sigmoid loss and probabilities for the softmax loss, which mmcv normalises beforehand. ``target`` (n,)
holds classes in [0, c); for the sigmoid loss any other value is background, for the softmax loss a negative one is ignored. ``weight`` (c,)
scales a row by its target's class; empty for none. Results go into tensors that the caller made.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sigmoid_focal_loss_backward", "sigmoid_focal_loss_forward", "softmax_focal_loss_backward", "softmax_focal_loss_forward"]

SMALLEST = torch.finfo(torch.float32).tiny  # mmcv's floor below logarithms, for every precision


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float) -> None:
    """Write the loss of each logit to ``output`` (n, c)."""
    p = _wide(input).sigmoid()
    positive = alpha * (1 - p) ** gamma * _log(p)
    negative = (1 - alpha) * p**gamma * _log(1 - p)
    output.copy_(-torch.where(_is_target(target, input), positive, negative) * _row_weight(target, weight)[:, None])


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Write the derivative of each logit's loss to ``grad_input`` (n, c)."""
    p = _wide(input).sigmoid()
    positive = alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p))
    negative = (1 - alpha) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p)
    grad_input.copy_(-torch.where(_is_target(target, input), positive, negative) * _row_weight(target, weight)[:, None])


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float) -> None:
    """Write the loss of each row to ``output`` (n,)."""
    p = _target_probability(input, target)
    loss = -alpha * (1 - p) ** gamma * _log(p)
    output.copy_(torch.where(target >= 0, loss * _row_weight(target, weight), 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the gradient of each row's loss with respect to its logits to ``grad_input`` (n, c)."""
    p = _target_probability(input, target)
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * _log(p) - (1 - p) ** gamma)
    buff.copy_(torch.where(target >= 0, slope * _row_weight(target, weight), 0))
    grad_input.copy_(buff[:, None] * (_is_target(target, input).to(input) - input))


def _wide(input: Tensor) -> Tensor:
    """``input`` in at least single precision: :data:`SMALLEST` is 0 in half precision."""
    return input.to(torch.promote_types(input.dtype, torch.float32))


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=SMALLEST).log()


def _is_target(target: Tensor, input: Tensor) -> Tensor:
    """Mask (n, c) of each row's target class."""
    return target[:, None] == torch.arange(input.shape[1], device=input.device)


def _target_probability(input: Tensor, target: Tensor) -> Tensor:
    """Each row's probability of its target (n,); of class 0 where the target is ignored."""
    return _wide(input).gather(1, target.clamp(min=0)[:, None]).squeeze(1)


def _row_weight(target: Tensor, weight: Tensor) -> Tensor:
    """The weight of each row (n,): 1 without weights and for a target that is no class, where mmcv's kernel reads past the end."""
    if weight.numel() == 0:
        return torch.ones(len(target), device=target.device)
    is_class = (target >= 0) & (target < len(weight))
    return torch.where(is_class, weight[target.clamp(0, len(weight) - 1)], 1)
