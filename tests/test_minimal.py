"""Searches for the smallest move: against the distances that are known of a linear victim, and what their passes are spent on."""

import pytest
import torch

from sslrob.builtin.carlini_wagner import CarliniWagner
from sslrob.builtin.deepfool import DeepFool
from sslrob.builtin.minimal import DDN, FMN, Smallest, by_margin
from sslrob.errors import SslrobError
from sslrob.objective import Feedback, build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L1, L2, Linf

CW = CarliniWagner(steps=100, searches=4, weight=0.3)
ALL = [
    *[pytest.param(FMN(), norm, 0.005, id=f"fmn-{norm.__name__}") for norm in (Linf, L2, L1)],
    *[pytest.param(DeepFool(overshoot=0), norm, 0.01, id=f"deepfool-{norm.__name__}") for norm in (Linf, L2)],
    pytest.param(DDN(), L2, 0.005, id="ddn"),
    pytest.param(CW, L2, 0.01, id="carlini-wagner"),
]


def attack_it(attack, batch, victim, threat_model, *, name="task", seed=0):
    objective = build(name, victim, batch, attack.access)
    found = attack.perturb(objective, batch.images.clone(), threat_model, streams=Streams(seed, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost


@pytest.mark.parametrize(("attack", "norm", "excess"), ALL)
def test_the_known_distance_is_found_and_nothing_is_won_within_it(attack, norm, excess):
    """The smallest move reaches the border of a linear victim, up to `excess` of its distance."""
    toy = toys()["classification"]
    batch = toy.batch()
    radius = toy.victim.radius(batch.images, norm)
    found, _ = attack_it(attack, batch, toy.victim, norm(float(radius.max()) * 1.5))
    assert toy.victim.fooled(toy.victim(found), batch.targets).all()
    ratio = norm(1.0).distance(found, batch.images) / radius
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1 + excess).all()
    middle = norm(float(radius.median()) * 1.02)
    found, _ = attack_it(attack, batch, toy.victim, middle)
    assert torch.equal(toy.victim.fooled(toy.victim(found), batch.targets), radius < middle.epsilon)


def test_deepfool_overshoots_by_what_it_is_told():
    toy = toys()["classification"]
    batch = toy.batch()
    found, cost = attack_it(DeepFool(overshoot=0.1), batch, toy.victim, L2(2.0))
    ratio = L2(1.0).distance(found, batch.images) / toy.victim.radius(batch.images, L2)
    assert ratio.tolist() == pytest.approx([1.1] * 6, abs=1e-3)
    assert cost.forwards.tolist() == [2] * 6
    assert cost.backwards.tolist() == [1] * 6


def test_what_deepfool_costs_an_image_depends_on_no_other():
    class Steep(LinearVictim):
        """The farther from the border, the more steps back to it."""

        def forward(self, images):
            return super().forward(images).sinh()

    batch = toys()["classification"].batch()
    _, together = attack_it(DeepFool(), batch, Steep(), L2(2.0))
    alone = [attack_it(DeepFool(), batch[torch.arange(6) == i], Steep(), L2(2.0))[1] for i in range(6)]
    assert len({*together.forwards.tolist()}) > 1
    assert together.forwards.tolist() == [int(cost.forwards) for cost in alone]
    assert together.backwards.tolist() == [int(cost.backwards) for cost in alone]


@pytest.mark.parametrize("attack", [DDN(steps=60), FMN(steps=60)], ids=["ddn", "fmn"])
def test_a_step_costs_one_pass_each_way_and_what_found_nothing_one_more_look(attack):
    toy = toys()["classification"]
    batch = toy.batch()
    threat_model = L2(float(toy.victim.radius(batch.images, L2).median()) * 1.02)
    found, cost = attack_it(attack, batch, toy.victim, threat_model)
    fooled = toy.victim.fooled(toy.victim(found), batch.targets).tolist()
    assert sorted({*fooled}) == [False, True]
    assert cost.forwards.tolist() == [60 if won else 61 for won in fooled]
    assert cost.backwards.tolist() == [60] * 6


def test_carlini_and_wagner_costs_a_pass_each_way_and_ends_a_descent_that_stalls():
    toy = toys()["classification"]
    batch = toy.batch()
    _, cost = attack_it(CarliniWagner(steps=20, searches=2, weight=1.0), batch, toy.victim, L2(3.0))
    assert (cost.forwards <= 40).all()
    assert torch.equal(cost.forwards, cost.backwards)
    _, long = attack_it(CarliniWagner(steps=5000, searches=1, weight=1e-9), batch, toy.victim, L2(3.0))
    assert (long.forwards <= 1002).all()  # nothing gained between the first look and the second


def test_an_image_is_kept_for_as_long_as_its_move_may_shrink():
    """All six are fooled at once; every step is taken for each of them, and each ends at its own distance."""
    toy = toys()["classification"]
    batch = toy.batch()
    few, _ = attack_it(FMN(steps=3), batch, toy.victim, L2(5.0))
    many, cost = attack_it(FMN(steps=40), batch, toy.victim, L2(5.0))
    assert cost.backwards.tolist() == [40] * 6
    assert (L2(1.0).distance(many, batch.images) <= L2(1.0).distance(few, batch.images) + 1e-6).all()


@pytest.mark.parametrize(("kind", "attack"), [("segmentation", FMN(steps=30)), ("detection", DDN(steps=30)), ("segmentation", CW)], ids=str)
def test_without_a_margin_the_verdict_of_the_task_is_the_border(kind, attack):
    """The smallest move after which nothing is right any more; half of it is not enough, and leaves the best allowed image."""
    toy = toys()[kind]
    batch = toy.batch()
    batch = batch[torch.arange(len(batch)) % 3 == 0]  # cross-entropy alone gets the others' pixels nearly all wrong
    found, _ = attack_it(attack, batch, toy.victim, L2(8.0))
    assert toy.victim.fooled(toy.victim(found), batch.targets).all()
    distance = L2(1.0).distance(found, batch.images)
    less, _ = attack_it(attack, batch, toy.victim, L2(float(distance.min()) / 2))
    assert not toy.victim.fooled(toy.victim(less), batch.targets).any()
    before, after = (toy.victim.quality(toy.victim(images), batch.targets) for images in (batch.images, less))
    assert (after <= before).all()
    assert (after < before).any()


class Dying(LinearVictim):
    """Zero gradients for the first image, infinite ones for the second, NaN for the third."""

    def loss(self, outputs, targets, name, progress):
        scale = torch.ones_like(outputs)
        scale[:3] = torch.tensor([0.0, torch.inf, torch.nan])[: len(scale)]
        return super().loss(outputs, targets, name, progress) * scale

    def margins(self, outputs, targets):
        scale = torch.ones_like(outputs)
        scale[:3] = torch.tensor([0.0, torch.inf, torch.nan])[: len(scale)]
        return super().margins(outputs * scale, targets)


@pytest.mark.parametrize("attack", [DDN(steps=5), FMN(steps=5), CarliniWagner(steps=5, searches=2), DeepFool(steps=5)], ids=str)
def test_gradients_that_are_not_finite_leave_the_image_allowed(attack):
    batch = toys()["classification"].batch()
    found, cost = attack_it(attack, batch, Dying(), L2(1.0))
    assert not found.isnan().any()
    assert cost.dead.tolist()[:3] == cost.backwards.tolist()[:3]


class Plateau(LinearVictim):
    """A loss whose gradient is zero around the first image, as a saturated softmax's is."""

    def loss(self, outputs, targets, name, progress):
        flat = (outputs - 2).abs() < 0.01
        return super().loss(outputs, targets, name, progress).masked_fill(flat, -2)


@pytest.mark.parametrize("attack", [DDN(), FMN()], ids=["ddn", "fmn"])
def test_without_a_gradient_a_random_direction_is_tried(attack):
    toy = toys()["classification"]
    batch, victim = toy.batch(), Plateau()
    one = batch[torch.arange(6) == 0]
    runs = [attack_it(attack, one, victim, L2(8.0), seed=seed)[0] for seed in (0, 0)]
    assert torch.equal(runs[0], runs[1])
    assert victim.fooled(victim(runs[0]), one.targets).all()


def test_deepfool_is_for_victims_with_a_finite_list_of_wrong_answers():
    toy = toys()["segmentation"]
    batch = toy.batch()
    with pytest.raises(SslrobError, match="finite list of wrong answers"):
        attack_it(DeepFool(), batch, toy.victim, L2(1.0))


def test_a_margin_replaces_the_loss_unless_one_was_asked_for():
    class TwoLosses(LinearVictim):
        losses = ("logistic", "margin")

    batch = toys()["classification"].batch()
    margin, asked, plain = (by_margin(build(name, TwoLosses(), batch, "white-box")) for name in ("task", "task:logistic", "task:margin"))
    assert torch.equal(margin(batch.images).loss, plain(batch.images).loss)
    assert not torch.equal(asked(batch.images).loss, plain(batch.images).loss)
    segments = toys()["segmentation"]
    objective = build("task", segments.victim, segments.batch(), "white-box")
    assert by_margin(objective) is objective


def test_a_margin_is_found_by_victims_whose_cascade_has_one_loss():
    class OneLoss(LinearVictim):
        losses, strongest = ("logistic", "margin"), ("logistic",)

    assert by_margin(build("task", OneLoss(), toys()["classification"].batch(), "white-box")).name == "margin"


class TestSmallest:
    images = torch.zeros(3, 3, 2, 2)

    @staticmethod
    def feedback(quality, fooled):
        return Feedback(torch.zeros(len(quality)), lambda: torch.tensor(fooled), lambda: torch.tensor(quality))

    def test_the_nearest_that_fools_wins_and_before_that_the_lowest_quality(self):
        smallest = Smallest(self.images, Linf(0.25))
        assert torch.equal(smallest.result(), self.images)
        smallest.update(self.images + 0.2, self.feedback([1.0, 1.0, -1.0], [False, False, True]))
        smallest.update(self.images + 0.1, self.feedback([2.0, 0.5, -0.1], [False, False, True]))
        smallest.update(self.images + 0.3, self.feedback([-5.0, -5.0, -5.0], [True, True, True]))
        assert smallest.result()[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1, 0.1])
        assert smallest.distance.tolist() == pytest.approx([torch.inf, torch.inf, 0.1])
        assert smallest.nearest.tolist() == pytest.approx([0.3, 0.3, 0.1])

    def test_where_another_victim_judges_the_lowest_quality_wins_throughout(self):
        smallest = Smallest(self.images, Linf(0.25))
        for size, quality in ((0.2, -1.0), (0.1, -0.1), (0.3, -5.0)):
            look = self.feedback([quality] * 3, [True] * 3)
            look.final = False
            smallest.update(self.images + size, look)
        assert smallest.result()[:, 0, 0, 0].tolist() == pytest.approx([0.2] * 3)
        assert smallest.distance.tolist() == [torch.inf] * 3
        assert smallest.nearest.tolist() == pytest.approx([0.1] * 3)

    def test_a_part_is_updated_in_its_place(self):
        smallest = Smallest(self.images, Linf(0.25))
        smallest.update(self.images[:2] + 0.1, self.feedback([1.0, -1.0], [False, True]), torch.tensor([0, 2]))
        assert smallest.result()[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.0, 0.1])
        assert smallest.distance.isfinite().tolist() == [False, False, True]
