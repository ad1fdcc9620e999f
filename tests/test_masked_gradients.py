"""Victims whose gradients hide what an adversary can do: PGD calls them robust, AutoAttack breaks them, and a flag names them.

Under each mask lies a linear classifier, whose robust radii are known: every image here can be fooled at the epsilon of the test.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslrob.backbone import Backbone, Features
from sslrob.builtin.autoattack import AutoAttack
from sslrob.builtin.classification import Classification, LinearClassifier
from sslrob.builtin.gradient import PGD
from sslrob.builtin.square import Square
from sslrob.data import Batch
from sslrob.evaluate import Question, evaluate
from sslrob.threat_model import Linf
from sslrob.trust import Watch, of_rows

SIZE, CLASSES, IMAGES = 8, 4, 12


class Flat(Backbone):
    """The image less grey, as it is."""

    width, channels, strides = 3 * SIZE * SIZE, (3,), (1,)

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))

    def forward(self, images):
        maps = images - self.mean
        return Features(maps.flatten(1), (maps,))


class Saturated(Flat):
    """Logits so far apart that the cross-entropy and its gradient are exactly zero."""

    def forward(self, images):
        features = super().forward(images)
        return features._replace(pooled=1e4 * features.pooled)


class Quantised(Flat):
    """Thirty-three levels of brightness: the gradient is zero everywhere."""

    def forward(self, images):
        return super().forward((32 * images).round() / 32)


class Randomised(Flat):
    """A fine ripple of random phase: it hardly moves the logits, and its slope drowns theirs."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images):
        phase = 2 * torch.pi * torch.rand(images.shape, generator=self.generator)
        return super().forward(images + 0.0002 * (1e5 * images + phase).sin())


def victim_and_batch(backbone):
    """A victim, and images that it is right about; those under the mask that are farthest from a border."""
    generator = torch.Generator().manual_seed(1)
    victim = LinearClassifier(backbone, CLASSES).eval()
    weight = torch.randn(CLASSES, backbone.width, generator=generator)
    victim.head.weight, victim.head.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(CLASSES))
    images = 0.5 + 0.1 * torch.randn(8 * IMAGES, 3, SIZE, SIZE, generator=generator).clamp(-2, 2)
    far, labels = radii(weight, images)
    keep = far.argsort(descending=True)[:IMAGES]
    return victim, Batch(tuple(map(str, range(IMAGES))), images[keep], tuple(labels[keep].tolist())), float(far.max())


def radii(weight, images):
    """How far, in Linf, the linear classifier's nearest border is from each image, where no value leaves [0, 1]; and its classes."""
    flat = images.flatten(1) - 0.5
    labels = F.linear(flat, weight).argmax(1)
    apart = weight[labels][:, None] - weight
    gaps = (apart * flat[:, None]).sum(2) / apart.abs().sum(2).clamp_min(1e-9)
    return gaps.scatter(1, labels[:, None], torch.inf).amin(1), labels


def robust(attack, backbone, epsilons=2.5):
    """The share of images that an attack leaves, and the names of the flags; at 2.5 times the largest robust radius."""
    victim, batch, farthest = victim_and_batch(backbone)
    watch = Watch()
    question = Question(Classification(), victim, attack, Linf(epsilons * farthest))
    (judged,) = evaluate(question, [batch], watch=watch)
    assert not judged.clean.fooled.any()
    return float((~judged.robust.fooled).float().mean()), {flag.name for flag in [*watch.flags(), *of_rows(judged.rows)]}, judged.rows


QUICK = AutoAttack(steps=10, queries=1500)


def test_an_honest_victim_is_broken_by_both_and_has_no_flag():
    for attack in (PGD(), QUICK):
        left, flags, _ = robust(attack, Flat())
        assert left == 0
        assert flags == set()


@pytest.mark.parametrize(
    ("backbone", "pgd_says", "autoattack_says"),
    [
        (Saturated, {"dead-gradients"}, {"dead-gradients"}),
        (Quantised, {"dead-gradients"}, {"dead-gradients", "masked-gradients"}),
        (Randomised, {"random-victim"}, {"random-victim", "masked-gradients"}),
    ],
)
def test_masks(backbone, pgd_says, autoattack_says):
    left, flags, _ = robust(PGD(), backbone())
    assert left > 0.5
    assert flags == pgd_says
    left, flags, rows = robust(QUICK, backbone())
    assert left == 0
    assert flags == autoattack_says
    assert {row["fooled_by"]["attack"] for row in rows} <= {"apgd-ce", "apgd-t", "fab-t", "square"}


@pytest.mark.parametrize("backbone", [Saturated, Quantised, Randomised])
def test_the_black_box_part_breaks_them_alone(backbone):
    left, _, _ = robust(Square(queries=1500), backbone())
    assert left == 0


def test_gradients_averaged_over_draws_see_through_random_ones():
    """What `version=rand` is for: one draw's gradient is noise, that of many points the way."""
    one, _, _ = robust(AutoAttack("rand", steps=10, looks=1), Randomised())
    many, flags, _ = robust(AutoAttack("rand", steps=10), Randomised())
    assert many < 0.5 < one
    assert "random-victim" in flags
