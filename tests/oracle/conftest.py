"""A small trained network, on which attacks are compared with other people's, at equal settings."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslrob.backbone import Backbone, Features
from sslrob.builtin.classification import LinearClassifier
from sslrob.data import Batch
from sslrob.evaluate import at_rest
from sslrob.objective import build
from sslrob.streams import Streams


class SmallNet(Backbone):
    width, channels, strides = 32, (32,), (4,)

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU()
        )

    def forward(self, images):
        maps = self.layers((images - self.mean) / 0.25)
        return Features(maps.mean((2, 3)), (maps,))


def blobs(n, generator, colours):
    """Ten classes of 16 × 16 noise, each with a faint pattern of its own."""
    labels = torch.randint(10, (n,), generator=generator)
    noise = torch.randn(n, 3, 16, 16, generator=generator)
    return (0.5 + 0.12 * colours[labels] + 0.1 * noise).clamp(0, 1), labels


@pytest.fixture(scope="session")
def trained():
    """A victim that is right about most images, and the first 256 that it has not seen."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = LinearClassifier(SmallNet(), 10)
    colours = F.interpolate(torch.randn(10, 3, 4, 4, generator=generator), size=16, mode="bilinear")
    optimizer = torch.optim.Adam(victim.parameters(), 3e-3)
    for _ in range(100):
        images, labels = blobs(64, generator, colours)
        optimizer.zero_grad()
        F.cross_entropy(victim(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    images, labels = blobs(256, generator, colours)
    with at_rest(victim):
        yield victim, Batch(tuple(map(str, range(256))), images, tuple(labels.tolist()))


@pytest.fixture(scope="session")
def ours(trained):
    """The images that an attack of ours makes of the first `n`."""
    victim, batch = trained

    def attacked(attack, threat_model, *, objective="task", n=256):
        part = batch[torch.arange(256) < n]
        goal = build(objective, victim, part, attack.access)
        found = attack.perturb(goal, part.images.clone(), threat_model, streams=Streams(0, part.ids))
        assert threat_model.allows(found, part.images).all()
        return found

    return attacked


@pytest.fixture(scope="session")
def no_larger(trained):
    """Asserts that the smallest moves of ours are no larger than theirs: 2 % in the median, one image in 256 at any radius."""
    victim, batch = trained

    def compare(mine, theirs, norm):
        images, targets = batch.images[: len(mine)], batch.targets[: len(mine)]
        moves = [
            norm(1.0).distance(found, images).masked_fill(~victim.fooled(victim(found), targets), torch.inf) for found in (mine, theirs)
        ]
        medians = [float(move.median()) for move in moves]
        assert medians[0] <= 1.02 * medians[1], f"median {medians[0]:.5f}, theirs {medians[1]:.5f}"
        for factor in (0.6, 0.8, 1.0, 1.2):
            robust, reference = (int((move > factor * medians[1]).sum()) for move in moves)
            assert robust <= reference + max(1, len(mine) // 256), f"{robust} robust, theirs {reference}, at {factor * medians[1]:.5f}"

    return compare
