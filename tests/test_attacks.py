"""First-party attacks against closed forms, and what their passes are spent on.  tests/contract/ has what every attack must keep."""

import pytest
import torch

from sslrob.attack import Best
from sslrob.builtin.gradient import COMPACT_EVERY, FGSM, PGD, RSFGSM
from sslrob.builtin.noise import Noise
from sslrob.builtin.restarts import Restarts
from sslrob.data import Batch
from sslrob.objective import Feedback, build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, ToyDetector, toys
from sslrob.testing.unchanged import generators_unused
from sslrob.threat_model import L1, L2, Linf

NORMS = pytest.mark.parametrize("norm", [Linf, L2, L1], ids=lambda norm: norm.__name__)


def attack_it(attack, batch, victim, threat_model, *, name="task", streams=None):
    objective = build(name, victim, batch, attack.access)
    return attack.perturb(objective, batch.images, threat_model, streams=streams or Streams(0, batch.ids)), objective.cost


@NORMS
@pytest.mark.parametrize("attack", [FGSM(), PGD(), PGD(random_start=False), Restarts(PGD(), 2)], ids=str)
def test_gradient_attacks_win_just_beyond_the_robust_radius(attack, norm):
    """The gradient of a linear victim is the same everywhere, so even one step must reach the border: 5 % beyond it."""
    toy = toys()["classification"]
    batch = toy.batch()
    for i, radius in enumerate(toy.victim.radius(batch.images, norm).tolist()):
        one = batch[torch.arange(6) == i]
        for factor, wins in ((0.99, False), (1.05, True)):
            found, _ = attack_it(attack, one, toy.victim, norm(factor * radius))
            assert bool(toy.victim.fooled(toy.victim(found), one.targets)) == wins


@NORMS
def test_the_known_radius_is_right(norm):
    """At the radius the best move, found here by a fine ascent in float64, lands on the border."""
    victim, batch = LinearVictim().double(), toys()["classification"].batch()
    images = batch.images.double()
    sign = torch.tensor(batch.targets).double() * 2 - 1
    for i, radius in enumerate(victim.radius(batch.images, norm).tolist()):
        origin, model = images[i : i + 1], norm(radius)
        x = origin.clone()
        for scale in (1e-3, 1e-1, 1e1):
            for _ in range(30):
                x = model.project(x - scale * sign[i] * victim.weight.detach(), origin)
        assert float(victim(x).detach() * sign[i]) == pytest.approx(0, abs=1e-4)


def test_no_norm_but_the_known_ones_has_a_radius():
    with pytest.raises(ValueError, match="not known"):
        LinearVictim().radius(torch.zeros(1, 3, 8, 8), int)


@NORMS
def test_pgd_fills_the_budget_beside_black_and_white_pixels(norm):
    """A linear loss is highest where the KKT conditions say; PGD must come within 1 % of it although a third of the pixels is stuck."""
    g = torch.Generator().manual_seed(0)
    origin = torch.rand(1, 3, 8, 8, generator=g)
    origin[torch.rand(origin.shape, generator=g) < 0.3] = 1.0
    origin[torch.rand(origin.shape, generator=g) < 0.1] = 0.0
    victim = LinearVictim()
    target = victim.predict(victim(origin))
    epsilon = {Linf: 0.01, L2: 0.1, L1: 0.6}[norm]
    batch = Batch(("a",), origin, tuple(target))
    found, _ = attack_it(PGD(steps=40, step_size=0.2), batch, victim, norm(epsilon))
    towards = -victim.weight.detach() * (1 if target[0] else -1)
    best = norm(epsilon).project(origin + 1e6 * towards, origin)  # the projection of a far point along a linear function's gradient
    reached, possible = (float(((x - origin) * towards).sum()) for x in (found, best))
    assert reached == pytest.approx(possible, rel=0.01)


def test_fgsm_is_one_step_of_full_length_whether_or_not_it_helps():
    toy = toys()["classification"]
    batch = toy.batch()
    found, cost = attack_it(FGSM(), batch, toy.victim, Linf(0.01))
    assert torch.allclose((found - batch.images).abs(), torch.full_like(found, 0.01), atol=1e-6)
    assert cost.forwards.tolist() == cost.backwards.tolist() == [1] * 6


@pytest.mark.parametrize("attack", [FGSM(), RSFGSM(), PGD(steps=1)], ids=str)
def test_losses_that_anneal_are_at_their_beginning_in_a_single_step(attack):
    seen = []

    class Annealing(LinearVictim):
        def loss(self, outputs, targets, name, progress):
            seen.append(progress)
            return super().loss(outputs, targets, name, progress)

    attack_it(attack, toys()["classification"].batch(), Annealing(), Linf(8 / 255))
    assert seen[0] == 0


def test_noise_is_weaker_than_gradients_and_stronger_than_one_draw():
    toy = toys()["detection"]
    batch = toy.batch()

    def quality(attack):
        found, _ = attack_it(attack, batch, toy.victim, Linf(0.1))
        return toy.victim.quality(toy.victim(found), batch.targets)

    one, many, pgd = quality(Noise(draws=1)), quality(Noise(draws=50)), quality(PGD())
    assert (many <= one).all()
    assert (many < one).any()
    assert (pgd < many).all()


def test_fooled_images_spend_no_further_passes():
    """The first three images fall at once, the others never: after the next compaction only those are attacked."""
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    radius = victim.radius(batch.images, Linf)
    threat_model = Linf(float(radius[2:4].mean()))
    found, cost = attack_it(PGD(steps=50, step_size=1.0), batch, victim, threat_model)
    assert victim.fooled(victim(found), batch.targets).tolist() == [True] * 3 + [False] * 3
    assert cost.forwards[3:].tolist() == [51] * 3
    assert cost.backwards[3:].tolist() == [50] * 3
    assert (cost.forwards[:3] <= COMPACT_EVERY + 2).all()


def test_pgd_stops_when_all_are_fooled():
    toy = toys()["classification"]
    _, cost = attack_it(PGD(steps=500), toy.batch(), toy.victim, Linf(0.2))
    assert cost.forwards.max() <= 2 * COMPACT_EVERY + 2


@pytest.mark.parametrize("floor", [-0.1, 0.1], ids=["fooled-on-the-way", "never-fooled"])
def test_pgd_keeps_its_best_iterate(floor):
    """The ascent runs through a narrow band of lowest quality and far beyond it, so its last image is not the one to return."""

    class Band(LinearVictim):
        def quality(self, outputs, targets):
            return (super().quality(outputs, targets) - 1).abs() + floor

        def loss(self, outputs, targets, name, progress):
            return -super().quality(outputs, targets)

    batch, victim = toys()["classification"].batch(), Band()
    found, _ = attack_it(PGD(steps=60, step_size=0.02, random_start=False), batch, victim, Linf(0.06))  # 0.18 of margin a step
    assert (victim.quality(victim(found), batch.targets) < floor + 0.1).all()


@pytest.mark.parametrize("read_every", [1, 3])
def test_read_every_says_how_often_the_verdict_is_read(read_every):
    class Costly(ToyDetector):
        looks = 0

        def fooled(self, outputs, targets):
            self.looks += 1
            return super().fooled(outputs, targets)

    Costly.read_every = read_every
    victim, batch = Costly(), toys()["detection"].batch()
    attack_it(PGD(steps=12), batch, victim, Linf(1e-4))
    assert victim.looks == 12 // read_every + 1


def test_restarts_attack_the_survivors_and_keep_the_best():
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    radius = victim.radius(batch.images, Linf)
    threat_model = Linf(float(radius[2:4].mean()))
    found, cost = attack_it(Restarts(PGD(steps=10, step_size=1.0), 3), batch, victim, threat_model)
    assert victim.fooled(victim(found), batch.targets).tolist() == [True] * 3 + [False] * 3
    assert cost.backwards[3:].tolist() == [30] * 3
    assert (cost.backwards[:3] <= 10).all()
    one, _ = attack_it(Noise(draws=1), batch, victim, threat_model)
    many, _ = attack_it(Restarts(Noise(draws=1), 20), batch, victim, threat_model)
    quality = [victim.quality(victim(x), batch.targets) for x in (one, many)]
    assert (quality[1] <= quality[0]).all()
    assert (quality[1] < quality[0]).sum() >= 4  # each restart draws anew


def test_restarts_are_what_they_wrap():
    assert Restarts(Noise(), 2).access == "score"
    assert Restarts(PGD(), 2).tasks is None
    with pytest.raises(ValueError, match="at least one"):
        Restarts(PGD(), 0)


def test_seeds_choose_the_random_start():
    toy = toys()["segmentation"]
    batch = toy.batch()
    with generators_unused("pgd"):
        runs = [attack_it(PGD(steps=1), batch, toy.victim, Linf(1e-3), streams=Streams(seed, batch.ids))[0] for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


class TestBest:
    images = torch.zeros(3, 3, 2, 2)

    @staticmethod
    def feedback(quality, fooled):
        return Feedback(torch.zeros(len(quality)), lambda: torch.tensor(fooled), lambda: torch.tensor(quality))

    def test_it_is_clean_before_the_first_update(self):
        best = Best(self.images)
        assert torch.equal(best.images, self.images)
        assert best.images is not self.images

    def test_the_lowest_quality_wins_until_an_image_is_fooled(self):
        best = Best(self.images)
        best.update(self.images + 0.1, self.feedback([1.0, 1.0, 1.0], [False, False, True]))
        best.update(self.images + 0.2, self.feedback([0.5, 2.0, 0.1], [False, False, True]))
        best.update(self.images + 0.3, self.feedback([0.7, 5.0, 0.0], [False, True, False]))
        assert best.images[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.3, 0.1])
        assert best.fooled.tolist() == [False, True, True]

    def test_a_part_is_updated_in_its_place(self):
        best = Best(self.images)
        where = torch.tensor([True, False, True])
        best.update(self.images[:2] + 0.1, self.feedback([1.0, -1.0], [False, True]), where)
        assert best.images[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.0, 0.1])
        assert best.fooled.tolist() == [False, False, True]
        assert best.quality.tolist() == [1.0, float("inf"), -1.0]

    def test_nan_is_not_better(self):
        best = Best(self.images)
        best.update(self.images + 0.1, self.feedback([float("nan")] * 3, [False] * 3))
        assert torch.equal(best.images, self.images)
