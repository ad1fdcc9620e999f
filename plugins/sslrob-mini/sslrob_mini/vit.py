"""A small vision transformer, for the question of architecture: 0.5 M parameters, patches of 8 × 8 pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob.backbone import Backbone, Features
from sslrob_mini.resnet import MEAN, STD


class VisionTransformer(Backbone):
    """ViT (Dosovitskiy et al. 2021) without a class token: the embedding is the mean of the patch tokens.

    Its one map is of stride `patch`; images of other sizes get interpolated positions.

    Args:
        width: of a token.
        depth: transformer blocks.
        heads: of the attention.
        patch: side of a patch in pixels.
        grid: patches a side for which positions are learned.
    """

    def __init__(self, width: int = 96, depth: int = 4, heads: int = 3, patch: int = 8, grid: int = 8) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.channels = (width,)
        self.strides = (patch,)
        self.width = width
        self.register_buffer("mean", torch.full((3, 1, 1), MEAN), persistent=False)
        self.register_buffer("std", torch.full((3, 1, 1), STD), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, width, grid, grid))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Features:
        """Features of images (n, 3, h, w) RGB in [0, 1], padded with the mean colour to whole patches."""
        patch = self.strides[0]
        below, right = -images.shape[2] % patch, -images.shape[3] % patch
        x = self.patches(F.pad((images - self.mean) / self.std, (0, right, 0, below)))
        n, width, h, w = x.shape
        learned = self.positions
        positions = learned if (h, w) == learned.shape[2:] else F.interpolate(learned, (h, w), mode="bicubic", align_corners=False)
        tokens = (x + positions).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return Features(tokens.mean(1), (tokens.transpose(1, 2).reshape(n, width, h, w),))


class Block(nn.Module):
    """Self-attention, then an MLP, each normalised before and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        n, count, width = tokens.shape
        mixed = self.mix(self.before_attention(tokens)).view(n, count, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, count, width)
        tokens = tokens + self.out(attended)
        return tokens + self.mlp(tokens)
