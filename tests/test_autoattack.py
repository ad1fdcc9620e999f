"""AutoAttack: which attacks, with which settings, on which images."""

import pytest
import torch

from sslrob.builtin.apgd import APGD, TargetedAPGD
from sslrob.builtin.autoattack import AutoAttack
from sslrob.builtin.classification import LinearClassifier
from sslrob.builtin.fab import FAB, TargetedFAB
from sslrob.builtin.restarts import Restarts
from sslrob.builtin.square import Square
from sslrob.data import Batch
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import ToyBackbone, toys
from sslrob.threat_model import L1, L2, Linf


@pytest.fixture(scope="module")
def victim():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LinearClassifier(ToyBackbone(), 12).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch(victim):
    images = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return Batch(tuple("abcdefgh"), images, tuple(victim(images).argmax(1).tolist()))


def stages(victim, batch, threat_model, name="task", **settings):
    objective = build(name, victim, batch, "white-box")
    return [(title, attack, getattr(goal, "loss", "")) for title, attack, goal in AutoAttack(**settings).stages(objective, threat_model)]


def test_the_published_defaults(victim, batch):
    """fra31/auto-attack at 100 steps and 5000 queries, as its authors set its three versions."""
    assert AutoAttack() == AutoAttack("standard", steps=100, queries=5000, targets=None, restarts=None, looks=None)
    square = ("square", Square(queries=5000, area=0.8), "ce")
    targeted = [
        ("apgd-t", TargetedAPGD(steps=100, targets=9), "ce"),
        ("fab-t", TargetedFAB(steps=100, targets=9, smallest=False), "ce"),
    ]
    for norm in (Linf, L2):
        assert stages(victim, batch, norm(0.1)) == [("apgd-ce", APGD(steps=100), "ce"), *targeted, square]
    for norm in (Linf, L2, L1):
        assert stages(victim, batch, norm(0.1), version="plus") == [
            ("apgd-ce", Restarts(APGD(steps=100), 5), "ce"),
            ("apgd-dlr", Restarts(APGD(steps=100), 5), "dlr"),
            ("fab", FAB(steps=100, smallest=False), "ce"),
            ("fab", Restarts(FAB(steps=100, random_start=True, smallest=False), 4), "ce"),
            square,
            *targeted,
        ]
        averaged = APGD(steps=100, looks=20)
        assert stages(victim, batch, norm(0.1), version="rand") == [
            ("apgd-ce", averaged, "ce"),
            ("apgd-dlr", averaged, "dlr"),
        ]


def test_l1_searches_larger_balls_first(victim, batch):
    assert stages(victim, batch, L1(1.0)) == [
        ("apgd-ce", Restarts(APGD(steps=100, radii=(3, 2, 1)), 5), "ce"),
        ("apgd-t", TargetedAPGD(steps=100, targets=5, radii=(3, 2, 1)), "ce"),
        ("fab-t", TargetedFAB(steps=100, targets=9, smallest=False), "ce"),
        ("square", Square(queries=5000), "ce"),
    ]


def test_settings_scale_it_down(victim, batch):
    assert stages(victim, batch, Linf(0.1), version="plus", steps=7, queries=20, targets=3, restarts=2) == [
        ("apgd-ce", Restarts(APGD(steps=7), 2), "ce"),
        ("apgd-dlr", Restarts(APGD(steps=7), 2), "dlr"),
        ("fab", FAB(steps=7, smallest=False), "ce"),
        ("fab", Restarts(FAB(steps=7, random_start=True, smallest=False), 1), "ce"),
        ("square", Square(queries=20), "ce"),
        ("apgd-t", TargetedAPGD(steps=7, targets=3), "ce"),
        ("fab-t", TargetedFAB(steps=7, targets=3, smallest=False), "ce"),
    ]
    assert "fab" in [name for name, _, _ in stages(victim, batch, Linf(0.1), version="plus", restarts=1)]


def test_a_loss_that_is_asked_for_is_the_one(victim, batch):
    for version in ("standard", "plus", "rand"):
        raised = [loss for name, _, loss in stages(victim, batch, Linf(0.1), "task:margin", version=version) if name.startswith("apgd-")]
        assert set(raised) == {"margin"}


def test_other_tasks_have_their_strongest_losses_and_square():
    toy = toys()["segmentation"]
    found = stages(toy.victim, toy.batch(), Linf(0.1))
    assert [(name, loss) for name, _, loss in found] == [("apgd-ce", "ce"), ("apgd-segpgd", "segpgd"), ("square", "ce")]
    assert [name for name, _, _ in stages(toy.victim, toy.batch(), Linf(0.1), version="rand")] == ["apgd-ce", "apgd-segpgd"]
    assert [name for name, _, _ in stages(toy.victim, toy.batch(), Linf(0.1), "embedding")][1:] == ["square"]


def run(attack, victim, batch, threat_model):
    objective = build("task", victim, batch, attack.access)
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost


def test_an_image_that_is_fooled_costs_no_more(victim, batch):
    found, cost = run(AutoAttack(steps=10, queries=50), victim, batch, L2(6.0))
    assert victim.fooled(victim(found), batch.targets).all()
    assert {name for name, _ in cost.fooled_by.values()} == {"apgd-ce"}
    assert (cost.forwards <= 1 + 10 + 2).all()  # the clean image for its targets, and two verdicts: of the last step and of the stage


def test_passes_of_an_image_that_withstands_all(victim, batch):
    _, cost = run(AutoAttack(steps=10, queries=50), victim, batch, L2(1e-4))
    apgd, targeted, fab, square = 10 + 1 + 1, 9 * (10 + 1) + 1, 9 * (10 + 1 + 1) + 1, 50 + 1 + 1
    assert cost.forwards.tolist() == [1 + apgd + targeted + fab + square] * 8
    assert cost.backwards.tolist() == [10 + 9 * 10 + 9 * 10] * 8
    assert cost.fooled_by == {}


def test_images_are_attacked_alone_as_in_a_batch(victim, batch):
    """Whatever falls when, and whoever else is there: the same verdicts and the same passes."""
    attack, threat_model = AutoAttack(steps=8, queries=30), L2(0.85)
    found, cost = run(attack, victim, batch, threat_model)
    fooled = victim.fooled(victim(found), batch.targets)
    assert 0 < fooled.sum() < 8
    for i in range(8):
        one = batch[torch.arange(8) == i]
        alone, spent = run(attack, victim, one, threat_model)
        assert torch.allclose(alone[0], found[i], atol=1e-4)
        assert int(spent.forwards) == int(cost.forwards[i])
        assert spent.fooled_by.get(0) == cost.fooled_by.get(i)


def test_it_is_at_least_as_strong_as_each_of_its_attacks(victim, batch):
    threat_model = Linf(0.1)
    whole, _ = run(AutoAttack(steps=5, queries=20, targets=3), victim, batch, threat_model)
    fooled = victim.fooled(victim(whole), batch.targets)
    for attack in (APGD(5), TargetedAPGD(5, targets=3), TargetedFAB(5, targets=3)):
        found, _ = run(attack, victim, batch, threat_model)
        assert (fooled | ~victim.fooled(victim(found), batch.targets)).all()
