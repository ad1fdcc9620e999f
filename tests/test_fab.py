"""FAB: projections onto the border, the smallest moves that it finds, what they cost."""

import pytest
import torch

from sslrob.builtin.classification import LinearClassifier
from sslrob.builtin.fab import FAB, TargetedFAB
from sslrob.builtin.gradient import COMPACT_EVERY
from sslrob.builtin.hyperplane import onto
from sslrob.data import Batch
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, ToyBackbone, toys
from sslrob.threat_model import L1, L2, Linf

NORMS = pytest.mark.parametrize("norm", [Linf, L2, L1], ids=lambda norm: norm.__name__)
ORDERS = {Linf: torch.inf, L2: 2, L1: 1}


def attack_it(attack, victim, batch, threat_model, name="task"):
    objective = build(name, victim, batch, attack.access)
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost


class TestHyperplane:
    def problem(self, share):
        generator = torch.Generator().manual_seed(0)
        points, normals = torch.rand(40, 60, generator=generator), torch.randn(40, 60, generator=generator).pow(3)
        points[points < 0.1], points[points > 0.9] = 0, 1
        sign = torch.randint(2, (40,), generator=generator) * 2 - 1
        downhill = -normals * sign[:, None]
        most = (torch.where(downhill > 0, 1 - points, points) * normals.abs()).sum(1)
        return points.double(), normals.double(), (share * most * sign).double()

    @NORMS
    @pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
    def test_the_border_is_reached_within_the_pixel_range(self, norm, share):
        points, normals, gap = self.problem(share)
        move = onto(points, normals, gap, norm(1.0))
        assert torch.allclose((normals * move).sum(1), -gap, rtol=1e-6)
        assert ((points + move >= -1e-12) & (points + move <= 1 + 1e-12)).all()

    @NORMS
    @pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
    def test_no_shorter_move_reaches_it(self, norm, share):
        """Within a ball a little smaller than the move, the most that a linear function can change is less than the gap."""
        points, normals, gap = self.problem(share)
        move = onto(points, normals, gap, norm(1.0))
        lengths = torch.linalg.vector_norm(move, ord=ORDERS[norm], dim=1)
        for i in range(len(points)):
            ball, origin = norm(0.999 * float(lengths[i])), points[i : i + 1]
            far = origin - 1e6 * gap[i].sign() * normals[i : i + 1]
            best = ball.project(far if norm is L2 else origin + ball.steepest(far - origin, origin), origin)
            assert float(((best - origin) * normals[i]).sum().abs()) < float(gap[i].abs())

    @NORMS
    def test_where_there_is_no_room_it_goes_as_far_as_there_is(self, norm):
        points, normals, gap = self.problem(1.5)
        move = onto(points, normals, gap, norm(1.0))
        corner = (normals * gap[:, None] < 0).double()
        assert torch.allclose(points + move, corner.where(normals != 0, points))

    @NORMS
    def test_no_gradient_no_move(self, norm):
        assert not onto(torch.rand(2, 5), torch.zeros(2, 5), torch.ones(2), norm(1.0)).any()
        assert not onto(torch.rand(2, 5), torch.randn(2, 5), torch.zeros(2), norm(1.0)).any()


def test_the_published_defaults():
    assert FAB() == FAB(steps=100, random_start=False, smallest=True, rivals=None)
    assert TargetedFAB() == TargetedFAB(steps=100, targets=9, smallest=True)


@NORMS
@pytest.mark.parametrize("attack", [FAB(steps=10), TargetedFAB(steps=10)], ids=["fab", "fab-t"])
def test_the_smallest_move_of_a_linear_victim_is_its_radius(norm, attack):
    toy = toys()["classification"]
    batch = toy.batch()
    radius = toy.victim.radius(batch.images, norm)
    wide = norm(2 * float(radius.max()))
    found, _ = attack_it(attack, toy.victim, batch, wide)
    assert toy.victim.fooled(toy.victim(found), batch.targets).all()
    distance = wide.distance(found, batch.images)
    assert (distance >= radius * (1 - 1e-6)).all()
    assert (distance <= 1.06 * radius).all()  # it steps a twentieth beyond the border
    narrow = norm(0.99 * float(radius.min()))
    found, _ = attack_it(attack, toy.victim, batch, narrow)
    assert not toy.victim.fooled(toy.victim(found), batch.targets).any()
    after, before = (toy.victim.quality(toy.victim(x), batch.targets) for x in (found, batch.images))
    assert (after < before).all()  # the best allowed image, not the clean one


@pytest.fixture(scope="module")
def four_classes():
    """A victim of four classes that is linear up to a square, and images that it is right about."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = LinearClassifier(ToyBackbone(), 4).eval().requires_grad_(False)
    images = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return victim, Batch(tuple("abcdefgh"), images, tuple(victim(images).argmax(1).tolist()))


def test_untargeted_and_targeted_find_the_same_smallest_moves(four_classes):
    """The nearest border is one of the three."""
    victim, batch = four_classes
    moves = [L2(5.0).distance(attack_it(attack, victim, batch, L2(5.0))[0], batch.images) for attack in (FAB(20), TargetedFAB(20))]
    assert torch.allclose(moves[0], moves[1], rtol=0.06)
    nearest = L2(5.0).distance(attack_it(FAB(20, rivals=1), victim, batch, L2(5.0))[0], batch.images)
    assert (nearest >= 0.94 * moves[0]).all()


def test_passes(four_classes):
    victim, batch = four_classes
    _, cost = attack_it(FAB(steps=12), victim, batch, L2(5.0))
    assert cost.forwards.tolist() == [13] * 8
    assert cost.backwards.tolist() == [12 * 3] * 8  # one for each wrong class
    _, cost = attack_it(FAB(steps=12, rivals=2), victim, batch, L2(5.0))
    assert cost.backwards.tolist() == [12 * 2] * 8
    _, cost = attack_it(TargetedFAB(steps=12), victim, batch, L2(5.0))
    assert (cost.forwards >= 1 + 3 * 13).all()
    assert (cost.forwards <= 1 + 3 * (13 + 1)).all()  # one more towards a class that is out of reach: the best allowed image
    assert cost.backwards.tolist() == [3 * 12] * 8
    _, cost = attack_it(TargetedFAB(steps=12, targets=2), victim, batch, L2(5.0))
    assert cost.backwards.tolist() == [2 * 12] * 8
    _, cost = attack_it(TargetedFAB(steps=50, smallest=False), victim, batch, L2(5.0))
    assert (cost.backwards <= 2 * COMPACT_EVERY).all()  # done with the first success


def test_restarts_begin_elsewhere(four_classes):
    victim, batch = four_classes
    assert FAB(random_start=True).randomised
    assert not FAB().randomised
    first, again = (attack_it(FAB(steps=1, random_start=start), victim, batch, L2(1.0))[0] for start in (True, False))
    assert not torch.equal(first, again)


def test_it_needs_wrong_answers():
    toy = toys()["segmentation"]
    for attack in (FAB(steps=2), TargetedFAB(steps=2)):
        with pytest.raises(SslrobError, match="no finite list"):
            attack_it(attack, toy.victim, toy.batch(), Linf(0.1))


class Dying(LinearVictim):
    """No gradient for the first image, NaN for the second."""

    def margins(self, outputs, targets):
        scale = torch.ones_like(outputs)
        scale[:2] = torch.tensor([0.0, torch.nan])[: len(scale)]
        return super().margins(outputs * scale, targets)


@NORMS
def test_gradients_that_are_not_finite_leave_the_image_allowed(norm):
    batch = toys()["classification"].batch()
    found, cost = attack_it(FAB(steps=5), Dying(), batch, norm(0.1))
    assert found.isfinite().all()
    assert cost.dead.tolist()[:2] == [5, 5]
