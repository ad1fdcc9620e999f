"""Objectives seen through something: what they give, what they cost, and that a part of the images is seen alike."""

import pytest
import torch
from torch.nn import functional as F

from sslrob.attack import Best
from sslrob.builtin.gradient import EOTPGD, PGD
from sslrob.builtin.transforms import Averaged, Diverse, Scaled, Smoothed
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, ToySegmenter, toys
from sslrob.threat_model import Linf


@pytest.fixture
def batch():
    return toys()["segmentation"].batch()


def goal(batch, victim=None, access="white-box", name="task"):
    return build(name, victim or ToySegmenter().requires_grad_(False), batch, access)


def gradient(objective, images):
    x = images.clone().requires_grad_()
    feedback = objective(x)
    return feedback.loss.detach(), torch.autograd.grad(feedback.loss.sum(), x)[0]


WRAPPERS = {
    "averaged": (lambda inner, streams: Averaged(inner, 3), 3),
    "scaled": (lambda inner, streams: Scaled(inner, 4), 4),
    "diverse": (lambda inner, streams: Diverse(inner, 0.7, streams), 1),
    "smoothed": (lambda inner, streams: Smoothed(inner, 2), 1),
    "all": (lambda inner, streams: Averaged(Smoothed(Scaled(Diverse(inner, 0.7, streams), 2), 1), 3), 6),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_pass_is_counted_and_a_part_is_seen_as_in_the_whole(batch, name):
    wrap, looks = WRAPPERS[name]
    keep = torch.tensor([False, True, False, True])
    whole = wrap(goal(batch), Streams(0, batch.ids))
    loss, slope = gradient(whole, batch.images)
    assert whole.cost.forwards.tolist() == whole.cost.backwards.tolist() == [looks] * 4
    part = wrap(goal(batch), Streams(0, batch.ids))[keep]
    some, slopes = gradient(part, batch.images[keep])
    assert torch.allclose(some, loss[keep], atol=1e-6)
    assert torch.allclose(slopes, slope[keep], atol=1e-6)
    assert part.cost.forwards.tolist() == [0, looks, 0, looks]
    with torch.no_grad():
        feedback = part(batch.images[keep])
    assert not feedback.loss.requires_grad
    assert (feedback.fooled.shape, feedback.quality.shape) == ((2,), (2,))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_objective_is_asked_for_other_losses_and_less_access(batch, name):
    wrap, _ = WRAPPERS[name]
    one = wrap(goal(batch, name="task:segpgd"), Streams(0, batch.ids))
    other = wrap(goal(batch), Streams(0, batch.ids)).raising("segpgd")
    assert torch.equal(one(batch.images).loss.detach(), other(batch.images).loss.detach())
    assert len(wrap(goal(batch), Streams(0, batch.ids)).strongest()) == len(goal(batch).strongest())
    x = batch.images.clone().requires_grad_()
    shown = one.granting("score")(x)
    assert not torch.autograd.grad(shown.loss.sum(), x, allow_unused=True)[0].any() if shown.loss.requires_grad else True


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_objective_aims_at_as_many_answers_and_refuses_margins(name):
    toy = toys()["classification"]
    batch = toy.batch()
    inner = build("task:margin", toy.victim, batch, "white-box")
    wrapped = WRAPPERS[name][0](inner, Streams(0, batch.ids))
    assert (wrapped.rivals, wrapped.name, wrapped.named) == (1, "margin", True)
    before = inner.cost.forwards.clone()
    with pytest.raises(SslrobError, match="margins cannot be seen through"):
        wrapped.margins(batch.images)
    assert torch.equal(inner.cost.forwards, before)


class Noisy(LinearVictim):
    """A defence that adds noise from a generator of its own."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.generator = scale, torch.Generator().manual_seed(0)

    def forward(self, images):
        return super().forward(images + self.scale * torch.randn(images.shape, generator=self.generator))


def test_an_average_over_draws_is_steadier_than_one():
    """The spread of the mean of 25 looks is a fifth of one look's."""
    batch = toys()["classification"].batch()
    victim = Noisy(0.05).requires_grad_(False)
    spread = {}
    for draws in (1, 25):
        objective = Averaged(goal(batch, victim), draws)
        spread[draws] = torch.stack([objective(batch.images).loss for _ in range(60)]).std(0).median()
    assert float(spread[1] / spread[25]) == pytest.approx(5, rel=0.3)


def test_fooled_means_in_most_draws():
    batch = toys()["classification"].batch()
    victim = Noisy(0.2).requires_grad_(False)  # ± 2.8 in margin, which is 2 … 4.5
    single = torch.stack([goal(batch, victim)(batch.images).fooled for _ in range(20)])
    assert single.any()  # by chance alone
    assert not Averaged(goal(batch, victim), 60)(batch.images).fooled.any()


def test_the_gradient_of_an_average_is_the_mean_gradient(batch):
    class Twofold(ToySegmenter):
        looks = 0

        def forward(self, images):
            self.looks += 1
            return super().forward(images) * self.looks

    loss, slope = gradient(Averaged(goal(batch, Twofold().requires_grad_(False)), 2), batch.images)
    victim = Twofold().requires_grad_(False)
    singles = [gradient(goal(batch, victim), batch.images) for _ in range(2)]
    assert torch.allclose(loss, (singles[0][0] + singles[1][0]) / 2)
    assert torch.allclose(slope, (singles[0][1] + singles[1][1]) / 2, atol=1e-7)


def test_scaled_is_the_mean_over_halved_copies_and_judges_the_image_itself(batch):
    loss, _ = gradient(Scaled(goal(batch), 3), batch.images)
    plain = [goal(batch)(batch.images / 2**i).loss.detach() for i in range(3)]
    assert torch.allclose(loss, torch.stack(plain).mean(0), atol=1e-6)
    assert torch.equal(Scaled(goal(batch), 3)(batch.images).quality, goal(batch)(batch.images).quality)


def test_smoothed_blurs_the_gradient_and_nothing_else(batch):
    loss, slope = gradient(goal(batch), batch.images)
    same, blurred = gradient(Smoothed(goal(batch), 2), batch.images)
    assert torch.equal(loss, same)
    line = torch.linspace(-3, 3, 5).square().div(-2).exp()
    kernel = torch.outer(line, line).div(line.sum() ** 2).expand(3, 1, 5, 5)
    assert torch.allclose(blurred, F.conv2d(slope, kernel, padding=2, groups=3), atol=1e-7)


class Seeing(LinearVictim):
    """Remembers what it was shown."""

    def forward(self, images):
        self.seen = images.detach()
        return super().forward(images)


def test_diverse_shows_shrunk_copies_on_black_each_image_its_own():
    batch = toys()["classification"].batch()
    ones = torch.ones(6, 3, 30, 30)
    victim = Seeing(30).requires_grad_(False)
    looks = []
    objective = Diverse(goal(batch, victim), 0.5, Streams(0, batch.ids))
    for _ in range(30):
        objective(ones)
        looks.append(victim.seen)
    seen = torch.stack(looks)[:, :, 0]  # (looks, images, 30, 30)
    assert ((seen - seen.round()).abs() < 1e-5).all()  # a white square on black, without a border of grey
    side = seen.amax(3).sum(2)
    assert torch.equal(side, seen.amax(2).sum(2))
    assert set(side.flatten().tolist()) == {27.0, 28.0, 29.0, 30.0}
    assert 0.4 < float((side == 30).float().mean()) < 0.7
    assert len({tuple(column) for column in side.T.tolist()}) == 6
    for edge in (0, -1):  # here at the top, there at the bottom
        assert (seen[:, :, edge].amax(2) == 0).any()


def test_diverse_resizes_bilinearly_and_leaves_the_others_as_they_are():
    batch = toys()["classification"].batch()
    images = torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    victim = Seeing(20).requires_grad_(False)
    Diverse(goal(batch, victim), 0.0, Streams(0, batch.ids))(images)
    assert torch.equal(victim.seen, images)
    Diverse(goal(batch, victim), 1.0, Streams(0, batch.ids))(images)
    for one, shown in zip(images, victim.seen, strict=True):
        rows, columns = (shown.sum((0, i)) > 0 for i in (2, 1))
        inside = shown[:, rows][:, :, columns]
        assert torch.allclose(inside, F.interpolate(one[None], size=inside.shape[1:], mode="bilinear")[0], atol=1e-5)


def test_gradients_that_are_not_finite_spoil_nothing_but_their_own_image():
    class Dying(LinearVictim):
        def loss(self, outputs, targets, name, progress):
            scale = torch.ones_like(outputs)
            scale[:2] = torch.tensor([torch.inf, torch.nan])
            return super().loss(outputs, targets, name, progress) * scale

    batch = toys()["classification"].batch()
    for wrap, looks in WRAPPERS.values():
        objective = wrap(goal(batch, Dying().requires_grad_(False)), Streams(0, batch.ids))
        _, slope = gradient(objective, batch.images)
        assert slope[2:].isfinite().all()
        assert slope[2:].flatten(1).any(1).all()
        assert objective.cost.dead.tolist() == [looks, looks, 0, 0, 0, 0]


def test_eot_pgd_sees_through_noise_that_hides_the_border_from_pgd():
    """It is PGD where nothing is random, and stronger, at the same steps, where much is."""
    toy = toys()["segmentation"]
    batch = toy.batch()
    threat_model = Linf(0.02)
    plain, eot = (
        attack.perturb(goal(batch), batch.images, threat_model, streams=Streams(0, batch.ids))
        for attack in (PGD(steps=5), EOTPGD(steps=5, draws=3))
    )
    assert torch.allclose(plain, eot, atol=1e-6)

    class Hidden(LinearVictim):
        """A gradient with noise on it, as a defence that draws at random has."""

        generator = torch.Generator().manual_seed(0)

        def loss(self, outputs, targets, name, progress):
            return super().loss(outputs, targets, name, progress) * torch.randn(len(outputs), generator=self.generator).add(0.3)

    batch, victim = toys()["classification"].batch(), Hidden().requires_grad_(False)
    threat_model = Linf(float(victim.radius(batch.images, Linf).max()) * 1.1)
    steps = {"steps": 6, "step_size": 0.5, "random_start": False}
    fooled = {}
    for attack in (PGD(**steps), EOTPGD(**steps, draws=60)):
        best = Best(batch.images)
        objective = goal(batch, victim)
        best.update(attack.perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids)), objective(batch.images))
        fooled[type(attack)] = int(victim.fooled(victim(best.images), batch.targets).sum())
    assert fooled[EOTPGD] == 6
    assert fooled[PGD] < 6
