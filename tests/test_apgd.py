"""APGD: its schedule, its steps, what it spends; the losses and targets that it raises."""

import pytest
import torch

from sslrob.builtin.apgd import APGD, TargetedAPGD
from sslrob.builtin.ascent import Halving, Sparse
from sslrob.builtin.gradient import COMPACT_EVERY
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.settings import complete
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L1, L2, Linf

NORMS = pytest.mark.parametrize("norm", [Linf, L2, L1], ids=lambda norm: norm.__name__)


def attack_it(attack, toy, threat_model, *, name="task", keep=slice(None), victim=None):
    batch, victim = toy.batch(), victim or toy.victim
    part = batch[keep] if isinstance(keep, torch.Tensor) else batch
    objective = build(name, victim, part, attack.access)
    found = attack.perturb(objective, part.images, threat_model, streams=Streams(0, part.ids))
    assert threat_model.allows(found, part.images).all()
    return found, objective.cost, part


def test_the_published_defaults():
    assert APGD() == APGD(steps=100, looks=1, radii=(1.0,))
    assert TargetedAPGD() == TargetedAPGD(steps=100, targets=9, looks=1, radii=(1.0,))


def test_the_checkpoints_are_the_papers():
    """p = 0, 0.22, then each window 0.03 shorter than the one before, but at least 0.06 of the steps long."""
    windows = dict(Halving.windows(100))
    assert list(windows) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(windows.values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert list(Halving.windows(1)) == []
    assert all(step < 10 for step, _ in Halving.windows(10))
    assert list(Sparse.windows(100)) == [(step, 4) for step in range(4, 100, 4)]


def ascend(kind, threat_model, steps=3):
    images = torch.full((2, 3, 4, 4), 0.5)
    return kind(threat_model, images, images, steps, resumed=False)


def test_a_step_is_halved_where_too_few_steps_rise_or_none_helps():
    search = ascend(Halving, Linf(0.1))
    search.saw(torch.tensor([0.0, 0.0]), torch.ones(2, 3, 4, 4))
    for loss in ([1.0, 1.0], [2.0, 0.5], [3.0, 0.4], [4.0, 2.0]):
        search.advance(first=False)
        search.saw(torch.tensor(loss), torch.ones(2, 3, 4, 4))
    search.check(4)
    assert search.size.tolist() == [1.0, 0.5]  # four rises of four; two of four
    for _ in range(4):
        search.saw(torch.tensor([5.0, 1.0]), torch.ones(2, 3, 4, 4))
    search.check(4)
    assert search.size.tolist() == [0.5, 0.25]  # one rise of four each
    for loss in (1.0, 2.0, 3.0, 4.0):
        search.saw(torch.full((2,), loss), torch.ones(2, 3, 4, 4))
    search.halved = torch.tensor([True, False])
    search.checked_loss = torch.tensor([5.0, 4.0])
    search.check(3)
    assert search.size.tolist() == [0.5, 0.125]  # enough rise, but not above the highest: halved, unless it just was


def test_a_halved_search_goes_back_to_its_highest_loss_with_that_gradient():
    search = ascend(Halving, Linf(0.1))
    for loss, value in ((0.0, 1.0), (3.0, 2.0), (1.0, 3.0)):
        search.saw(torch.tensor([loss, loss]), torch.full((2, 3, 4, 4), value))
        if value == 2.0:
            there = search.x.clone()
        search.advance(first=value == 1.0)
    search.check(2)
    assert torch.equal(search.x, there)
    assert (search.gradient == 2.0).all()
    assert search.highest_loss.tolist() == [3.0, 3.0]


def test_momentum_is_a_quarter_of_the_step_before():
    search = ascend(Halving, Linf(1.0))
    search.size /= 100
    search.saw(torch.zeros(2), torch.ones(2, 3, 4, 4))
    search.advance(first=True)
    assert torch.allclose(search.x, torch.full_like(search.x, 0.52))
    search.advance(first=False)
    assert torch.allclose(search.x, torch.full_like(search.x, 0.52 + 0.75 * 0.02 + 0.25 * 0.02))


def test_l1_moves_the_values_of_largest_gradient_alone():
    search = ascend(Sparse, L1(0.2))
    gradient = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    search.saw(torch.zeros(2), gradient)
    search.move(0)
    moved = (search.x != search.origin).flatten(1)
    largest = gradient.flatten(1).abs().argsort(dim=1, descending=True)[:, :10]  # a fifth of 48 values, as the paper has it
    assert moved.sum(1).tolist() == [10, 10]
    assert moved.gather(1, largest).all()
    assert torch.allclose((search.x - search.origin).flatten(1).abs().sum(1), torch.full((2,), 0.2))
    search.saw(torch.ones(2), gradient)
    search.check(4)
    assert torch.allclose(search.share, torch.tensor(10 / 48 / 1.5))
    assert (search.size == 1).all()  # sparser: full steps
    search.check(4)
    assert torch.allclose(search.size, torch.tensor(1 / 1.5))  # no sparser: shorter ones
    for _ in range(9):
        search.check(4)
    assert torch.allclose(search.size, torch.tensor(0.1))


@NORMS
def test_it_wins_just_beyond_the_robust_radius(norm):
    """In L1 a little farther: its sparse steps lead past a value that can move no more only after a while, and on 8 × 8 pixels never."""
    toy = toys()["classification"]
    for i, radius in enumerate(toy.victim.radius(toy.batch().images, norm).tolist()):
        for attack in (APGD(steps=25), TargetedAPGD(steps=25)):
            for factor, wins in ((0.99, False), (1.25 if norm is L1 else 1.05, True)):
                found, _, part = attack_it(attack, toy, norm(factor * radius), keep=torch.arange(6) == i)
                assert bool(toy.victim.fooled(toy.victim(found), part.targets)) == wins


@NORMS
def test_passes(norm):
    toy = toys()["classification"]
    _, cost, _ = attack_it(APGD(steps=30), toy, norm(1e-4))
    assert cost.forwards.tolist() == [31] * 6
    assert cost.backwards.tolist() == [30] * 6
    _, cost, _ = attack_it(APGD(steps=30, radii=(3, 2, 1)), toy, norm(1e-4))
    assert cost.forwards.tolist() == [33] * 6
    assert cost.backwards.tolist() == [30] * 6
    _, cost, _ = attack_it(APGD(steps=5, looks=4), toy, norm(1e-4))
    assert cost.forwards.tolist() == [24] * 6
    assert cost.backwards.tolist() == [20] * 6
    _, cost, _ = attack_it(TargetedAPGD(steps=10), toy, norm(1e-4))
    assert cost.forwards.tolist() == [1 + 11] * 6  # the clean image, one wrong class
    assert cost.backwards.tolist() == [10] * 6


def test_fooled_images_are_done():
    toy = toys()["classification"]
    radius = toy.victim.radius(toy.batch().images, Linf)
    found, cost, batch = attack_it(APGD(steps=40), toy, Linf(float(radius[2:4].mean())))
    assert toy.victim.fooled(toy.victim(found), batch.targets).tolist() == [True] * 3 + [False] * 3
    assert cost.backwards[3:].tolist() == [40] * 3
    assert (cost.backwards[:3] <= COMPACT_EVERY + 1).all()


def test_a_wider_ball_that_is_searched_first_ends_nobody():
    """Within the first radii all are fooled, within the last none is; it still comes back into the ball."""
    toy = toys()["classification"]
    threat_model = Linf(0.8 * float(toy.victim.radius(toy.batch().images, Linf).min()))
    found, cost, batch = attack_it(APGD(steps=20, radii=(3, 1)), toy, threat_model)
    assert not toy.victim.fooled(toy.victim(found), batch.targets).any()
    assert cost.backwards.tolist() == [20] * 6


@pytest.mark.parametrize("radii", [(), (2.0,), (1.0, 2.0), (4, 3, 2, 1)])
def test_radii_end_with_the_true_one(radii):
    with pytest.raises(ValueError, match="radii"):
        APGD(radii=radii)
    with pytest.raises(SslrobError):
        complete(APGD, {"radii": radii}, [], "attack 'apgd'")


def test_settings_come_from_the_command_line():
    assert complete(APGD, {}, ["radii=[3, 2, 1]", "steps=7"], "attack 'apgd'") == {"steps": 7, "looks": 1, "radii": [3.0, 2.0, 1.0]}
    for wrong in ("steps=0", "looks=0", "targets=9", "radii=[0.5, 1]"):
        with pytest.raises(SslrobError, match=wrong.partition("=")[0]):
            complete(APGD, {}, [wrong], "attack 'apgd'")


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_it_raises_any_objective(kind):
    toy = toys()[kind]
    for name in ("task", "embedding"):
        found, _, batch = attack_it(APGD(steps=10), toy, Linf(0.03), name=name)
        after, before = (build(name, toy.victim, batch, "white-box")(x).loss for x in (found, batch.images))
        assert (after > before).all()


def test_targets_need_classes():
    with pytest.raises(SslrobError, match="no finite list"):
        attack_it(TargetedAPGD(steps=2), toys()["segmentation"], Linf(0.03))


class Dying(LinearVictim):
    """Zero gradients for the first image, infinite ones for the second, NaN for the third."""

    def loss(self, outputs, targets, name, progress):
        scale = torch.ones_like(outputs)
        scale[:3] = torch.tensor([0.0, torch.inf, torch.nan])[: len(scale)]
        return super().loss(outputs, targets, name, progress) * scale


@NORMS
def test_gradients_that_are_not_finite_leave_the_image_allowed(norm):
    _, cost, _ = attack_it(APGD(steps=12), toys()["classification"], norm(0.01), victim=Dying())
    assert (cost.dead[:3] == cost.backwards[:3]).all()
    assert not cost.dead[3:].any()


def test_its_best_iterate_is_what_it_returns():
    class Wavy(LinearVictim):
        lowest = torch.full((6,), torch.inf)

        def quality(self, outputs, targets):
            quality = outputs.sin() + 2
            self.lowest = torch.minimum(self.lowest, quality.detach())
            return quality

    victim = Wavy()
    found, _, _ = attack_it(APGD(steps=40), toys()["classification"], Linf(0.06), victim=victim)
    assert torch.allclose(victim(found).sin() + 2, victim.lowest, atol=1e-5)
