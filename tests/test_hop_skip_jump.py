"""The attack that sees verdicts alone: how near it comes to the closed form, what it returns, what it spends."""

import numpy as np
import pytest
import torch
from torch import nn

from sslrob.builtin.hop_skip_jump import HopSkipJump
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L2, Linf

FAR = {L2: 100.0, Linf: 1.0}  # epsilons that hold nothing back


def attack_it(attack, batch, victim, threat_model, *, seed=0):
    objective = build("task", victim, batch, attack.access)
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(seed, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost


@pytest.mark.parametrize(("norm", "near"), [(L2, 1.1), (Linf, 1.33)], ids=["l2", "linf"])
def test_it_converges_to_the_distance_of_the_border(norm, near):
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    radius = victim.radius(batch.images, norm)
    ratios = []
    for queries in (500, 2300):
        found, cost = attack_it(HopSkipJump(queries=queries), batch, victim, norm(FAR[norm]))
        assert victim.fooled(victim(found), batch.targets).all()
        assert (cost.forwards <= queries).all()
        assert (cost.forwards > 0.8 * queries).all()
        ratios.append(norm(1.0).distance(found, batch.images) / radius)
    assert (ratios[1] >= 1).all()
    assert (ratios[1] < ratios[0]).all()
    assert (ratios[1] < near).all()


@pytest.mark.parametrize(("norm", "factor"), [(L2, 1.2), (Linf, 1.4)], ids=["l2", "linf"])
def test_the_smallest_move_is_returned_if_it_is_allowed_and_else_cut_back(norm, factor):
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    radius = victim.radius(batch.images, norm)
    attack = HopSkipJump(queries=1200)
    free, _ = attack_it(attack, batch, victim, norm(FAR[norm]))
    threat_model = norm(factor * float(radius[2]))  # what is found for three easy images lies within, for three hard ones without
    found, _ = attack_it(attack, batch, victim, threat_model)
    inside = threat_model.allows(free, batch.images)
    assert inside.tolist() == [True] * 3 + [False] * 3
    assert torch.equal(found[inside], free[inside])
    assert torch.allclose(found[~inside], threat_model.project(free, batch.images)[~inside])
    fooled = victim.fooled(victim(found), batch.targets)
    assert fooled.tolist() == inside.tolist()


def test_it_may_stop_at_the_first_allowed_move():
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    threat_model = L2(1.3 * float(victim.radius(batch.images, L2)[2]))
    long, spent = attack_it(HopSkipJump(queries=1300), batch, victim, threat_model)
    short, less = attack_it(HopSkipJump(queries=1300, smallest=False), batch, victim, threat_model)
    done = victim.fooled(victim(short), batch.targets)
    assert done.tolist() == victim.fooled(victim(long), batch.targets).tolist() == [True] * 3 + [False] * 3
    assert (less.forwards[:3] < spent.forwards[:3]).all()
    assert torch.equal(less.forwards[3:], spent.forwards[3:])
    assert (threat_model.distance(short, batch.images)[:3] > threat_model.distance(long, batch.images)[:3]).all()


def test_it_fools_a_detector():
    """What hides every object is found at some distance; cut back to epsilon it still does harm."""
    toy = toys()["detection"]
    batch, victim = toy.batch(), toy.victim
    attack = HopSkipJump(queries=400, directions=30)
    found, _ = attack_it(attack, batch, victim, Linf(1.0))
    assert victim.fooled(victim(found), batch.targets).any()
    held, _ = attack_it(attack, batch, victim, Linf(0.1))
    assert (victim.quality(victim(held), batch.targets) < victim.quality(victim(batch.images), batch.targets)).any()


def test_without_an_image_that_fools_the_clean_one_is_returned():
    class Stubborn(LinearVictim):
        def fooled(self, outputs, targets):
            return torch.zeros(len(targets), dtype=torch.bool)

    batch = toys()["classification"].batch()
    found, cost = attack_it(HopSkipJump(queries=500, draws=20), batch, Stubborn(), Linf(1.0))
    assert torch.equal(found, batch.images)
    assert cost.forwards.tolist() == [20] * 6


def test_some_victims_fall_to_coarse_noise_alone():
    """Fine noise has the same mean in every image; blocks do not."""

    class Mean(LinearVictim):
        def forward(self, images):
            return super().forward(images).where(images.mean((1, 2, 3)) > 0.45, -1.0)

        def fooled(self, outputs, targets):
            return outputs == -1.0

    batch = toys()["classification"].batch()
    assert (batch.images.mean((1, 2, 3)) > 0.45).all()
    found, _ = attack_it(HopSkipJump(queries=300, draws=40, directions=20), batch, Mean(), Linf(1.0))
    assert (found.mean((1, 2, 3)) <= 0.45).all()


def test_an_image_depends_on_none_beside_it():
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    attack = HopSkipJump(queries=400, directions=30)
    together, cost = attack_it(attack, batch, victim, L2(1.0))
    for i in (1, 4):
        alone, own = attack_it(attack, batch[torch.arange(6) == i], victim, L2(1.0))
        assert torch.allclose(alone[0], together[i], atol=1e-6)
        assert own.forwards[0] == cost.forwards[i]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("norm", [L2, Linf], ids=["l2", "linf"])
def test_it_comes_as_near_as_foolboxs_with_as_many_queries(norm):
    """Foolbox's normalises by the norm of a whole batch, so it gets one image at a time.

    Ours holds some queries back for images that are hard to start with, and for steps that must be halved often.
    """
    foolbox = pytest.importorskip("foolbox")
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim

    class Logits(nn.Module):
        queries = 0

        def forward(self, images):
            Logits.queries += len(images)
            value = victim(images)
            return torch.stack([-value, value], 1)

    reference = foolbox.attacks.HopSkipJumpAttack(steps=3, constraint={L2: "l2", Linf: "linf"}[norm])
    model = foolbox.PyTorchModel(Logits().eval(), bounds=(0, 1), device="cpu")
    Logits.queries = 0
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        theirs = [reference.run(model, one.images, foolbox.criteria.Misclassification(torch.tensor(one.targets))) for one in _singly(batch)]
    np.random.set_state(state)
    queries = Logits.queries // len(batch)
    found, cost = attack_it(HopSkipJump(queries=queries), batch, victim, norm(FAR[norm]))
    assert (cost.forwards <= queries).all()
    mine, other = (norm(1.0).distance(images, batch.images).mean() for images in (found, torch.cat(theirs)))
    assert mine < 1.08 * other


def _singly(batch):
    return [batch[torch.arange(len(batch)) == i] for i in range(len(batch))]
