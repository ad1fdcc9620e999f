"""Weights in 8 bits: what is stored, not what is computed with.

A matrix or kernel is kept as int8 steps with one float32 scale for each of its outputs, a fourth of its size in float32.  What is
unpacked is float32 and always the same, so a model that was packed before its heads were trained *is* the unpacked one: nothing is
approximated afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SCALE = "::scale"  # added to a tensor's name, for the scales of its outputs
STEPS = 127  # on either side of zero


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for storage: floating-point tensors of two or more dimensions (outputs, …) in 8 bits, all others as they are."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.ndim < 2:
            packed[name] = tensor.contiguous()
            continue
        import torch

        scales = tensor.float().flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / STEPS
        packed[name] = (tensor.float() / _along(scales, tensor)).round().to(torch.int8).contiguous()
        packed[name + SCALE] = scales
    return packed


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that was packed; one that was not comes back as it is.

    Raises:
        ValueError: scales without their tensor, or not one for each of its outputs.
    """
    state = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name in stored.keys() - state.keys():
        scales, whole = stored[name], name.removesuffix(SCALE)
        if whole not in state or state[whole].ndim < 2 or scales.shape != state[whole].shape[:1]:
            raise ValueError(f"{name!r} does not fit a tensor {whole!r}")
        state[whole] = state[whole].float() * _along(scales, state[whole])
    return state


def _along(scales: Tensor, tensor: Tensor) -> Tensor:
    """One scale for each output, shaped to multiply the tensor."""
    return scales.view(-1, *[1] * (tensor.ndim - 1))
