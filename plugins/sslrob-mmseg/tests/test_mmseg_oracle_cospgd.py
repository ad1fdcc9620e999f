"""SegPGD and CosPGD against the package of CosPGD's authors: the gradients that an attack follows."""

import pytest
import torch
from sslrob_mmseg.dataset import IGNORED
from sslrob_mmseg.losses import pixels
from torch.nn import functional as F

cospgd = pytest.importorskip("cospgd")
STEPS = 10


@pytest.fixture
def case():
    """Logits, and labels of which some do not count; the package knows these by their cross-entropy of 0."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (3, 6, 7), generator=draw)
    labels[0, :2] = IGNORED
    return (2 * torch.randn(3, 5, 6, 7, generator=draw)).requires_grad_(), labels


def crossed(logits, labels):
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")


@pytest.mark.parametrize("step", range(STEPS))
def test_segpgd(case, step):
    logits, labels = case
    theirs = cospgd.functions.segpgd_scale(logits, labels, crossed(logits, labels), step, STEPS) * labels[0].numel()
    ours = pixels(logits, labels, "segpgd", step / STEPS).sum()
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


def test_cospgd(case):
    logits, labels = case
    theirs = cospgd.functions.cospgd_scale(logits, labels, crossed(logits, labels), num_classes=5).sum()
    ours = pixels(logits, labels, "cospgd", 0.5).sum()
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))
