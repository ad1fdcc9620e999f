"""SEA: budgets, what an image keeps, and which losses are searched."""

import pytest
import torch

from sslrob.builtin.apgd import APGD
from sslrob.builtin.sea import SEA
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import toys
from sslrob.threat_model import Linf

SMALL = Linf(0.02)


@pytest.fixture
def toy():
    return toys()["segmentation"]


def attacked(toy, attack, name="task", threat_model=SMALL):
    """Images, their quality, and the objective that counted the passes."""
    batch = toy.batch()
    objective = build(name, toy.victim, batch, "white-box")
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, toy.victim.quality(toy.victim(found), batch.targets), objective


def test_each_loss_costs_its_steps_one_pass_a_radius_and_one_more(toy):
    _, quality, objective = attacked(toy, SEA(steps=10))
    assert (quality > 0).all()  # nobody was done early
    assert set(objective.cost.forwards.tolist()) == {2 * (10 + 3 + 1)}
    assert set(objective.cost.backwards.tolist()) == {2 * 10}


def test_an_image_keeps_the_worst_of_its_losses(toy):
    """The first loss starts as an APGD of its own would: the others can only lower that."""
    _, alone, _ = attacked(toy, APGD(10, radii=(2.0, 1.5, 1.0)), "task:ce")
    _, quality, _ = attacked(toy, SEA(steps=10))
    assert (quality <= alone).all()
    assert (quality < alone).any()


def test_a_loss_that_is_asked_for_is_the_only_one(toy):
    expected, _, _ = attacked(toy, APGD(10, radii=(2.0, 1.5, 1.0)), "task:segpgd")
    asked = ((SEA(steps=10), "task:segpgd"), (SEA(steps=10, losses=("segpgd",)), "task"), (SEA(steps=10, losses=("ce",)), "task:segpgd"))
    for attack, name in asked:
        found, _, objective = attacked(toy, attack, name)
        assert torch.equal(found, expected)
        assert set(objective.cost.backwards.tolist()) == {10}


def test_an_image_that_is_fooled_is_done(toy):
    _, quality, objective = attacked(toy, SEA(steps=10), threat_model=Linf(0.9))
    assert not quality.any()
    assert min(objective.cost.backwards.tolist()) < 10  # and not once more for the second loss


def test_losses_that_the_victim_lacks_are_refused(toy):
    with pytest.raises(SslrobError, match="no loss of this victim is named 'mask-ce'") as caught:
        attacked(toy, SEA(steps=3, losses=("mask-ce",)))
    assert "--set losses=[]" in caught.value.note


def test_radii_end_at_the_true_one():
    with pytest.raises(ValueError, match="last is 1"):
        SEA(radii=(2.0, 1.5))
