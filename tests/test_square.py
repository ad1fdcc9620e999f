"""Square: where its squares lie, what they cost, what they see."""

import pytest
import torch

from sslrob.builtin.square import BRUSHES, Bumps, Corners, Square
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L1, L2, Linf

MODELS = pytest.mark.parametrize("threat_model", [Linf(0.05), L2(0.8), L1(4.0)], ids=str)


def attack_it(attack, toy, threat_model, *, victim=None, ids=None, name="task"):
    batch, victim = toy.batch(), victim or toy.victim
    objective = build(name, victim, batch, attack.access)
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(0, ids or batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost, batch


def painted(threat_model, side=3.0, n=5, size=(10, 12)):
    """A start, and one more square."""
    generator = torch.Generator().manual_seed(0)
    origin = 0.5 + 0.1 * torch.rand(n, 3, *size, generator=generator)
    brush = BRUSHES[type(threat_model)](threat_model)
    x = brush.start(origin, Streams(0, [str(i) for i in range(n)]))
    return origin, x, brush.squares(x, origin, side, torch.rand(n, 8, generator=generator))


def test_the_published_defaults():
    assert Square() == Square(queries=5000, area=0.8)


def test_squares_shrink_as_in_the_paper():
    """The area is 0.8 of the image at first, and halved after 10, 50, 200, 500, 1000, 2000 and 4000 queries."""
    image = torch.zeros(1, 3, 32, 32)
    sides = [round(Square()._side(query, image)) for query in (0, 10, 11, 50, 51, 200, 201, 500, 501, 1001, 2001, 4001)]
    assert sides == [29, 29, 20, 20, 14, 14, 10, 10, 7, 5, 4, 3]


def test_linf_starts_with_stripes_and_paints_squares_at_the_corners_of_the_ball():
    origin, x, squared = painted(Linf(0.05))
    assert torch.allclose((x - origin).abs(), torch.full_like(x, 0.05), atol=1e-6)
    signs = (x - origin).sign()
    assert (signs == signs[:, :, :1]).all()  # a column is alike
    assert torch.allclose((squared - origin).abs(), torch.full_like(x, 0.05), atol=1e-6)
    for image, before in zip((squared - origin).sign(), signs, strict=True):
        changed = (image != before).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        assert rows.max() - rows.min() < 3
        assert columns.max() - columns.min() < 3
        inside = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert all(len(channel.unique()) <= 2 for channel in inside)


@pytest.mark.parametrize("threat_model", [L2(0.8), L1(4.0)], ids=str)
def test_l2_and_l1_move_mass_from_one_square_to_another(threat_model):
    origin, x, squared = painted(threat_model)
    for images in (x, squared):
        assert torch.allclose(threat_model.distance(images, origin), torch.full((5,), threat_model.epsilon).double(), rtol=1e-4)
    changed = (squared - x).abs().amax(1) > 1e-3 * (x - origin).abs().max()
    assert changed.any((1, 2)).all()
    if isinstance(threat_model, L2):  # in L1 the square gets more than the other gives, and all the rest gives it
        assert (changed.sum((1, 2)) <= 2 * 9).all()  # two squares of 3 × 3 pixels


def test_every_place_of_a_square_is_possible():
    brush, origin = Corners(Linf(0.1)), torch.full((400, 3, 4, 4), 0.5)
    draws = torch.rand(400, 8, generator=torch.Generator().manual_seed(0))
    painted = brush.squares(origin, origin, 3.0, draws) != origin
    rows, columns = (painted.any(side).any(1).float().argmax(1).tolist() for side in (3, 2))
    places = set(zip(rows, columns, strict=True))
    assert places == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("size", [(2, 3), (5, 5), (4, 9)])
@pytest.mark.parametrize("threat_model", [Linf(0.05), L2(0.8), L1(4.0)], ids=str)
def test_small_and_oblong_images(threat_model, size):
    origin, x, squared = painted(threat_model, side=6.0, size=size)
    assert threat_model.allows(x, origin).all()
    assert threat_model.allows(squared, origin).all()


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("power", [1, 2])
def test_a_bump_has_length_one_and_two_sides(side, power):
    brush = Bumps(L2(1.0) if power == 2 else L1(1.0))
    draws = torch.tensor([0.9, 0.1, 0.9]).view(1, 3, 1, 1)
    bump = brush._bumps(torch.arange(side), torch.arange(side), side, draws)[0]
    assert torch.allclose(bump.abs().pow(power).sum((1, 2)), torch.ones(2), atol=1e-5)
    assert torch.equal(bump[0], -bump[1])
    if side > 1:
        assert (bump[0][:, : side // 2] > 0).all()  # turned: beside each other
        assert (bump[0][:, side // 2 :] < 0).all()


@MODELS
def test_passes(threat_model):
    toy = toys()["classification"]
    weak = type(threat_model)(1e-4)
    _, cost, _ = attack_it(Square(queries=23), toy, weak)
    assert cost.forwards.tolist() == [24] * 6
    assert not cost.backwards.any()
    _, cost, _ = attack_it(Square(queries=500), toy, type(threat_model)(10 * threat_model.epsilon))
    assert (cost.forwards < 100).all()  # all fall, and are done


@MODELS
def test_it_fools_well_beyond_the_radius_and_never_within(threat_model):
    toy = toys()["classification"]
    batch, norm = toy.batch(), type(threat_model)
    radius = toy.victim.radius(batch.images, norm)
    for factor, queries, wins in ((0.95, 50, False), (3.0, 400, True)):
        for i in (0, 5):
            one = batch[torch.arange(6) == i]
            objective, streams = build("task", toy.victim, one, "score"), Streams(0, one.ids)
            found = Square(queries).perturb(objective, one.images, norm(factor * float(radius[i])), streams=streams)
            assert bool(toy.victim.fooled(toy.victim(found), one.targets)) == wins


def test_an_images_squares_are_its_own():
    """Whoever else is in the batch, and whenever they are done."""
    toy = toys()["segmentation"]
    found, _, batch = attack_it(Square(queries=120), toy, Linf(0.03))
    for i in range(len(batch)):
        one = batch[torch.arange(len(batch)) == i]
        objective = build("task", toy.victim, one, "score")
        alone = Square(queries=120).perturb(objective, one.images, Linf(0.03), streams=Streams(0, one.ids))
        assert torch.equal(alone[0], found[i])
    other, _, _ = attack_it(Square(queries=120), toy, Linf(0.03), ids=["x", *batch.ids[1:]])
    assert not torch.equal(other[0], found[0])
    assert torch.equal(other[1:], found[1:])


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_more_queries_find_more(kind):
    toy = toys()[kind]
    few, many = (attack_it(Square(queries=queries), toy, Linf(0.02))[0] for queries in (1, 100))
    quality = [build("task", toy.victim, toy.batch(), "score")(x).quality for x in (few, many)]
    assert (quality[1] < quality[0]).all()


def test_it_climbs_the_margin_unless_another_loss_is_asked_for():
    class Losses(LinearVictim):
        losses = ("logistic", "margin")
        asked: list[str] = []  # noqa: RUF012

        def loss(self, outputs, targets, name, progress):
            self.asked.append(name)
            return super().loss(outputs, targets, name, progress)

    for name, climbed in (("task", "margin"), ("task:logistic", "logistic")):
        victim = Losses()
        victim.asked = []
        attack_it(Square(queries=3), toys()["classification"], Linf(1e-4), victim=victim, name=name)
        assert set(victim.asked) == {climbed}
