"""Which network a state dict belongs to, told by its names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sslrob.errors import SslrobError

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
QUIRKS: dict[str, tuple[dict[str, Any], str]] = {  # what no shape tells, by layout
    "swav": ({"std": [0.228, 0.224, 0.225]}, "normalised with SwAV's own std of red, 0.228"),
    "haiku": ({"padding": "same"}, "padded as BYOL's TensorFlow-like SAME"),
    "simclr-tf": ({"padding": "same-pool", "mean": 0, "std": 1}, "with SAME padding of the max-pool, and pixels as they are"),
}
BASIC = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
BOTTLENECK = {(1, 1, 1, 1): 14, (2, 2, 2, 2): 26, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 24, 36, 3): 200}
SIZES = {  # of a ViT, by width: timm's word, blocks, heads of attention
    192: ("tiny", 12, 3),
    384: ("small", 12, 6),
    768: ("base", 12, 12),
    1024: ("large", 24, 16),
    1280: ("huge", 32, 16),
    1536: ("giant", 40, 24),
}
DINOV2 = (384, 768, 1024, 1536)  # its widths; no other plain ViT is as wide as the last
OWN_PATCH = {("small", 8), ("small", 32), ("base", 8), ("base", 32), ("large", 14), ("large", 32)}  # timm has names for these
STEM = HEAD = 64  # channels of the stem at width 1; numbers of a head of attention where no size is known
VIT_PARTS = r"(cls_token|pos_embed|reg_token)$|patch_embed\.proj\.|norm\.|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]|ls[12])\."
TELL = "say which model of timm it is: backbone timm with model, layout timm"


class Architecture(NamedTuple):
    """A backbone's name and settings, and one sentence of what told them."""

    backbone: str
    settings: dict[str, Any]
    reason: str


def architecture(state: Mapping[str, Tensor], layout: str = "") -> Architecture:
    """The backbone whose tensors these are, as a layout named them.

    Args:
        state: what the layout's `backbone` returned.
        layout: its name, for what shapes cannot tell: heads of attention, padding, colours.

    Raises:
        SslrobError: it is none that can be told; says what was seen.
    """
    own = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    wrapped = any(name.startswith("net.") for name in state)
    if "patch_embed.proj.weight" in own and "blocks.0.attn.qkv.weight" in own:
        return _vit(own, layout)
    if "conv1.weight" in own and "layer1.0.conv1.weight" in own:
        return _resnet(own, layout, wrapped)
    raise SslrobError(f"these names are neither of a ResNet nor of a ViT: {', '.join(list(own)[:3]) or 'none'}", hint=TELL)


def _resnet(state: Mapping[str, Tensor], layout: str, wrapped: bool) -> Architecture:
    stages = [len(_numbers(rf"layer{stage}\.(\d+)\.", state)) for stage in (1, 2, 3, 4)]
    bottleneck = "layer1.0.conv3.weight" in state
    depth = (BOTTLENECK if bottleneck else BASIC).get(tuple(stages))
    stem, _, size, _ = _shape(state, "conv1.weight", 4)
    planes, _, _, _ = _shape(state, "layer1.0.conv1.weight", 4)
    _, inputs, _, _ = _shape(state, "layer1.0.conv2.weight", 4)
    blocks = "bottlenecks" if bottleneck else "basic blocks"
    seen = f"stages of {', '.join(map(str, stages))} {blocks} and a stem of {stem} channels"
    if depth is None or size != 7 or planes != stem or inputs != planes or (wrapped and (stem != STEM or depth == 14)):
        inner = f"a first convolution of {size} × {size}, and {inputs} of {planes} channels for each in the first block"
        raise SslrobError(f"a ResNet with {seen}; {inner}: none that is built here", hint=f"{TELL}, such as wide_resnet50_2")
    if wrapped:
        return Architecture("timm", {"model": f"resnet{depth}"}, f"{seen}: timm's resnet{depth}")
    settings, why = QUIRKS.get(layout, ({}, ""))
    width = stem // STEM if stem % STEM == 0 else stem / STEM
    told = f"ResNet-{depth}" + (f" with {width:g} times the channels" if width != 1 else "")
    return Architecture("resnet", {"depth": depth, "width": width, **settings}, f"{seen}: {told}" + (f", {why}" if why else ""))


def _vit(state: Mapping[str, Tensor], layout: str) -> Architecture:
    width, _, patch, _ = _shape(state, "patch_embed.proj.weight", 4)
    hidden, _ = _shape(state, "blocks.0.mlp.fc1.weight", 2)
    _, gated = _shape(state, "blocks.0.mlp.fc2.weight", 2)
    _, positions, _ = _shape(state, "pos_embed", 3)
    registers = _shape(state, "reg_token", 3)[1] if "reg_token" in state else 0
    dinov2 = "blocks.0.ls1.gamma" in state
    side = math.isqrt(positions - (not registers))
    strange = next((name for name in state if not re.match(VIT_PARTS, name)), "")
    if strange or "cls_token" not in state or side**2 != positions - (not registers) or (gated != hidden and not dinov2):
        said = f"it has {strange!r}" if strange else "its tokens, positions or gates are others"
        raise SslrobError(f"this is not a plain ViT: {said}", hint=TELL)

    usual = DINOV2 if dinov2 else tuple(w for w in SIZES if w < DINOV2[-1])
    known = width in usual
    size, blocks, heads = SIZES[width if known else max(usual) if gated != hidden else usual[0]]
    why, arguments = "as is usual for it", dict[str, Any]()
    if not known:
        heads = width // HEAD if width % HEAD == 0 else 1
        arguments |= {"embed_dim": width, "num_heads": heads}
    elif width == 384 and layout in ("moco-v3", "openmmlab"):
        heads, why = 12, "as MoCo v3 trains it"
        arguments |= {"num_heads": heads}
    depth = len(_numbers(r"blocks\.(\d+)\.", state))
    native, pixels = (14, 518) if dinov2 else (patch if (size, patch) in OWN_PATCH else 14 if size in ("huge", "giant") else 16, 224)
    model = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2" if dinov2 else f"vit_{size}_patch{native}_224"
    arguments |= {
        name: value
        for name, value, default in (
            ("depth", depth, blocks),
            ("mlp_ratio", hidden / width, 4 if gated == hidden else hidden / width),
            ("patch_size", patch, native),
            ("img_size", side * patch, pixels),
            ("reg_tokens", registers, 4 if dinov2 and registers else 0),
        )
        if value != default
    }
    stretched = {"positions": "dino"} if layout in ("dino", "dinov2", "ibot") and not registers else {}
    settings = {"model": model, **({} if layout == "timm" else IMAGENET), **({"arguments": arguments} if arguments else {}), **stretched}
    seen = f"a ViT of width {width}, {depth} blocks and {side} × {side} patches of {patch} pixels"
    told = f"{seen}{f', {registers} registers' if registers else ''}: timm's {model}"
    colours = "; normalised as timm does for it" if layout == "timm" else ""
    return Architecture("timm", settings, f"{told}, with {heads} heads, {why} (no shape tells){colours}")


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there."""
    if name not in state or state[name].ndim != dimensions:
        raise SslrobError(f"{name!r} is missing, or has not {dimensions} dimensions", hint="get the file again; " + TELL)
    return tuple(state[name].shape)


def _numbers(pattern: str, state: Mapping[str, Tensor]) -> set[str]:
    return {match[1] for name in state if (match := re.match(pattern, name))}
