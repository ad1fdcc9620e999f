"""A synthetic EfficientNet of lukemelas/EfficientNet-PyTorch, or of its variant efficientnet-lite-pytorch, and its forward written out.

The sizes are true ones: the smallest network's, whose layout is told from them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from plain import Seen, normalised, same
from published_draws import CLASSES, Draws, State, module
from torch import Tensor
from torch.nn import functional as F

STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
BLOCKS = [  # kernel, stride, expansion, channels: utils.py's block strings, repeated
    (kernel, stride if i == 0 else 1, expansion, channels)
    for repeats, kernel, stride, expansion, channels in STAGES
    for i in range(repeats)
]
EPSILON = 1e-3
GAIN = 0.5  # of the convolutions: little is clipped


def efficientnet(path: Path, *, lite: bool) -> State:
    """`torch.save(model.state_dict())` of model.py; `lite` is without squeezing."""
    draws = Draws(60)

    def conv(out: int, into: int, size: int) -> Tensor:
        return draws.conv(out, into, size) * GAIN

    state = {"_conv_stem.weight": conv(32, 3, 3)} | draws.norm("_bn0", 32)
    into = 32
    for i, (kernel, _, expansion, channels) in enumerate(BLOCKS):
        name, inner = f"_blocks.{i}", into * expansion
        if expansion > 1:
            state |= {f"{name}._expand_conv.weight": conv(inner, into, 1)} | draws.norm(f"{name}._bn0", inner)
        state |= {f"{name}._depthwise_conv.weight": conv(inner, 1, kernel)} | draws.norm(f"{name}._bn1", inner)
        if not lite:
            for layer, out, source in (("_se_reduce", into // 4, inner), ("_se_expand", inner, into // 4)):
                state |= {f"{name}.{layer}.weight": conv(out, source, 1), f"{name}.{layer}.bias": draws.normal(out)}
        state |= {f"{name}._project_conv.weight": conv(channels, inner, 1)} | draws.norm(f"{name}._bn2", channels)
        into = channels
    state |= {"_conv_head.weight": conv(1280, into, 1)} | draws.norm("_bn1", 1280) | draws.linear("_fc", CLASSES, 1280)
    torch.save(module(state), path)
    return state


def forward(state: State, images: Tensor) -> Seen:
    """model.py: TensorFlow's SAME everywhere; clipped rectifiers where nothing is squeezed, else swish."""
    lite = "_blocks.0._se_reduce.weight" not in state

    def active(x: Tensor) -> Tensor:
        return x.clamp(0, 6) if lite else x * torch.sigmoid(x)

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(same(x, weight.shape[-1], stride), weight, state.get(f"{name}.bias"), stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=EPSILON)

    x = active(norm(conv(normalised(images), "_conv_stem", 2), "_bn0"))
    for i, (_, stride, expansion, channels) in enumerate(BLOCKS):
        name, before = f"_blocks.{i}", x
        if expansion > 1:
            x = active(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = active(norm(conv(x, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        if not lite:
            x = x * torch.sigmoid(conv(active(conv(x.mean((2, 3), keepdim=True), f"{name}._se_reduce")), f"{name}._se_expand"))
        x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        if stride == 1 and before.shape[1] == channels:
            x = x + before
    return active(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3)), [x]
