"""Rounding to 8 bits never lets a move grow."""

import pytest
import torch

from sslrob.quantise import LEVELS, SLACK, to_8bit
from sslrob.threat_model import L1, L2, Linf


def levels(images):
    return torch.equal((images * 255).round() / 255, images)


def pair(generator, *, on_levels=True):
    origin = torch.rand(4, 3, 8, 8, generator=generator)
    return (origin * 255).round() / 255 if on_levels else origin


@pytest.mark.parametrize("model", [Linf(4 / 255), Linf(3.5 / 255), L2(0.5), L1(4.0)], ids=str)
def test_a_rounded_image_is_on_the_levels_and_no_farther(model):
    g = torch.Generator().manual_seed(0)
    origin = pair(g)
    images = model.project(origin + torch.randn(origin.shape, generator=g), origin)
    rounded = to_8bit(images, origin)
    assert levels(rounded)
    assert model.allows(rounded, origin).all()
    assert ((rounded - origin).abs() <= (images - origin).abs() + 1.01 * SLACK / LEVELS).all()
    assert ((images - rounded).abs() < 1 / 255 + 1e-6).all()
    assert not torch.equal(rounded, origin)


def test_a_whole_number_of_levels_is_kept():
    """4/255 in float32 is not quite four levels; it must not become three."""
    origin = torch.arange(256).float().view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    for level in range(-6, 7):
        moved = (origin + level / 255).clamp(0, 1)
        assert torch.equal((to_8bit(moved, origin) * 255).round(), (moved * 255).round())


def test_less_than_a_level_is_nothing():
    origin = pair(torch.Generator().manual_seed(0))
    for sign in (-1, 1):
        assert torch.equal(to_8bit((origin + sign * 0.99 / 255).clamp(0, 1), origin), origin)


def test_clean_images_between_the_levels_go_to_the_nearest():
    origin = pair(torch.Generator().manual_seed(0), on_levels=False)
    assert torch.equal(to_8bit(origin, origin), (origin * 255).round() / 255)


def test_it_is_idempotent_and_stays_in_range():
    g = torch.Generator().manual_seed(0)
    origin = pair(g)
    origin[:, :, 0], origin[:, :, 1] = 0.0, 1.0
    once = to_8bit((origin + 0.1 * torch.randn(origin.shape, generator=g)).clamp(0, 1), origin)
    assert torch.equal(to_8bit(once, origin), once)
    assert ((once >= 0) & (once <= 1)).all()
