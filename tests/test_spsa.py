"""The score attack with estimated gradients, against the closed form, against noise, and what it spends."""

import pytest
import torch

from sslrob.builtin.noise import Noise, SignNoise
from sslrob.builtin.spsa import SPSA
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.settings import checked
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L1, L2, Linf

NORMS = pytest.mark.parametrize("norm", [Linf, L2, L1], ids=lambda norm: norm.__name__)


def attack_it(attack, batch, victim, threat_model, *, name="task", seed=0):
    objective = build(name, victim, batch, attack.access)
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(seed, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    return found, objective.cost


@pytest.mark.parametrize(("norm", "directions"), [(Linf, "signs"), (Linf, "normal"), (L2, "signs"), (L1, "signs")])
def test_it_comes_near_the_best_move_and_noise_does_not(norm, directions):
    """Of what the best move takes from a linear victim's margin, it takes most within 1,000 queries, and noise little."""
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    threat_model = norm(0.8 * float(victim.radius(batch.images, norm).min()))  # nothing is fooled: all spend all
    towards = victim.weight.detach() * torch.tensor([1.0 - 2 * target for target in batch.targets])[:, None, None, None]

    def gain(images):
        return ((images - batch.images) * towards).flatten(1).sum(1)

    best = gain(threat_model.project(batch.images + 1e6 * towards, batch.images))
    found, cost = attack_it(SPSA(queries=1000, directions=directions), batch, victim, threat_model)
    share = gain(found) / best
    assert (share > 0.7).all()
    assert share.mean() > 0.75
    assert (cost.forwards <= 1000).all()
    for noise in [Noise(draws=500)] if norm is L1 else [Noise(draws=500), SignNoise(draws=500)]:  # this L1 ball has 384 corners
        drawn, _ = attack_it(noise, batch, victim, threat_model)
        assert (gain(drawn) / best < share).all()


@NORMS
def test_it_wins_beyond_the_robust_radius(norm):
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    one = batch[torch.arange(6) == 0]
    for factor, wins in ((0.99, False), (1.4, True)):
        found, _ = attack_it(SPSA(queries=800), one, victim, norm(factor * float(victim.radius(one.images, norm))))
        assert bool(victim.fooled(victim(found), one.targets)) == wins


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_it_works_on_every_task(kind):
    toy = toys()[kind]
    batch, victim = toy.batch(), toy.victim
    threat_model = Linf(4 / 255)

    def quality(attack):
        return victim.quality(victim(attack_it(attack, batch, victim, threat_model)[0]), batch.targets)

    assert quality(SPSA(queries=1000)).mean() < quality(Noise(draws=1000)).mean()


def test_it_raises_embeddings_too():
    toy = toys()["segmentation"]
    batch = toy.batch()
    found, _ = attack_it(SPSA(queries=400), batch, toy.victim, Linf(4 / 255), name="embedding")
    drawn, _ = attack_it(Noise(draws=400), batch, toy.victim, Linf(4 / 255), name="embedding")
    far, near = (build("embedding", toy.victim, batch, "score")(images).loss for images in (found, drawn))
    assert far.mean() > near.mean()


def test_what_it_spends():
    """Each step tries its pairs both ways and looks at where it is; who is fooled spends no more."""
    toy = toys()["classification"]
    batch, victim = toy.batch(), toy.victim
    radius = victim.radius(batch.images, Linf)
    threat_model = Linf(float(radius[2:4].mean()) * 1.02)
    attack = SPSA(queries=900, pairs=10, random_start=False)
    found, cost = attack_it(attack, batch, victim, threat_model)
    fooled = victim.fooled(victim(found), batch.targets)
    assert fooled.tolist() == [True, True, False, False, False, False]
    assert cost.forwards[2:].tolist() == [899 // 21 * 21 + 1] * 4
    assert (cost.forwards[:2] < 600).all()
    assert cost.backwards.tolist() == [0] * 6


def test_losses_that_are_no_numbers_lead_nowhere():
    class Broken(LinearVictim):
        def loss(self, outputs, targets, name, progress):
            return super().loss(outputs, targets, name, progress) * float("nan")

    batch = toys()["classification"].batch()
    found, _ = attack_it(SPSA(queries=100, pairs=5), batch, Broken(), Linf(1e-3))
    assert not found.isnan().any()


def test_seeds_and_directions_choose_the_draws():
    toy = toys()["segmentation"]
    batch = toy.batch()
    runs = [
        attack_it(SPSA(queries=50, pairs=5, directions=directions), batch, toy.victim, Linf(1e-3), seed=seed)[0]
        for seed, directions in ((0, "signs"), (0, "signs"), (1, "signs"), (0, "normal"))
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], runs[3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 51}, "51 queries are too few for one step with 25 pairs: it takes 52"),
        ({"directions": "both"}, "setting 'directions' of attack 'spsa'"),
        ({"momentum": 1.5}, "setting 'momentum' of attack 'spsa'"),
        ({"probe": 0}, "setting 'probe' of attack 'spsa'"),
    ],
)
def test_settings_that_make_no_attack(settings, message):
    with pytest.raises(SslrobError) as caught:
        checked(SPSA, settings, "attack 'spsa'")
    assert message in str(caught.value)
