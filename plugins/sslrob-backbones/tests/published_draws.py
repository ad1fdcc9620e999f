"""Random tensors of small networks, under the names and in the shapes that the original code gives them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
WIDTH = 0.125  # of a ResNet: its stem has 8 channels, its embedding 256 numbers
STEM = int(64 * WIDTH)
CLASSES = 7
BLOCKS = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 200: (3, 24, 36, 3)}


class Draws:
    """Numbers of one seed; every call draws others, so no two networks are equal."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * std + mean

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def conv(self, out: int, into: int, size: int) -> Tensor:
        return self.normal(out, into, size, size, std=math.sqrt(2 / (into * size * size)))

    def linear(self, name: str, out: int, into: int, *, bias: bool = True) -> State:
        state = {f"{name}.weight": self.normal(out, into, std=1 / math.sqrt(into))}
        return state | {f"{name}.bias": self.normal(out, std=0.3)} if bias else state

    def norm(self, name: str, channels: int, *, affine: bool = True) -> State:
        """Of a batch normalisation."""
        learned = {f"{name}.weight": self.between(0.5, 1.5, channels), f"{name}.bias": self.normal(channels, std=0.2)}
        seen = {f"{name}.running_mean": self.normal(channels, std=0.3), f"{name}.running_var": self.between(0.5, 1.5, channels)}
        return (learned if affine else {}) | seen | {f"{name}.num_batches_tracked": torch.tensor(1000)}

    def layer_norm(self, name: str, width: int) -> State:
        return {f"{name}.weight": self.between(0.5, 1.5, width), f"{name}.bias": self.normal(width, std=0.2)}

    def resnet(self, prefix: str = "", *, depth: int = 14, stem: int = STEM, inner: int | None = None) -> State:
        """Bottlenecks, named as torchvision does, and as all that took its code; the first group is `inner` wide, or as wide as the stem."""
        first = inner or stem
        state = {"conv1.weight": self.conv(stem, 3, 7)} | self.norm("bn1", stem)
        into = stem
        for group, blocks in enumerate(BLOCKS[depth]):
            inner = first * 2**group
            for block in range(blocks):
                name = f"layer{group + 1}.{block}"
                for i, (out, source, size) in enumerate([(inner, into, 1), (inner, inner, 3), (4 * inner, inner, 1)], 1):
                    state |= {f"{name}.conv{i}.weight": self.conv(out, source, size)} | self.norm(f"{name}.bn{i}", out)
                if block == 0:
                    state[f"{name}.downsample.0.weight"] = self.conv(4 * inner, into, 1)
                    state |= self.norm(f"{name}.downsample.1", 4 * inner)
                into = 4 * inner
        return {prefix + name: tensor for name, tensor in state.items()}

    def vit(self, prefix: str = "", *, width: int, depth: int, patch: int, grid: int, scaled: bool = False, gated: bool = False) -> State:
        """A vision transformer, named as timm does, and as DINO, iBOT, MSN and MAE, which took its code.

        Args:
            grid: patches on a side.
            scaled: with DINOv2's layer scales.
            gated: with DINOv2's SwiGLU in place of the MLP.
        """
        state = {
            "cls_token": self.normal(1, 1, width, std=0.5),
            "pos_embed": self.normal(1, 1 + grid * grid, width, std=0.5),
            "patch_embed.proj.weight": self.normal(width, 3, patch, patch, std=1 / math.sqrt(3 * patch * patch)),
            "patch_embed.proj.bias": self.normal(width, std=0.2),
        }
        for i in range(depth):
            state |= self.transformer_block(f"blocks.{i}", width, scaled=scaled, gated=gated)
        state |= self.layer_norm("norm", width)
        return {prefix + name: tensor for name, tensor in state.items()}

    def transformer_block(self, name: str, width: int, *, scaled: bool = False, gated: bool = False) -> State:
        state = self.layer_norm(f"{name}.norm1", width)
        state |= self.linear(f"{name}.attn.qkv", 3 * width, width) | self.linear(f"{name}.attn.proj", width, width)
        if scaled:
            state[f"{name}.ls1.gamma"] = self.between(0.2, 1.5, width)
        state |= self.layer_norm(f"{name}.norm2", width)
        if gated:
            hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
            state |= self.linear(f"{name}.mlp.w12", 2 * hidden, width) | self.linear(f"{name}.mlp.w3", width, hidden)
        else:
            state |= self.linear(f"{name}.mlp.fc1", 4 * width, width) | self.linear(f"{name}.mlp.fc2", width, 4 * width)
        if scaled:
            state[f"{name}.ls2.gamma"] = self.between(0.2, 1.5, width)
        return state

    def mlp(self, name: str, sizes: Sequence[int], *, norms: bool = True, bias: bool = False, last: str = "affine") -> State:
        """A projector in an nn.Sequential: Linear, BatchNorm, ReLU, …, Linear, and a last norm that is affine, plain, or missing."""
        state: State = {}
        at = 0
        for i, (into, out) in enumerate(pairwise(sizes)):
            final = i == len(sizes) - 2
            state |= self.linear(f"{name}.{at}", out, into, bias=bias)
            if norms and (not final or last != "missing"):
                state |= self.norm(f"{name}.{at + 1}", out, affine=not final or last == "affine")
            at += 3 if norms else 2
        return state

    def sgd(self, state: Mapping[str, Tensor], rate: Any = 0.1, **more: Any) -> dict[str, Any]:
        """The state dict of an SGD with momentum over a network's parameters."""
        learned = [tensor for name, tensor in state.items() if tensor.is_floating_point() and "running_" not in name]
        group = {"lr": rate, "momentum": 0.9, "dampening": 0, "weight_decay": 1e-6, "nesterov": False, **more}
        return {
            "state": {i: {"momentum_buffer": self.normal(*tensor.shape)} for i, tensor in enumerate(learned)},
            "param_groups": [{**group, "params": list(range(len(learned)))}],
        }

    def adam(self, state: Mapping[str, Tensor], rate: Any = 1e-4) -> dict[str, Any]:
        """The state dict of an AdamW over a network's parameters, the biases and norms in a group of their own."""
        moments = {
            i: {"step": 1000, "exp_avg": self.normal(*t.shape), "exp_avg_sq": self.between(0, 1, *t.shape)}
            for i, t in enumerate(state.values())
        }
        group = {"lr": rate, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.04, "amsgrad": False}
        half = len(moments) // 2
        groups = [{**group, "params": list(range(half))}, {**group, "weight_decay": 0.0, "params": list(range(half, len(moments)))}]
        return {"state": moments, "param_groups": groups}


def module(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """What `nn.Module.state_dict()` returns: an ordered dict that remembers the versions of its modules."""
    content = OrderedDict(state)
    owners = sorted({"", *(name.rpartition(".")[0] for name in state)})
    content._metadata = OrderedDict((owner, {"version": 2 if "bn" in owner else 1}) for owner in owners)  # type: ignore[attr-defined]
    return content
