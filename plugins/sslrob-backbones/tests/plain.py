"""The original ResNets' forwards, written out on dictionaries of tensors under the original names.

Each returns the embedding (n, width) and the maps of strides 4, 8, 16 and 32, of images (n, 3, h, w) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Seen = tuple[Tensor, list[Tensor]]
State = Mapping[str, Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SWAV = ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))  # facebookresearch/swav eval_linear.py and src/multicropdataset.py
EPSILON = 1e-5  # of batch norms: torch's default, byol/configs/byol.py, and BATCH_NORM_EPSILON of simclr/resnet.py


def normalised(images: Tensor, colours: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET) -> Tensor:
    mean, std = (torch.tensor(colour).reshape(3, 1, 1) for colour in colours)
    return (images - mean) / std


def resnet(state: State, images: Tensor, prefix: str = "") -> Seen:
    """torchvision's: the same padding on both sides, and the stride in the 3 × 3 convolution."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{prefix}{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{prefix}{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=EPSILON)

    x = F.relu(norm(conv(normalised(images), "conv1", 2), "bn1"))
    return _groups(F.max_pool2d(x, 3, stride=2, padding=1), conv, norm, lambda name: f"{prefix}{name}.conv1.weight" in state)


def padded_resnet(state: State, images: Tensor, prefix: str = "", colours: Any = IMAGENET) -> Seen:
    """SwAV's and VICReg's: images are padded by a pixel, and the first convolution pads by two (swav/src/resnet50.py, vicreg/resnet.py)."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{prefix}{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=2 if name == "conv1" else weight.shape[-1] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        scale = state[f"{prefix}{name}.weight"] / torch.sqrt(state[f"{prefix}{name}.running_var"] + EPSILON)
        return _moved(x, scale, state[f"{prefix}{name}.bias"] - state[f"{prefix}{name}.running_mean"] * scale)

    x = F.relu(norm(conv(F.pad(normalised(images, colours), (1, 1, 1, 1)), "conv1", 2), "bn1"))
    return _groups(F.max_pool2d(x, 3, stride=2, padding=1), conv, norm, lambda name: f"{prefix}{name}.conv1.weight" in state)


def _moved(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x * scale[:, None, None] + shift[:, None, None]


def _groups(x: Tensor, conv: Any, norm: Any, there: Any) -> Seen:
    """Four groups of bottlenecks, and the mean over the last one's map."""
    maps = []
    for group in range(1, 5):
        block = 0
        while there(f"layer{group}.{block}"):
            name, stride = f"layer{group}.{block}", 2 if block == 0 and group > 1 else 1
            y = F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"))
            y = F.relu(norm(conv(y, f"{name}.conv2", stride), f"{name}.bn2"))
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            shortcut = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1") if block == 0 else x
            x = F.relu(y + shortcut)
            block += 1
        maps.append(x)
    return x.mean((2, 3)), maps


# ---- TensorFlow's padding


def same(x: Tensor, size: int, stride: int, value: float = 0.0) -> Tensor:
    """Padded as SAME pads: as little as leaves ceil(n / stride) outputs, the odd pixel right and below."""
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def kernel(values: NDArray[Any]) -> Tensor:
    """(height, width, in, out) → (out, in, height, width)."""
    return torch.from_numpy(np.transpose(values, (3, 2, 0, 1)).copy())


def byol(held: Mapping[str, Any], images: Tensor) -> Seen:
    """google-deepmind/deepmind-research byol/utils/networks.py around dm-haiku's BlockV1: SAME everywhere, averages at evaluation."""
    params, states = held["online_params"], held["online_state"]

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = kernel(params[name]["w"])
        return F.conv2d(same(x, weight.shape[-1], stride), weight, stride=stride)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = (torch.from_numpy(states[f"{name}/~/{part}"]["average"]).flatten() for part in ("mean_ema", "var_ema"))
        scale, offset = (torch.from_numpy(params[name][part]).flatten() for part in ("scale", "offset"))
        inverse = scale * torch.rsqrt(var + EPSILON)
        return _moved(x - mean[:, None, None], inverse, offset)

    stem = next(name for name in params if "initial_conv" in name)
    net = stem.rpartition("/")[0]
    x = F.relu(norm(conv(normalised(images), stem, 2), f"{net}/initial_batchnorm"))
    x = F.max_pool2d(same(x, 3, 2, -torch.inf), 3, stride=2)
    maps = []
    for group in range(4):
        block = 0
        while (name := f"{net}/block_group_{group}/~/block_{block}/~") + "/conv_0" in params:
            stride = 2 if block == 0 and group > 0 else 1
            y = F.relu(norm(conv(x, f"{name}/conv_0"), f"{name}/batchnorm_0"))
            y = F.relu(norm(conv(y, f"{name}/conv_1", stride), f"{name}/batchnorm_1"))
            y = norm(conv(y, f"{name}/conv_2"), f"{name}/batchnorm_2")
            shortcut = norm(conv(x, f"{name}/shortcut_conv", stride), f"{name}/shortcut_batchnorm") if block == 0 else x
            x = F.relu(y + shortcut)
            block += 1
        maps.append(x)
    return x.mean((2, 3)), maps


def simclr(variables: Mapping[str, NDArray[Any]], images: Tensor, blocks: tuple[int, ...]) -> Seen:
    """google-research/simclr resnet.py: pixels as they are, fixed padding in convolutions, SAME in the max-pool."""
    made = {"conv2d": 0, "batch_normalization": 0}

    def numbered(kind: str) -> str:
        made[kind] += 1
        return f"base_model/{kind}" if made[kind] == 1 else f"base_model/{kind}_{made[kind] - 1}"

    def conv(x: Tensor, stride: int = 1) -> Tensor:
        weight = kernel(variables[f"{numbered('conv2d')}/kernel"])
        total = weight.shape[-1] - 1
        x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2)) if stride > 1 else same(x, total + 1, 1)
        return norm(F.conv2d(x, weight, stride=stride), numbered("batch_normalization"))

    def norm(x: Tensor, name: str) -> Tensor:
        gamma, beta, mean, var = (
            torch.from_numpy(variables[f"{name}/{part}"]) for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return _moved(x - mean[:, None, None], gamma / torch.sqrt(var + EPSILON), beta)

    x = F.relu(conv(images, 2))
    x = F.max_pool2d(same(x, 3, 2, -torch.inf), 3, stride=2)
    maps = []
    for group, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if block == 0 and group > 0 else 1
            shortcut = conv(x, stride) if block == 0 else x
            x = F.relu(conv(F.relu(conv(F.relu(conv(x)), stride))) + shortcut)
        maps.append(x)
    return x.mean((2, 3)), maps
