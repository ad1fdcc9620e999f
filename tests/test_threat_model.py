"""Projections against an independent solver, steepest moves against random ones, and what is allowed."""

import math

import pytest
import torch

from sslrob.errors import SslrobError
from sslrob.streams import Streams
from sslrob.threat_model import L1, L2, Linf, parse, require_room

SHAPE = (3, 4, 4)
MODELS = [Linf(8 / 255), Linf(0.4), L2(0.3), L2(2.0), L1(0.5), L1(6.0), L1(60.0)]
ids = str


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def near_the_box(n, generator):
    """Images in which a third of the values are 0 or 1, or within 0.01 of them."""
    x = torch.rand(n, *SHAPE, generator=generator)
    kind = torch.rand(x.shape, generator=generator)
    x = torch.where(kind < 0.1, 0.0, torch.where(kind < 0.2, 1.0, x))
    return torch.where((kind > 0.2) & (kind < 0.3), 0.01 * x, x)


def ball(model, move):
    """The nearest point of the norm ball around zero, without the pixel range: by bisection on its multiplier, float64."""
    if isinstance(model, Linf):
        return move.clamp(-model.epsilon, model.epsilon)
    if isinstance(model, L2):
        length = move.norm()
        return move if length <= model.epsilon else move * (model.epsilon / length)
    if move.abs().sum() <= model.epsilon:
        return move
    low, high = 0.0, float(move.abs().max())
    for _ in range(100):
        middle = (low + high) / 2
        if float((move.abs() - middle).clamp_min(0).sum()) > model.epsilon:
            low = middle
        else:
            high = middle
    return (move.abs() - high).clamp_min(0) * move.sign()


def dykstra(model, image, origin, rounds=6000):
    """The nearest point of ball ∩ pixel range by Dykstra's alternating projections: only knows the two sets one at a time."""
    x, origin = image.double(), origin.double()
    p, q = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(rounds):
        y = origin + ball(model, x + p - origin)
        p = x + p - y
        new = (y + q).clamp(0, 1)
        q = y + q - new
        if (new - x).abs().max() < 1e-13 and (y - new).abs().max() < 1e-9:
            return new
        x = new
    return x


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_project_is_the_nearest_allowed_image(model):
    g = seeded()
    origin = near_the_box(4, g)
    wished = origin + torch.randn(origin.shape, generator=g) * torch.tensor([0.05, 0.3, 1.0, 4.0])[:, None, None, None]
    found = model.project(wished, origin)
    for i in range(len(origin)):
        assert torch.allclose(found[i].double(), dykstra(model, wished[i], origin[i]), atol=2e-6)


@pytest.mark.parametrize("model", [L2(0.3), L2(2.0), L1(0.5), L1(6.0)], ids=ids)
@pytest.mark.parametrize("seed", range(20))
def test_project_satisfies_the_optimality_condition(model, seed):
    """(wish − nearest) · (z − nearest) ≤ 0 for every allowed z: what it means to be nearest in a convex set."""
    g = seeded(seed)
    origin = near_the_box(2, g).double()
    wished = origin + torch.randn(origin.shape, generator=g, dtype=torch.float64)
    nearest = model.project(wished, origin)
    streams = Streams(seed, ["a", "b"])
    for _ in range(10):
        z = model.random_start(origin, streams)
        corner = model.project(origin + 100 * torch.randn(origin.shape, generator=g, dtype=torch.float64), origin)
        for allowed in (z, corner, origin):
            assert float(((wished - nearest) * (allowed - nearest)).flatten(1).sum(1).max()) <= 1e-9


@pytest.mark.parametrize("model", MODELS, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_project_is_allowed_exact_inside_and_idempotent(model, dtype):
    g = seeded(1)
    origin = near_the_box(8, g).to(dtype)
    for size in (0.0, 1e-3, 0.1, 1.0) + ((10.0, 1e4) if dtype == torch.float32 else ()):  # float64 has no spare digits for huge wishes
        wished = origin + size * torch.randn(origin.shape, generator=g, dtype=dtype)
        once = model.project(wished, origin)
        assert once.dtype == dtype
        assert model.allows(once, origin).all()
        assert torch.allclose(model.project(once, origin), once, rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert torch.equal(model.project(origin, origin), origin)  # no move stays no move
    inside = model.project(origin + 1e-4 * torch.randn(origin.shape, generator=g, dtype=dtype), origin)
    small = (0.01 * (inside - origin) + origin).clamp(0, 1)
    assert torch.allclose(model.project(small, origin), small, rtol=0, atol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("model", [Linf(0.5 / 255), Linf(8 / 255), L2(0.25), L2(3.0), L1(4.0), L1(255.0)], ids=ids)
def test_project_is_allowed_at_full_size(model):
    g = seeded(5)
    origin = (torch.rand(1, 3, 224, 224, generator=g) * 255).round() / 255
    for size in (0.01, 1.0):
        assert model.allows(model.project(origin + size * torch.randn(origin.shape, generator=g), origin), origin).all()


@pytest.mark.parametrize("model", [Linf(0.1), L2(0.5), L1(2.0)], ids=ids)
def test_project_in_float32_is_that_in_float64(model):
    g = seeded(2)
    origin = near_the_box(4, g)
    wished = origin + torch.randn(origin.shape, generator=g)
    assert torch.allclose(model.project(wished, origin).double(), model.project(wished.double(), origin.double()), atol=1e-6)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_images_at_every_corner_of_the_range(model):
    """Nothing but 0 and 1, wishes that only lead outward, and wishes that only lead inward."""
    origin = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    outward = torch.tensor([-1.0, 1.0]).view(-1, 1, 1, 1).expand_as(origin)
    assert torch.equal(model.project(origin + outward, origin), origin)
    inward = model.project(origin - outward, origin)
    assert model.allows(inward, origin).all()
    full = float(torch.stack([torch.linalg.vector_norm(torch.ones(SHAPE), {Linf: math.inf, L2: 2, L1: 1}[type(model)])]))
    assert torch.allclose(model.distance(inward, origin), torch.tensor(min(model.epsilon, full), dtype=torch.float64), atol=1e-5)


def test_distance_by_hand():
    origin = torch.full((1, 3, 2, 2), 0.5)
    moved = origin.clone()
    moved[0, 0, 0, 0] += 0.25
    moved[0, 2, 1, 1] -= 0.5
    assert Linf(1).distance(moved, origin).tolist() == [0.5]
    assert L1(1).distance(moved, origin).tolist() == [0.75]
    assert L2(1).distance(moved, origin).tolist() == pytest.approx([math.sqrt(0.3125)])


def moved_by(model, factor, n=4):
    """Images at `factor` × epsilon from grey ones, in float32."""
    origin = torch.full((n, *SHAPE), 0.5)
    direction = torch.randn(origin.shape, generator=seeded(3)).double()
    length = {Linf: direction.flatten(1).abs().amax(1), L2: direction.flatten(1).norm(dim=1), L1: direction.flatten(1).abs().sum(1)}
    return (origin.double() + direction * (factor * model.epsilon / length[type(model)]).view(-1, 1, 1, 1)).float(), origin


@pytest.mark.parametrize("model", [Linf(4 / 255), Linf(1 / 255), L2(0.5), L1(2.0)], ids=ids)
def test_allows_up_to_the_boundary_and_not_beyond(model):
    assert model.allows(*moved_by(model, 0.999)).all()
    assert model.allows(*moved_by(model, 1.0)).all()
    assert not model.allows(*moved_by(model, 1.0001)).any()
    assert not model.allows(*moved_by(model, 1.2)).any()


@pytest.mark.parametrize("model", [Linf(1.0), L2(100.0), L1(1000.0)], ids=ids)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-6, 1 + 1e-6])
def test_allows_no_value_outside_the_pixel_range(model, value):
    origin = torch.rand(2, *SHAPE, generator=seeded())
    images = origin.clone()
    images[1, 2, 3, 3] = value
    assert model.allows(images, origin).tolist() == [True, False]


@pytest.mark.parametrize("model", [Linf(0.03), L2(0.3), L1(0.4)], ids=ids)
def test_steepest_is_the_best_move_of_its_length(model):
    """Against 2,000 random moves on the sphere, and against the dual norm in closed form."""
    g = seeded(4)
    gradient = torch.randn(2, *SHAPE, generator=g)
    images = torch.full_like(gradient, 0.5)
    for size in (1.0, 0.25):
        move = model.steepest(gradient, images, size)
        assert torch.allclose(model.distance(images + move, images), torch.tensor(size * model.epsilon).double(), rtol=1e-4)
        gain = (move * gradient).flatten(1).sum(1)
        flat = gradient.flatten(1)
        dual = {Linf: flat.abs().sum(1), L2: flat.norm(dim=1), L1: flat.abs().amax(1)}[type(model)]
        assert torch.allclose(gain, size * model.epsilon * dual, rtol=1e-5)
        others = torch.randn(2000, *SHAPE, generator=g)
        others[::2] *= (torch.rand(others[::2].shape, generator=g) < 0.1) + 1e-6  # sparse ones too
        others = others / model.distance(others, torch.zeros_like(others)).view(-1, 1, 1, 1).float() * size * model.epsilon
        for i in range(2):
            assert float((others * gradient[i]).flatten(1).sum(1).max()) <= float(gain[i]) * 1.00001


@pytest.mark.parametrize("seed", range(5))
def test_steepest_of_l1_is_the_best_allowed_move(seed):
    """With the pixel range in the way the best move fills the strongest values one after the other: nothing allowed is better."""
    g = seeded(seed)
    origin = near_the_box(3, g)
    gradient = torch.randn(origin.shape, generator=g)
    model = L1(4.0)
    move = model.steepest(gradient, origin)
    assert model.allows(model.project(origin + move, origin), origin).all()
    assert torch.allclose(model.project(origin + move, origin), origin + move, atol=1e-6)  # it never leaves
    gain = (move * gradient).flatten(1).sum(1)
    streams = Streams(seed, "abc")
    for scale in (0.1, 1.0, 30.0):
        climbed = model.project(origin + scale * gradient, origin) - origin
        assert ((climbed * gradient).flatten(1).sum(1) <= gain + 1e-5).all()
    for _ in range(100):
        other = model.random_start(origin, streams) - origin
        assert ((other * gradient).flatten(1).sum(1) <= gain + 1e-5).all()


@pytest.mark.parametrize("model", [Linf(0.03), L2(0.3), L1(1.0)], ids=ids)
def test_steepest_of_no_gradient_is_no_move(model):
    images = torch.rand(2, *SHAPE, generator=seeded())
    assert not model.steepest(torch.zeros_like(images), images).any()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("model", [Linf(0.03), L2(0.3), L1(1.0)], ids=ids)
def test_steepest_does_not_depend_on_the_scale_of_the_gradient(model, scale):
    images = torch.full((2, *SHAPE), 0.5)
    gradient = torch.randn(images.shape, generator=seeded())
    assert torch.allclose(model.steepest(scale * gradient, images), model.steepest(gradient, images), rtol=1e-4)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_random_start_is_allowed_and_fills_the_ball(model):
    origin = near_the_box(16, seeded())
    streams = Streams(0, [str(i) for i in range(16)])
    starts = [model.random_start(origin, streams) for _ in range(8)]
    assert all(model.allows(x, origin).all() for x in starts)
    assert all((x != origin).flatten(1).any(1).all() for x in starts)
    assert len({float(x.sum()) for x in starts}) == 8  # each call draws anew


@pytest.mark.parametrize(("model", "dimension"), [(Linf(0.1), 48), (L2(0.3), 48), (L1(0.3), 48)], ids=str)
def test_random_moves_are_uniform_in_the_ball(model, dimension):
    """The share within r × epsilon is r ^ dimension; the mean of (distance / epsilon) ^ dimension is therefore a half."""
    origin = torch.full((2000, *SHAPE), 0.5)
    moves = model.random_move(origin, Streams(0, [str(i) for i in range(2000)]))
    reached = (model.distance(origin + moves, origin) / model.epsilon).clamp_max(1) ** dimension
    assert float(reached.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * 2000))
    assert float(moves.mean()) == pytest.approx(0, abs=5 * float(moves.std()) / math.sqrt(moves.numel()))


def test_text():
    assert parse("linf:4/255") == Linf(4 / 255)
    assert parse("l2:0.5") == L2(0.5)
    assert parse("l1:12") == L1(12.0)


@pytest.mark.parametrize("text", ["linf:4", "lif:4/255", "linf", "0.0157", "linf:0", "l2:-1", "linf:x", "l2:nan", "l1:inf", "linf:1/0", ""])
def test_wrong_text(text):
    with pytest.raises(SslrobError) as caught:
        parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(("most", "above"), [(Linf(1.0), Linf(1.01)), (L2(6.92), L2(6.93)), (L1(48.0), L1(49.0))], ids=ids)
def test_an_epsilon_that_bounds_nothing(most, above):
    require_room(most, torch.rand(SHAPE))
    with pytest.raises(SslrobError, match=r"bounds nothing: from black to white it is .* for images of 3 × 4 × 4 values"):
        require_room(above, torch.rand(SHAPE))
