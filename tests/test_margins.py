"""What an objective says of wrong answers: margins, targets, other losses of the same victim; and the losses of scores."""

import pytest
import torch
from torch.nn import functional as F

from sslrob.attack import Attack, Best
from sslrob.builtin import scores
from sslrob.builtin.cascade import in_turn
from sslrob.builtin.classification import LinearClassifier
from sslrob.builtin.gradient import FGSM, PGD
from sslrob.builtin.noise import Noise
from sslrob.data import Batch
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import ToyBackbone, toys
from sslrob.threat_model import Linf

CLASSES = 5


@pytest.fixture
def victim():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LinearClassifier(ToyBackbone(), CLASSES).eval().requires_grad_(False)


@pytest.fixture
def batch(victim):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(tuple("abcdef"), images, tuple(victim(images).argmax(1).tolist()))


def logits(n=7, classes=CLASSES):
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def test_margins_are_differences_of_scores():
    z, labels = logits()
    margins = scores.margins(z, labels)
    for i, label in enumerate(labels.tolist()):
        assert margins[i, label] == torch.inf
        others = [k for k in range(CLASSES) if k != label]
        assert torch.allclose(margins[i, others], z[i, label] - z[i, others])
    assert torch.equal(margins.amin(1), scores.lead(z, labels))


def test_dlr_is_the_papers():
    """Equation 6 of Croce & Hein 2020, and equation 8 for the targeted one."""
    z, labels = logits()
    aims = (labels + 1) % CLASSES
    for i, (y, t) in enumerate(zip(labels.tolist(), aims.tolist(), strict=True)):
        ordered = z[i].sort(descending=True).values
        best_wrong = max(z[i, k] for k in range(CLASSES) if k != y)
        assert float(scores.dlr(z, labels)[i]) == pytest.approx(float(-(z[i, y] - best_wrong) / (ordered[0] - ordered[2])), rel=1e-5)
        wanted = -(z[i, y] - z[i, t]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)
        assert float(scores.pull(z, labels, aims, "dlr-targeted")[i]) == pytest.approx(float(wanted), rel=1e-5)


def test_dlr_knows_no_scale_and_no_shift():
    z, labels = logits()
    aims = (labels + 2) % CLASSES
    for loss in (lambda z: scores.dlr(z, labels), lambda z: scores.pull(z, labels, aims, "dlr-targeted")):
        assert torch.allclose(loss(1000 * z + 7), loss(z), atol=1e-4)
    assert torch.allclose(scores.pull(z, labels, aims, "ce-targeted"), z.log_softmax(1).gather(1, aims[:, None])[:, 0])
    behind = scores.pull(z, labels, aims, "margin-targeted")
    assert torch.allclose(behind, -scores.margins(z, labels).gather(1, aims[:, None])[:, 0])


def test_dlr_of_few_classes():
    z, labels = logits(classes=3)
    aims = (labels + 1) % 3
    ordered = z.sort(dim=1, descending=True).values
    wanted = scores.pull(z, labels, aims, "margin-targeted") / (ordered[:, 0] - ordered[:, 2])
    assert torch.allclose(scores.pull(z, labels, aims, "dlr-targeted"), wanted)
    z, labels = logits(classes=2)
    assert torch.equal(scores.dlr(z, labels), -scores.lead(z, labels))
    assert torch.equal(scores.pull(z, labels, 1 - labels, "dlr-targeted"), -scores.lead(z, labels))


def test_one_look_gives_margins_and_all_the_rest(victim, batch):
    objective = build("task", victim, batch, "white-box")
    x = batch.images.clone().requires_grad_()
    margins, feedback = objective.margins(x)
    assert margins.shape == (6, CLASSES)
    assert torch.equal(feedback.quality, margins.detach().amin(1))
    for column in (0, 1):
        torch.autograd.grad(margins[:, column].masked_fill(margins[:, column].isinf(), 0).sum(), x, retain_graph=True)
    assert objective.cost.forwards.tolist() == [1] * 6
    assert objective.cost.backwards.tolist() == [2] * 6
    shown, _ = build("task", victim, batch, "score").margins(x)
    assert not shown.requires_grad
    with pytest.raises(ValueError, match="right or wrong"):
        build("task", victim, batch, "decision").margins(x)


def test_targets_are_the_likeliest_wrong_answers_of_the_clean_image(victim, batch):
    objective = build("task", victim, batch, "white-box")
    z, labels = victim(batch.images), torch.tensor(batch.targets)
    wrong = z.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    keep = torch.tensor([True, False, True, True, False, True])
    for rank in range(1, CLASSES):
        aims = wrong[:, rank - 1]
        found = objective.towards(rank)(batch.images).loss
        assert torch.allclose(found, scores.pull(z, labels, aims, "dlr-targeted"))
        part = objective.towards(rank)[keep]
        assert torch.allclose(part(batch.images[keep]).loss, found[keep], atol=1e-6)
        cross = part.raising("ce-targeted")(batch.images[keep]).loss
        assert torch.allclose(cross, -F.cross_entropy(z, aims, reduction="none")[keep], atol=1e-6)
    assert objective.rivals == CLASSES - 1
    assert objective.cost.forwards.tolist() == [1 + 4 + 8 * int(k) for k in keep]  # the clean images are looked at once for all ranks
    for rank in (0, CLASSES):
        with pytest.raises(SslrobError, match=f"{rank}-th likeliest of 4"):
            objective.towards(rank)


def test_a_loss_that_was_asked_for_has_its_targeted_form(victim, batch):
    targeted = {"task": "dlr-targeted", "task:ce": "ce-targeted", "task:margin": "margin-targeted", "task:dlr": "dlr-targeted"}
    assert {name: build(name, victim, batch, "white-box").towards(1).loss for name in targeted} == targeted


def test_a_part_looks_at_its_own_clean_images_only(victim, batch):
    objective = build("task", victim, batch, "white-box")
    keep = torch.tensor([True, False, True, True, False, True])
    part = objective[keep].towards(2)
    assert objective.cost.forwards.tolist() == [1, 0, 1, 1, 0, 1]
    whole = objective.towards(2)
    assert objective.cost.forwards.tolist() == [2, 1, 2, 2, 1, 2]
    assert torch.equal(whole.aims[keep], part.aims)


def test_the_same_goal_by_another_loss(victim, batch):
    objective = build("task", victim, batch, "white-box")
    for loss in victim.losses:
        wanted = build(f"task:{loss}", victim, batch, "white-box")(batch.images)
        found = objective.raising(loss)(batch.images)
        assert torch.equal(found.loss, wanted.loss)
        assert torch.equal(found.quality, wanted.quality)
    assert objective.cost.forwards.tolist() == [3] * 6
    with pytest.raises(SslrobError, match="'dlr-targeted'"):
        objective.raising("dlr-targeted")  # it has no target
    with pytest.raises(SslrobError, match="'dlr'"):
        objective.towards(1).raising("dlr")


def test_the_strongest_losses(victim, batch):
    assert [goal.loss for goal in build("task", victim, batch, "white-box").strongest()] == ["ce", "dlr"]
    assert [goal.loss for goal in build("task:margin", victim, batch, "white-box").strongest()] == ["margin"]
    toy = toys()["segmentation"]
    assert [goal.loss for goal in build("task", toy.victim, toy.batch(), "white-box").strongest()] == ["ce", "segpgd"]
    embedding = build("embedding", victim, batch, "white-box")
    assert embedding.strongest() == (embedding,)


@pytest.mark.parametrize(("kind", "name"), [("segmentation", "task"), ("detection", "task"), ("classification", "embedding")])
def test_goals_without_a_list_of_wrong_answers_say_so(kind, name):
    toy = toys()[kind]
    batch = toy.batch()
    objective = build(name, toy.victim, batch, "white-box")
    assert objective.rivals == 0
    for ask in (lambda: objective.towards(1), lambda: objective.margins(batch.images), lambda: objective.raising("nothing")):
        with pytest.raises(SslrobError):
            ask()


def test_access_can_be_taken_but_not_given(victim, batch):
    objective = build("task", victim, batch, "score")
    assert objective.granting("decision").access == "decision"
    assert objective.granting("white-box").access == "score"
    x = batch.images.clone().requires_grad_()
    assert not build("task", victim, batch, "white-box").granting("score")(x).loss.requires_grad


class TestInTurn:
    def in_turn(self, *attacks):
        toy = toys()["classification"]
        batch = toy.batch()
        objective = build("task", toy.victim, batch, "white-box")
        stages = [(type(attack).__name__.lower(), attack, objective) for attack in attacks]
        threat_model = Linf(float(toy.victim.radius(batch.images, Linf)[2:4].mean()))
        found = in_turn(stages, batch.images, threat_model, streams=Streams(0, batch.ids))
        return toy.victim.fooled(toy.victim(found), batch.targets).tolist(), objective.cost

    def test_survivors_only(self):
        fooled, cost = self.in_turn(FGSM(), PGD(steps=4, random_start=False))
        assert fooled == [True] * 3 + [False] * 3
        assert cost.backwards.tolist() == [1] * 3 + [5] * 3
        assert cost.forwards.tolist() == [2] * 3 + [2 + 5 + 1] * 3  # each attack's images are judged once more
        assert cost.fooled_by == dict.fromkeys(range(3), ("fgsm", "white-box"))

    def test_a_later_attack_gets_the_credit_for_what_it_fooled(self):
        fooled, cost = self.in_turn(Noise(draws=1), FGSM())
        assert fooled == [True] * 3 + [False] * 3
        assert cost.fooled_by == dict.fromkeys(range(3), ("fgsm", "white-box"))

    def test_a_weaker_attack_sees_no_more_than_its_access(self):
        seen = []

        class Peeking(Attack):
            access = "score"

            def perturb(self, objective, images, threat_model, *, streams):
                seen.append(objective.access)
                return Best(images).images

        self.in_turn(Peeking(), FGSM())
        assert seen == ["score"]
