"""The original vision transformers' forwards, written out on dictionaries of tensors under the original names.

`blocks` returns the tokens after each block, (n, 1 + patches, width) each, of images (n, 3, h, w) in [0, 1]; the rest reads them as the
original evaluations do.
"""

from __future__ import annotations

import math

import torch
from plain import Seen, State, normalised
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6  # of layer norms, in every one of these repositories
TIMM = {
    "patch": "patch_embed.proj",
    "block": "blocks",
    "first": "norm1",
    "second": "norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "last": "norm",
}
MM = {
    "patch": "patch_embed.projection",
    "block": "layers",
    "first": "ln1",
    "second": "ln2",
    "up": "ffn.layers.0.0",
    "down": "ffn.layers.1",
    "last": "ln1",
}


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + EPSILON) * state[f"{name}.weight"] + state[f"{name}.bias"]


def blocks(state: State, images: Tensor, heads: int, prefix: str = "", names: dict[str, str] = TIMM) -> list[Tensor]:
    """Tokens after each block.  Registers stand between the class token and the patches, and have no positions (dinov2)."""
    patch = state[f"{prefix}{names['patch']}.weight"]
    x = F.conv2d(normalised(images), patch, state[f"{prefix}{names['patch']}.bias"], stride=patch.shape[-1])
    where = positions(state[f"{prefix}pos_embed"], x.shape[2], x.shape[3], registers=f"{prefix}register_tokens" in state)
    x = torch.cat([state[f"{prefix}cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + where
    if f"{prefix}register_tokens" in state:
        x = torch.cat([x[:, :1], state[f"{prefix}register_tokens"].expand(len(x), -1, -1), x[:, 1:]], 1)
    after = []
    while f"{prefix}{names['block']}.{len(after)}.attn.qkv.weight" in state:
        block = f"{prefix}{names['block']}.{len(after)}"
        y = attention(state, f"{block}.attn", layer_norm(state, f"{block}.{names['first']}", x), heads)
        x = x + y * state.get(f"{block}.ls1.gamma", torch.tensor(1.0))
        y = layer_norm(state, f"{block}.{names['second']}", x)
        if f"{block}.mlp.w12.weight" in state:  # SwiGLU
            gate, value = linear(state, f"{block}.mlp.w12", y).chunk(2, -1)
            y = linear(state, f"{block}.mlp.w3", gate * torch.sigmoid(gate) * value)
        else:
            up = linear(state, f"{block}.{names['up']}", y)
            y = linear(state, f"{block}.{names['down']}", up * (1 + torch.erf(up / 2**0.5)) / 2)
        x = x + y * state.get(f"{block}.ls2.gamma", torch.tensor(1.0))
        after.append(x)
    return after


def positions(trained: Tensor, rows: int, columns: int, *, registers: bool) -> Tensor:
    """Stretched to images of another size, as dino vision_transformer.py and dinov2 models/vision_transformer.py do.

    Networks with registers came later, and stretch to a size, with antialiasing; the others by a factor that is a little too large.
    """
    side = math.isqrt(trained.shape[1] - 1)
    if rows == columns == side:
        return trained
    grid = trained[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if registers:
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
    else:
        grid = F.interpolate(grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
    return torch.cat([trained[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def attention(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    n, tokens, width = x.shape
    q, k, v = linear(state, f"{name}.qkv", x).reshape(n, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.transpose(2, 3) * (width // heads) ** -0.5, -1)
    return linear(state, f"{name}.proj", (weights @ v).transpose(1, 2).reshape(n, tokens, width))


def read(state: State, images: Tensor, heads: int, prefix: str = "", names: dict[str, str] = TIMM, *, how: str) -> Seen:
    """The embedding, and the map of the last block's patches behind the final norm.

    Args:
        how: cls; mean, of the patches (iBOT's avgpool_patchtokens 1); cls4: of the last four blocks, the earliest first, each behind the
            final norm (dino get_intermediate_layers); cls+mean and cls4+mean (dinov2 hub/classifiers.py); interleaved: class token and
            mean in turn, number by number (dino eval_linear.py stacks them in the last dimension, and flattens).
    """
    after = [layer_norm(state, f"{prefix}{names['last']}", tokens) for tokens in blocks(state, images, heads, prefix, names)]
    extra = state[f"{prefix}register_tokens"].shape[1] if f"{prefix}register_tokens" in state else 0
    patches = after[-1][:, 1 + extra :]
    cls, mean = after[-1][:, 0], patches.mean(1)
    cls4 = torch.cat([tokens[:, 0] for tokens in after[-4:]], -1)
    read = {
        "cls": cls,
        "mean": mean,
        "cls4": cls4,
        "cls+mean": torch.cat([cls, mean], -1),
        "cls4+mean": torch.cat([cls4, mean], -1),
        "interleaved": torch.cat((cls.unsqueeze(-1), mean.unsqueeze(-1)), -1).reshape(len(cls), -1),
    }
    rows = images.shape[2] // state[f"{prefix}{names['patch']}.weight"].shape[2]
    return read[how], [patches.transpose(1, 2).reshape(len(cls), -1, rows, patches.shape[1] // rows)]
