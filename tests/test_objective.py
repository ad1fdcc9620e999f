"""What an objective reveals, counts and hides."""

import pytest
import torch

from sslrob.builtin.gradient import FGSM, PGD
from sslrob.errors import SslrobError
from sslrob.evaluate import at_rest
from sslrob.objective import build, names
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, ToySegmenter, toys
from sslrob.threat_model import L1, L2, Linf


@pytest.fixture
def toy():
    return toys()["segmentation"]


def test_white_box_carries_a_graph_to_the_images(toy):
    batch = toy.batch()
    x = batch.images.clone().requires_grad_()
    feedback = build("task", toy.victim, batch, "white-box")(x)
    (gradient,) = torch.autograd.grad(feedback.loss.sum(), x)
    assert gradient.flatten(1).any(1).all()
    assert not feedback.quality.requires_grad


def test_score_reveals_numbers_but_no_graph(toy):
    batch = toy.batch()
    x = batch.images.clone().requires_grad_()
    feedback = build("task", toy.victim, batch, "score")(x)
    assert not feedback.loss.requires_grad
    white = build("task", toy.victim, batch, "white-box")(batch.images)
    assert torch.equal(feedback.loss, white.loss)
    assert torch.equal(feedback.quality, white.quality)


@pytest.mark.parametrize("attack", [PGD(), FGSM()])
def test_a_gradient_attack_gets_nothing_from_less_access(attack, toy):
    batch = toy.batch()
    for access in ("score", "decision"):
        with pytest.raises(RuntimeError, match="does not require grad"):
            attack.perturb(build("task", toy.victim, batch, access), batch.images, Linf(0.01), streams=Streams(0, batch.ids))


def test_decision_reveals_right_or_wrong_and_nothing_else(toy):
    batch = toy.batch()
    objective = build("task", toy.victim, batch, "decision")
    flat = torch.full_like(batch.images, 0.5)
    flat[:, 0] = 0.6  # class 0 everywhere: about a third of the pixels stays right
    half = objective(flat)
    assert 0 < float(toy.victim.quality(toy.victim(flat), batch.targets)[0]) < 1
    for feedback in (objective(batch.images), half):
        assert feedback.loss.tolist() == feedback.fooled.float().tolist() == [0.0] * 4
        assert feedback.quality.tolist() == [0.0] * 4
        assert not feedback.loss.requires_grad
    wrong = torch.stack([target.roll(4, dims=1) for target in batch.targets])
    painted = torch.nn.functional.one_hot(wrong, 3).permute(0, 3, 1, 2).float()
    fooled = build("task", toy.victim, batch, "decision")(painted)
    assert torch.equal(fooled.fooled, build("task", toy.victim, batch, "white-box")(painted).fooled)
    assert fooled.loss.tolist() == (-fooled.quality).tolist() == fooled.fooled.float().tolist()


def test_cost_is_counted_for_each_image_alone(toy):
    batch = toy.batch()
    objective = build("task", toy.victim, batch, "white-box")
    x = batch.images.clone().requires_grad_()
    torch.autograd.grad(objective(x).loss.sum(), x)
    objective(batch.images)  # a look without a gradient
    keep = torch.tensor([False, True, False, True])
    part = objective[keep]
    assert len(part) == 2
    y = batch.images[keep].requires_grad_()
    torch.autograd.grad(part(y).loss.sum(), y)
    last = part[torch.tensor([False, True])]
    last(batch.images[3:])
    assert objective.cost.forwards.tolist() == [2, 3, 2, 4]
    assert objective.cost.backwards.tolist() == [1, 2, 1, 2]
    assert objective.cost.dead.tolist() == [0, 0, 0, 0]


def test_a_part_is_about_its_own_images(toy):
    batch = toy.batch()
    keep = torch.tensor([False, True, False, True])
    for name in ("task", "embedding"):
        objective = build(name, toy.victim, batch, "white-box")
        moved = (batch.images + 0.03 * torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
        whole, part = objective(moved), objective[keep](moved[keep])
        assert torch.allclose(part.loss, whole.loss[keep], atol=1e-6)
        assert torch.allclose(part.quality, whole.quality[keep], atol=1e-6)
        assert torch.equal(part.fooled, whole.fooled[keep])
    with pytest.raises(ValueError, match="about 2 images, not 4"):
        objective[keep](moved)


class Dying(LinearVictim):
    """Zero gradients for the first image, infinite ones for the second, NaN for the third."""

    def loss(self, outputs, targets, name, progress):
        scale = torch.ones_like(outputs)
        scale[:3] = torch.tensor([0.0, torch.inf, torch.nan])[: len(scale)]
        return super().loss(outputs, targets, name, progress) * scale


def test_dead_gradients_are_counted():
    batch = toys()["classification"].batch()
    objective = build("task", Dying(), batch, "white-box")
    x = batch.images.clone().requires_grad_()
    torch.autograd.grad(objective(x).loss.sum(), x)
    assert objective.cost.dead.tolist() == [1, 1, 1, 0, 0, 0]
    assert objective.cost.backwards.tolist() == [1] * 6


@pytest.mark.parametrize("attack", [PGD(steps=3), FGSM()], ids=["pgd", "fgsm"])
@pytest.mark.parametrize("threat_model", [Linf(0.01), L2(0.1), L1(1.0)], ids=str)
def test_gradients_that_are_not_finite_leave_the_image_allowed(attack, threat_model):
    """The attack is blind there, which is a flag of the result; it is no reason to break off."""
    batch = toys()["classification"].batch()
    objective = build("task", Dying(), batch, "white-box")
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    assert objective.cost.dead.tolist()[:3] == objective.cost.backwards.tolist()[:3]


def test_verdicts_are_computed_when_read():
    class Counting(ToySegmenter):
        looks = 0

        def fooled(self, outputs, targets):
            self.looks += 1
            return super().fooled(outputs, targets)

    victim, batch = Counting(), toys()["segmentation"].batch()
    feedback = build("task", victim, batch, "white-box")(batch.images)
    assert victim.looks == 0
    assert feedback.fooled is feedback.fooled
    assert victim.looks == 1


def test_progress_reaches_the_loss(toy):
    batch = toy.batch()
    objective = build("task:segpgd", toy.victim, batch, "white-box")
    assert torch.equal(objective(batch.images, progress=0.0).loss, 2 * objective(batch.images, progress=1.0).loss)


def test_embedding_has_no_labels_and_never_says_fooled(toy):
    batch = toy.batch()
    with at_rest(toy.victim):
        objective = build("embedding", toy.victim, batch, "white-box")
        clean = objective(batch.images)
        assert torch.allclose(clean.loss, torch.zeros(4), atol=1e-6)
        found = PGD().perturb(objective, batch.images, Linf(16 / 255), streams=Streams(0, batch.ids))
        moved = objective(found)
    assert (moved.loss > clean.loss + 0.1).all()
    assert torch.equal(moved.quality, -moved.loss)
    assert not moved.fooled.any()


def test_names(toy):
    assert names(toy.victim) == ["task", "task:ce", "task:segpgd", "embedding", "activation"]
    for name in names(toy.victim):
        build(name, toy.victim, toy.batch(), "white-box")(toy.batch().images)


@pytest.mark.parametrize(("name", "hint"), [("task:cee", "'task:ce'"), ("embeding", "'embedding'"), ("x", "known: task")])
def test_unknown_names(toy, name, hint):
    with pytest.raises(SslrobError) as caught:
        build(name, toy.victim, toy.batch(), "white-box")
    assert repr(name) in str(caught.value)
    assert hint in caught.value.hint


def test_a_victim_without_a_backbone_has_no_embedding(toy):
    class Whole(ToySegmenter):
        @property
        def backbone(self):
            return None

    assert "embedding" not in names(Whole())
    with pytest.raises(SslrobError, match="no objective"):
        build("embedding", Whole(), toy.batch(), "white-box")
