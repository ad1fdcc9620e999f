"""SimCLR as Google published it: a checkpoint of TensorFlow, in a zip archive or as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslrob.errors import SslrobError
from sslrob.layout import Layout
from sslrob_backbones.layouts.moves import counted
from sslrob_backbones.tensorflow import read

if TYPE_CHECKING:
    from torch import Tensor

CONV = re.compile(r"base_model/conv2d(?:_(\d+))?/kernel")
NORM = re.compile(r"base_model/batch_normalization(?:_(\d+))?/(gamma|beta|moving_mean|moving_variance)")
HEAD = {"weight": "head_supervised/linear_layer/dense/kernel", "bias": "head_supervised/linear_layer/dense/bias"}
LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
BLOCK = re.compile(r"1?131")  # the sizes of a bottleneck's kernels, and of its projection before them
PROJECTED = "1131"
GROUPS = 4


class SimclrTf(Layout):
    """ResNets of SimCLR v1, and of v2 without selective kernels: convolutions and norms are numbered as the graph was built.

    That is the stem, then the blocks; of each block the projection of its shortcut first, if it has one.  Convolutions pad as torch's,
    the max-pool as TensorFlow's SAME; images are not normalised.  Source: google-research/simclr, resnet.py.
    """

    name: ClassVar[str] = "simclr-tf"

    def read(self, path: Path) -> Mapping[str, Any]:
        """The arrays of the network and of its linear head, by the names of their variables.

        Raises:
            SslrobError: it is damaged, or no checkpoint of TensorFlow.
            RunFailed: there is too little memory for it.
        """
        return read(path, keep=lambda name: bool(CONV.fullmatch(name) or NORM.fullmatch(name)) or name in HEAD.values())

    def backbone(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors of the ResNet, named as torchvision's.

        Raises:
            SslrobError: there is no ResNet of bottlenecks, or it has selective kernels.
        """
        import torch

        kernels = {int(m[1] or 0): array for name, array in found.items() if (m := CONV.fullmatch(name))}
        norms: dict[int, dict[str, Any]] = {}
        for name, array in found.items():
            if m := NORM.fullmatch(name):
                norms.setdefault(int(m[1] or 0), {})[LEAVES[m[2]]] = array
        places = _places([len(kernel) for kernel in _in_order(kernels)])
        whole = [norm for norm in norms.values() if norm.keys() == set(LEAVES.values())]
        if not len(whole) == len(norms) == len(places):
            raise SslrobError(
                f"layout 'simclr-tf' expected {len(places)} batch norms, one for each convolution, found {len(whole)} whole ones",
                hint="take a checkpoint of SimCLR's pretraining",
            )
        state: dict[str, Tensor] = {}
        for (conv, norm), kernel, parts in zip(places, _in_order(kernels), _in_order(norms), strict=True):
            state[f"{conv}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
            state.update({f"{norm}.{leaf}": torch.from_numpy(array) for leaf, array in parts.items()})
        return counted(state)

    def head(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """`head.weight` (classes, width) and `head.bias` (classes,).

        Raises:
            SslrobError: there is none.
        """
        import torch

        if not set(HEAD.values()) <= found.keys():
            raise SslrobError(f"layout 'simclr-tf' finds no linear head: expected {HEAD['weight']!r}", hint="train one: sslrob train")
        kernel, bias = (torch.from_numpy(found[name]) for name in HEAD.values())
        return {"head.weight": kernel.reshape(kernel.shape[-2:]).t().contiguous(), "head.bias": bias}


def _in_order(numbered: Mapping[int, Any]) -> list[Any]:
    return [numbered[number] for number in sorted(numbered)]


def _places(sizes: Sequence[int]) -> list[tuple[str, str]]:
    """What torchvision calls each convolution and the norm after it, told by the sizes of their kernels."""
    stem, body = sizes[:1], "".join(map(str, sizes[1:]))
    blocks = BLOCK.findall(body)
    groups = sum(block == PROJECTED for block in blocks)
    if list(stem) != [7] or "".join(blocks) != body or not body.startswith(PROJECTED) or groups != GROUPS:
        told = "no convolution" if not sizes else f"{len(sizes)} convolutions, of sizes {', '.join(map(str, sizes[:8]))} …"
        raise SslrobError(
            f"layout 'simclr-tf' expected one convolution of size 7, then {GROUPS} groups of bottlenecks of sizes 1, 3 and 1, found {told}",
            hint="take a ResNet of 50 layers or more, without selective kernels (sk0), whose stem is another",
        )
    places, group, index = [("conv1", "bn1")], 0, 0
    for block in blocks:
        group, index = (group + 1, 0) if block == PROJECTED else (group, index + 1)
        place = f"layer{group}.{index}"
        if block == PROJECTED:
            places.append((f"{place}.downsample.0", f"{place}.downsample.1"))
        places += [(f"{place}.conv{number}", f"{place}.bn{number}") for number in (1, 2, 3)]
    return places
