"""A toy backbone, scenes of coloured rectangles, and victims on them."""

import pytest
import torch
from sslrob_mmseg.task import Segmentation
from torch import nn

from sslrob.backbone import Backbone, Features

torch.set_num_threads(1)
CLASSES = ("ground", "red", "green", "blue")


class Toy(Backbone):
    """Four maps of strides 4 to 32."""

    width, channels, strides = 16, (8, 8, 16, 16), (4, 8, 16, 32)

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.45, 0.4]).view(3, 1, 1))
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip((8, 8, 16), (8, 16, 16), strict=True))

    def forward(self, images):
        maps = [self.stem((images - self.mean) / 0.25).relu()]
        for stage in self.stages:
            maps.append(stage(maps[-1]).relu())
        return Features(maps[-1].mean((2, 3)), tuple(maps))


def _scenes(n, seed=0, size=(45, 61)):
    """Grey noise with one rectangle of the colour that is its class; the top rows are unlabelled."""
    draw = torch.Generator().manual_seed(seed)
    images, masks = 0.45 + 0.05 * torch.randn(n, 3, *size, generator=draw), torch.zeros(n, *size, dtype=torch.uint8)
    for i in range(n):
        label = int(torch.randint(3, (), generator=draw))
        y, x = (int(torch.randint(side - 20, (), generator=draw)) for side in size)
        images[i, label, y : y + 20, x : x + 20] += 0.4
        masks[i, y : y + 20, x : x + 20] = label + 1
        masks[i, :3] = 255
    return images.clamp(0, 1), tuple(masks)


def _compose(kind, **settings):
    torch.manual_seed(0)
    return Segmentation().victim(Toy(), kind=kind, classes=CLASSES, settings={"width": 16, **settings})


def _train(victim, steps):
    """The losses of a short training of everything, as the trainer of heads does it."""
    victim.train()
    optimizer, losses = torch.optim.Adam(victim.parameters(), lr=0.03), []
    for step in range(steps):
        images, masks = _scenes(4, seed=100 + step)
        loss = victim.loss(victim(images), masks, victim.losses[0], 1.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    victim.eval()
    return losses


@pytest.fixture(scope="session")
def scenes():
    return _scenes


@pytest.fixture(scope="session")
def compose():
    return _compose


@pytest.fixture(scope="session")
def train():
    return _train


@pytest.fixture(scope="session")
def trained():
    """An FCN that sees the rectangles."""
    victim = _compose("fcn", maps=[0, 1])
    _train(victim, 100)
    images, masks = _scenes(8)
    assert victim.quality(victim(images), masks).min() > 0.9
    return victim.requires_grad_(False)
