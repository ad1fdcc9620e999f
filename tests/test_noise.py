"""The controls: uniform, sign and Gaussian noise."""

import pytest
import torch

from sslrob.attack import Best
from sslrob.builtin.noise import GaussianNoise, Noise, SignNoise
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.testing import toys
from sslrob.threat_model import L1, L2, Linf


def attack_it(attack, batch, victim, threat_model):
    objective = build("task", victim, batch, attack.access)
    found = attack.perturb(objective, batch.images, threat_model, streams=Streams(0, batch.ids))
    assert threat_model.allows(found, batch.images).all()
    assert objective.cost.forwards.tolist() == [attack.draws] * len(batch)
    return found


def test_uniform_noise_is_what_it_always_was():
    """Runs of it are kept: the draws are those of `random_start`, in order."""
    toy = toys()["segmentation"]
    batch, threat_model = toy.batch(), Linf(0.05)
    objective, streams, best = build("task", toy.victim, batch, "score"), Streams(0, batch.ids), Best(batch.images)
    for _ in range(5):
        candidates = threat_model.random_start(batch.images, streams)
        best.update(candidates, objective(candidates))
    assert torch.equal(attack_it(Noise(draws=5), batch, toy.victim, threat_model), best.images)


def test_sign_noise_goes_all_the_way():
    """To a corner in Linf, to the sphere in L2; in L1 a few values take all."""
    toy = toys()["classification"]
    batch = toy.batch()

    def moves(threat_model):
        return (attack_it(SignNoise(draws=3), batch, toy.victim, threat_model) - batch.images).flatten(1)

    assert torch.allclose(moves(Linf(0.02)).abs(), torch.tensor(0.02), atol=1e-6)
    assert torch.allclose(moves(L2(0.5)).norm(dim=1), torch.tensor(0.5), atol=1e-5)
    sparse = moves(L1(2.0))
    assert torch.allclose(sparse.abs().sum(1), torch.tensor(2.0), atol=1e-4)
    assert (sparse != 0).sum(1).max() <= 8  # each as far as the pixel range lets it


@pytest.mark.parametrize(("threat_model", "share"), [(Linf(0.02), 0.02), (L2(0.5), 0.5 / 192**0.5), (L1(4.0), 4 / 192)], ids=str)
def test_gaussian_noise_has_its_deviation(threat_model, share):
    toy = toys()["classification"]
    batch = toy.batch()
    moves = attack_it(GaussianNoise(draws=1, deviation=0.2), batch, toy.victim, threat_model) - batch.images
    assert float(moves.std()) == pytest.approx(0.2 * share, rel=0.1)
    assert float(moves.abs().flatten(1).amax(1).mean() / moves.std()) > 2.4  # not uniform: that would be 1.7


@pytest.mark.parametrize("attack", [SignNoise, GaussianNoise])
def test_more_draws_do_more(attack):
    toy = toys()["detection"]
    batch = toy.batch()
    one, many = (toy.victim.quality(toy.victim(attack_it(attack(draws=n), batch, toy.victim, Linf(0.1))), batch.targets) for n in (1, 40))
    assert (many <= one).all()
    assert (many < one).any()
