"""Attacks made to transfer: closed forms of their steps, pass budgets, and that they do transfer."""

import pytest
import torch

from sslrob.builtin.gradient import PGD, RSFGSM
from sslrob.builtin.momentum import Momentum
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L1, L2, Linf

NORMS = pytest.mark.parametrize("norm", [Linf, L2, L1], ids=lambda norm: norm.__name__)
VARIANTS = {
    "mi": (Momentum(), 10),
    "ni": (Momentum(look_ahead=True), 10),
    "vmi": (Momentum(neighbours=3), 10 + 9 * 3),
    "di": (Momentum(diversity=0.5), 10),
    "ti": (Momentum(smoothing=2), 10),
    "si": (Momentum(scales=3), 30),
    "eot": (Momentum(draws=2), 20),
    "all": (Momentum(look_ahead=True, neighbours=2, diversity=0.5, smoothing=1, scales=2, draws=2), 4 * (10 + 9 * 2)),
}


def attack_it(attack, batch, victim, threat_model, seed=0):
    objective = build("task", victim, batch, attack.access)
    found = attack.perturb(objective, batch.images.clone(), threat_model, streams=Streams(seed, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost


@NORMS
@pytest.mark.parametrize("name", ["mi", "ni", "vmi", "si", "eot"])
def test_they_win_just_beyond_the_robust_radius_and_not_within(name, norm):
    toy = toys()["classification"]
    for i, radius in enumerate(toy.victim.radius(toy.batch().images, norm).tolist()):
        one = toy.batch()[torch.arange(6) == i]
        for factor, wins in ((0.99, False), (1.05, True)):
            found, _ = attack_it(VARIANTS[name][0], one, toy.victim, norm(factor * radius))
            assert bool(toy.victim.fooled(toy.victim(found), one.targets)) == wins


@pytest.mark.parametrize("name", VARIANTS)
def test_all_steps_are_taken_and_every_pass_is_counted(name):
    attack, passes = VARIANTS[name]
    toy = toys()["classification"]
    found, cost = attack_it(attack, toy.batch(), toy.victim, Linf(0.2))
    assert toy.victim.fooled(toy.victim(found), toy.batch().targets).all()
    assert cost.forwards.tolist() == cost.backwards.tolist() == [passes] * 6
    again, other = (attack_it(attack, toy.batch(), toy.victim, Linf(0.01), seed=seed)[0] for seed in (0, 1))
    assert attack.randomised or torch.equal(again, other)


class Turning(LinearVictim):
    """A loss whose gradient turns round with every look, 4 : -2 : 4 : …"""

    looks = 0

    def loss(self, outputs, targets, name, progress):
        self.looks += 1
        return super().loss(outputs, targets, name, progress) * (4 if self.looks % 2 else -2)


def test_a_step_follows_the_sum_of_gradients_of_equal_size():
    """Each gradient counts alike however large, so with full decay a second one the other way undoes the first: no step is taken."""
    batch = toys()["classification"].batch()
    one, two, three = (attack_it(Momentum(steps, 0.1), batch, Turning(), Linf(0.01))[0] - batch.images for steps in (1, 2, 3))
    assert torch.allclose(two, one, atol=1e-7)
    assert torch.allclose(three, 2 * one, atol=1e-7)
    usual = attack_it(Momentum(4), batch, Turning(), Linf(0.01))[0]  # four steps of a quarter of epsilon each reach it
    assert torch.equal(usual, attack_it(Momentum(4, 0.25), batch, Turning(), Linf(0.01))[0])
    forgetful = attack_it(Momentum(2, 0.1, decay=0.0), batch, Turning(), Linf(0.01))[0]
    assert torch.allclose(forgetful, batch.images, atol=1e-7)


def test_variance_tuning_adds_what_the_gradients_around_have():
    """Where the clean image alone, and nothing around it, has a gradient the wrong way, the second step makes up for the first one."""

    class Spike(LinearVictim):
        def forward(self, images):
            self.upper = (self.body(images).maps[0] * self.weight)[:, :, :4].flatten(1).sum(1)
            return super().forward(images)

        def loss(self, outputs, targets, name, progress):
            sign = 1 - 2 * torch.tensor(targets)
            clean = torch.tensor([2.0, 2.5, 3.0, 3.5, 4.0, 4.5])
            return sign * torch.where((outputs.abs() - clean).abs() < 1e-3, outputs - 2 * self.upper, outputs)

    batch, victim = toys()["classification"].batch(), Spike()
    plain, tuned = (attack_it(Momentum(steps=2, neighbours=n), batch, victim, Linf(0.01))[0] for n in (0, 20))
    assert torch.allclose(plain[:, :, 4:], tuned[:, :, 4:], atol=1e-7)
    assert (victim.quality(victim(tuned), batch.targets) < victim.quality(victim(plain), batch.targets) - 0.01).all()


@NORMS
def test_gradients_that_are_not_finite_leave_the_image_allowed(norm):
    class Dying(LinearVictim):
        def loss(self, outputs, targets, name, progress):
            scale = torch.ones_like(outputs)
            scale[:3] = torch.tensor([0.0, torch.inf, torch.nan])[: len(scale)]
            return super().loss(outputs, targets, name, progress) * scale

    batch = toys()["classification"].batch()
    for attack, _ in (*VARIANTS.values(), (Momentum(random_start=True), 0)):
        found, cost = attack_it(attack, batch, Dying(), norm(0.1))
        assert not found.isnan().any()
        assert cost.dead.tolist()[:3] == cost.backwards.tolist()[:3]
        assert not cost.dead[3:].any()


def test_rs_fgsm_steps_over_the_whole_ball_from_a_random_start():
    toy = toys()["classification"]
    batch, threat_model = toy.batch(), Linf(0.01)
    found, cost = attack_it(RSFGSM(step_size=2.0), batch, toy.victim, threat_model)
    assert torch.allclose((found - batch.images).abs(), torch.full_like(found, 0.01), atol=1e-6)  # twice epsilon reaches every side
    assert cost.forwards.tolist() == cost.backwards.tolist() == [1] * 6
    published, _ = attack_it(RSFGSM(), batch, toy.victim, threat_model)
    inside = ((published - batch.images).abs() < 0.0099).float().mean()
    assert float(inside) == pytest.approx(0.375, abs=0.03)  # a start farther than a quarter of epsilon the other way
    assert not torch.equal(published, attack_it(RSFGSM(), batch, toy.victim, threat_model, seed=1)[0])


def test_going_on_after_the_victim_is_fooled_fools_others():
    """PGD stops at the border of the victim that it sees; another, whose border lies elsewhere, is fooled by going on."""
    batch, seen = toys()["classification"].batch(), LinearVictim()
    other = LinearVictim()
    with torch.no_grad():
        noise = torch.randn(other.weight.shape, generator=torch.Generator().manual_seed(1))
        other.weight += 0.5 * noise
    epsilon = 2.0 * float(seen.radius(batch.images, Linf).max())
    fooled = [
        other.fooled(other(attack_it(attack, batch, seen, Linf(epsilon))[0]), batch.targets).sum() for attack in (PGD(60, 0.02), Momentum())
    ]
    assert fooled[0] < fooled[1] == 6
