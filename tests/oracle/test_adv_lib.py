"""Attacks against adv-lib's, at equal settings."""

import sys
from types import ModuleType

import pytest
import torch

from sslrob.builtin.carlini_wagner import CarliniWagner
from sslrob.builtin.deepfool import DeepFool
from sslrob.builtin.gradient import PGD
from sslrob.builtin.minimal import DDN, FMN
from sslrob.threat_model import L1, L2, Linf

visdom = ModuleType("visdom")  # adv-lib draws curves with it where it is asked to
visdom.Visdom = object
sys.modules.setdefault("visdom", visdom)
attacks = pytest.importorskip("adv_lib.attacks")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

IMAGES = 96
ORDERS = {Linf: float("inf"), L2: 2, L1: 1}
FAR = {Linf: Linf(1.0), L2: L2(27.0), L1: L1(768.0)}  # nothing is farther


@pytest.fixture(scope="module")
def theirs(trained):
    victim, batch = trained
    return lambda attack, n=IMAGES, **settings: attack(victim, batch.images[:n], torch.tensor(batch.targets[:n]), **settings)


def test_pgd_is_stronger_than_the_one_that_never_tries_its_last_iterate(trained, ours, theirs):
    victim, batch = trained
    settings = {"ε": 0.02, "steps": 10, "random_init": False, "relative_step_size": 0.25}
    robust = [
        ~victim.fooled(victim(images), batch.targets[:IMAGES])
        for images in (
            ours(PGD(steps=10, random_start=False), Linf(0.02), objective="task:ce", n=IMAGES),
            theirs(attacks.pgd_linf, loss_function="ce", **settings),
        )
    ]
    assert 0.3 * IMAGES < robust[0].sum() <= robust[1].sum() + 1


def test_ddns_moves_are_as_small(ours, theirs, no_larger):
    no_larger(ours(DDN(steps=40), FAR[L2], n=IMAGES), theirs(attacks.ddn, steps=40, levels=None), L2)


@pytest.mark.parametrize("norm", [Linf, L2, L1])
def test_fmns_moves_are_as_small(ours, theirs, no_larger, norm):
    no_larger(ours(FMN(steps=40), FAR[norm], n=IMAGES), theirs(attacks.fmn, norm=ORDERS[norm], steps=40), norm)


@pytest.mark.parametrize("norm", [Linf, L2])
def test_deepfools_moves_are_as_small(ours, theirs, no_larger, norm):
    no_larger(ours(DeepFool(), FAR[norm], n=IMAGES), theirs(attacks.df, norm=ORDERS[norm], steps=50), norm)


def test_carlini_and_wagners_moves_are_as_small(ours, theirs, no_larger):
    settings = {"max_iterations": 50, "binary_search_steps": 4, "initial_const": 0.3, "learning_rate": 0.02}
    mine = ours(CarliniWagner(steps=50, searches=4, weight=0.3, rate=0.02), FAR[L2], n=24)
    no_larger(mine, theirs(attacks.carlini_wagner_l2, n=24, **settings), L2)


def test_in_a_ball_as_many_are_fooled_as_without_one(trained, ours):
    """The result is the smallest move if the threat model allows it: the search itself is not held back by it."""
    victim, batch = trained
    for attack, threat_model in ((DDN(steps=40), L2(0.4)), (FMN(steps=40), Linf(0.02)), (FMN(steps=40), L1(3.0))):
        norm = type(threat_model)
        free = norm(1.0).distance(ours(attack, FAR[norm], n=IMAGES), batch.images[:IMAGES]) <= threat_model.epsilon
        held = ours(attack, threat_model, n=IMAGES)
        assert victim.fooled(victim(held), batch.targets[:IMAGES]).sum() >= free.sum() - 1
