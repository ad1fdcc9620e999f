"""Objectives on the backbone: their names, their closed forms, and that every head of a backbone meets the same images."""

import pytest
import torch
from torch.nn import functional as F

from sslrob.builtin.gradient import PGD
from sslrob.data import Batch, batches
from sslrob.errors import SslrobError
from sslrob.evaluate import Question, evaluate
from sslrob.objective import build, names
from sslrob.representation import ROUNDING, Goal, Guides
from sslrob.streams import Streams
from sslrob.testing import ToyBackbone, ToyDataset, toys
from sslrob.threat_model import L2, Linf


@pytest.fixture
def toy():
    """Stripes; the backbone is the identity less grey, and its embedding the mean colour."""
    return toys()["segmentation"]


def moved(images, seed=0):
    return (images + 0.03 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def attacked(name, toy, threat_model, guide=None, steps=40):
    batch = toy.batch()
    objective = build(name, toy.victim, batch, "white-box", guide)
    found = PGD(steps=steps, step_size=0.1).perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids))
    with torch.no_grad():
        return found, objective(found).loss


# names


@pytest.mark.parametrize(
    ("name", "shortest"),
    [
        ("embedding", "embedding"),
        ("embedding:cosine:pooled", "embedding"),
        ("embedding:l2", "embedding:l2"),
        ("embedding:target:map0+map1:l2", "embedding:l2:map0+map1:target"),
        ("embedding:tokens", "embedding:tokens"),
        ("activation", "activation:lift"),
        ("activation:map0", "activation:lift"),
        ("activation:map1:lift", "activation:lift:map1"),
        ("activation:log-lift:all", "activation:log-lift"),
        ("activation:dispersion", "activation:dispersion"),
        ("activation:dispersion:pooled", "activation:dispersion:pooled"),
    ],
)
def test_one_meaning_has_one_name(name, shortest):
    assert str(Goal.parse(name)) == shortest
    assert Goal.parse(shortest) == Goal.parse(name)


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("embedding:token", "no word 'token'", "'tokens'"),
        ("embedding:l1", "no word 'l1'", "'l2'"),
        ("embedding:lift", "no word 'lift'", "cosine, l2"),
        ("embedding:", "no word ''", "the words after 'embedding'"),
        ("embedding:map", "no word 'map'", "'map0'"),
        ("embedding:map1+", "no word 'map1+'", ""),
        ("embedding:l2:cosine", "two of a sort, 'l2' and 'cosine'", "keep one"),
        ("embedding:map0:map1", "two of a sort", "keep one"),
        ("embedding:target:target", "two of a sort", "keep one"),
        ("activation:target", "no word 'target'", ""),
        ("activation:dispersal", "no word 'dispersal'", "'dispersion'"),
        ("embedding:map7", "asks for map7, but the backbone has map0 to map1", "map0 to map1"),
    ],
)
def test_names_that_mean_nothing(toy, name, says, hint):
    with pytest.raises(SslrobError) as caught:
        build(name, toy.victim, toy.batch(), "white-box")
    assert says in str(caught.value)
    assert hint in caught.value.hint


def test_a_backbone_with_one_map_names_it():
    with pytest.raises(SslrobError, match="asks for map1, but the backbone has map0"):
        Goal.parse("embedding:map1").levels(1)


def test_what_a_place_means():
    assert [Goal.parse(f"embedding:{place}").levels(4) for place in ("pooled", "tokens", "middle", "all", "map3+map0")] == [
        [],
        [3],
        [2],
        [0, 1, 2, 3],
        [3, 0],
    ]
    assert Goal.parse("embedding:middle").levels(1) == [0]


def test_both_kinds_are_offered_where_a_backbone_shows(toy):
    assert names(toy.victim)[-2:] == ["embedding", "activation"]


# values


def test_the_usual_one_is_the_cosine_of_the_pooled_embedding_to_the_last_bit(toy):
    """As runs before there were any others computed it."""
    batch = toy.batch()
    x, y = moved(batch.images).requires_grad_(), moved(batch.images).requires_grad_()
    loss = build("embedding", toy.victim, batch, "white-box")(x).loss
    with torch.no_grad():
        anchors = toy.victim.backbone(batch.images).pooled
    pooled = toy.victim.backbone(y).pooled
    there = (pooled.detach() - anchors).norm(dim=1) <= ROUNDING * anchors.norm(dim=1)
    before = (1 - F.cosine_similarity(pooled, anchors)).masked_fill(there, 0)
    assert torch.equal(loss, before)
    assert torch.equal(torch.autograd.grad(loss.sum(), x)[0], torch.autograd.grad(before.sum(), y)[0])


@pytest.mark.parametrize("place", ["tokens", "map1", "map0+map1", "all"])
@pytest.mark.parametrize("measure", ["cosine", "l2"])
def test_a_distance_of_maps_is_the_mean_over_positions(toy, place, measure):
    batch, x = toy.batch(), moved(toy.batch().images)
    clean, now = toy.victim.backbone(batch.images).maps, toy.victim.backbone(x).maps
    wanted = torch.zeros(4)
    for i in Goal.parse(f"embedding:{place}").levels(2):
        for image in range(4):
            pairs = [(now[i][image, :, r, c], clean[i][image, :, r, c]) for r in range(now[i].shape[2]) for c in range(now[i].shape[3])]
            apart = [(a - b).norm() if measure == "l2" else 1 - a @ b / a.norm() / b.norm() for a, b in pairs]
            wanted[image] += torch.stack(apart).mean().detach()
    loss = build(f"embedding:{measure}:{place}", toy.victim, batch, "white-box")(x).loss
    assert torch.allclose(loss, wanted, atol=1e-5)


def test_activations_are_what_they_are_called(toy):
    batch, x = toy.batch(), moved(toy.batch().images)
    fine, coarse = (m.flatten(1).detach() for m in toy.victim.backbone(x).maps)

    def loss(name):
        return build(name, toy.victim, batch, "white-box")(x).loss

    assert torch.allclose(loss("activation:lift"), fine.square().mean(1))
    assert torch.allclose(loss("activation:log-lift"), fine.square().mean(1).log() + coarse.square().mean(1).log())
    assert torch.allclose(loss("activation:dispersion:map0"), -fine.std(1))


@pytest.mark.parametrize("name", ["embedding:l2", "embedding:tokens", "activation:log-lift", "activation:dispersion"])
def test_where_nothing_moves_the_gradient_is_zero_or_finite(toy, name):
    batch = Batch(("a",), torch.full((1, 3, 8, 8), 0.5), (None,))  # grey: the embedding is zero
    x = batch.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(build(name, toy.victim, batch, "white-box")(x).loss.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "name", ["embedding:l2", "embedding:tokens", "embedding:cosine:all", "embedding:l2:target", "activation:lift", "activation:dispersion"]
)
def test_a_part_is_about_its_own_images_and_labels_are_never_looked_at(toy, name):
    class Secret:
        def __getattribute__(self, word):
            raise AssertionError("looked at a label")

    batch = toy.batch()
    batch = Batch(batch.ids, batch.images, tuple(Secret() for _ in batch.targets))
    objective = build(name, toy.victim, batch, "white-box", lambda found: found.images.flip(3))
    keep, x = torch.tensor([False, True, False, True]), moved(batch.images)
    whole, part = objective(x), objective[keep](x[keep])
    assert torch.allclose(part.loss, whole.loss[keep], atol=1e-6)
    assert torch.equal(whole.quality, -whole.loss)
    assert not whole.fooled.any()


# strength: the embedding of the toy backbone is the mean colour, linear in the pixels


@pytest.mark.parametrize(
    ("name", "passes"),
    [("embedding", 6), ("embedding:l2:tokens", 6), ("embedding:target", 6), ("activation", 5), ("activation:dispersion", 5)],
)
def test_every_pass_is_counted(toy, name, passes):
    """Also the one of the clean image, or of the image to pull towards, before the attack begins."""
    looked_at = []
    toy.victim.body.register_forward_hook(lambda module, images, features: looked_at.append(len(images[0])))
    batch = toy.batch()
    objective = build(name, toy.victim, batch, "white-box", lambda batch: batch.images.flip(0))
    PGD(steps=4).perturb(objective, batch.images, Linf(0.03), streams=Streams(0, batch.ids))
    assert objective.cost.forwards.tolist() == [passes] * 4 == [len(looked_at)] * 4
    assert objective.cost.backwards.tolist() == [4] * 4


def test_l2_reaches_what_a_linear_backbone_allows(toy):
    inside = ToyDataset(toy.dataset.images[:2], toy.dataset.targets[:2], "f")  # no pixel near black or white
    toy = toy._replace(dataset=inside)
    _, loss = attacked("embedding:l2", toy, Linf(0.02))
    assert torch.allclose(loss, torch.full((2,), 0.02 * 3**0.5), rtol=0.01)
    _, loss = attacked("embedding:l2", toy, L2(0.5))
    assert torch.allclose(loss, torch.full((2,), 0.5 / 8), rtol=0.01)  # spread over 8 × 8 pixels, whose mean it moves
    _, loss = attacked("embedding:l2:map0", toy, Linf(0.02))
    assert torch.allclose(loss, torch.full((2,), 0.02 * 3**0.5), rtol=0.01)


def test_a_target_is_met_where_it_is_in_reach_and_neared_where_it_is_not(toy):
    batch = toy.batch()
    near = (batch.images + torch.tensor([0.03, -0.02, 0.01])[:, None, None]).clamp(0, 1)
    with torch.no_grad():
        before = (toy.victim.backbone(batch.images).pooled - toy.victim.backbone(near).pooled).norm(dim=1)
    _, loss = attacked("embedding:l2:target", toy, Linf(0.04), lambda found: near, steps=80)
    assert (-loss < 0.15 * before).all()
    _, loss = attacked("embedding:l2:target", toy, Linf(0.01), lambda found: near)
    left = (torch.tensor([0.03, 0.02, 0.01]) - 0.01).norm()
    assert torch.allclose(-loss, left.expand(4), atol=2e-3)


def test_a_target_needs_images(toy):
    with pytest.raises(ValueError, match="needs images"):
        build("embedding:target", toy.victim, toy.batch(), "white-box")


# which image is the target


def test_a_guide_depends_on_the_image_and_the_seed_alone(toy):
    other = ToyDataset(torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(1)), [0] * 9, "fit")
    batch, guide = toy.batch(), Guides(other, seed=3)
    drawn = guide(batch)
    assert all(any(torch.equal(image, one) for one in other.images) for image in drawn)
    assert torch.equal(drawn, torch.cat([guide(batch[torch.arange(4) == i]) for i in range(4)]))
    assert not torch.equal(drawn, Guides(other, seed=4)(batch))


def test_a_guide_is_brought_to_the_shape_of_the_image(toy):
    large = ToyDataset(torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(1)), [0] * 3, "fit")
    drawn = Guides(large, seed=0)(toy.batch())
    assert drawn.shape == toy.batch().images.shape
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


# every head of a backbone


@pytest.mark.parametrize("objective", ["embedding", "embedding:l2:map1", "embedding:target", "activation:dispersion"])
def test_heads_of_one_backbone_meet_the_same_images(objective, monkeypatch):
    """The task only judges: the same images under the heads of two tasks, and in other batches."""
    found = {}
    monkeypatch.setattr(
        "sslrob.evaluate.require_allowed",
        lambda images, batch, threat_model, attack: [found.setdefault(id, []).append(x) for id, x in zip(batch.ids, images, strict=True)],
    )
    tasks = toys()
    images = tasks["segmentation"].dataset.images
    body = ToyBackbone()
    guide = Guides(tasks["classification"].dataset, seed=0)
    for kind, size in (("classification", 4), ("segmentation", 3)):
        toy = tasks[kind]
        victim = type(toy.victim)()
        victim.body = body
        with torch.no_grad():
            data = ToyDataset(images, victim.predict(victim(images)), "f")
        question = Question(toy.task, victim.eval(), PGD(steps=5), Linf(4 / 255), objective, guide=guide)
        assert len(list(evaluate(question, batches(data, size)))) > 0
    assert [len(pair) for pair in found.values()] == [2] * 4
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in found.values())


@pytest.mark.parametrize("objective", ["embedding:l2:tokens", "embedding:target"])
def test_rows_do_not_depend_on_the_batch_size(toy, objective):
    guide = Guides(toys()["classification"].dataset, seed=0)
    question = Question(toy.task, toy.victim, PGD(steps=5), Linf(4 / 255), objective, guide=guide)
    one, three = ([row for part in evaluate(question, batches(toy.dataset, size)) for row in part.rows] for size in (1, 3))
    assert one == three
