"""The bound, the objective of the attack inside the training, and the contract."""

import pytest
import torch
from sslrob_mi.bound import bound_objective, info_nce, scores
from sslrob_mi.mi_at import MIAT
from torch.nn import functional as F

from sslrob import Linf, Streams
from sslrob.builtin.gradient import PGD
from sslrob.data import Batch
from sslrob.testing import ToyBackbone, checks

torch.set_num_threads(1)


@pytest.fixture
def embeddings():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, generator=draw), torch.randn(5, 4, generator=draw)


@pytest.fixture
def batch():
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(tuple("abcdef"), images, (0,) * 6)


@pytest.mark.parametrize("check", checks("sslrob-mi"), ids=str)
def test_contract(check):
    check()


@pytest.mark.parametrize("clean", ["natural", "trained"])
def test_both_sources_of_clean_embeddings_keep_the_contract(clean):
    from sslrob.testing import check_defense

    check_defense(MIAT(clean=clean))


def test_info_nce_is_the_mean_of_two_cross_entropies(embeddings):
    pairs = scores(*embeddings, temperature=0.2)
    cosine = torch.stack([F.cosine_similarity(embeddings[0][i], embeddings[1], dim=1) for i in range(5)])
    torch.testing.assert_close(pairs, cosine / 0.2)
    own = torch.arange(5)
    wanted = (F.cross_entropy(pairs, own, reduction="none") + F.cross_entropy(pairs.T, own, reduction="none")) / 2
    torch.testing.assert_close(info_nce(pairs), wanted)


def test_info_nce_is_log_n_where_nothing_is_known_and_nothing_where_all_is():
    torch.testing.assert_close(info_nce(torch.zeros(7, 7)), torch.full((7,), 7.0).log())
    assert info_nce(1000 * torch.eye(7)).abs().max() < 1e-6


def test_at_the_clean_images_the_objective_is_the_bound(batch):
    backbone = ToyBackbone()
    known = backbone(batch.images).pooled
    told = bound_objective(backbone, known, 0.1, "white-box")(batch.images)
    torch.testing.assert_close(told.loss, info_nce(scores(known, known, 0.1)))
    assert not told.fooled.any()
    assert torch.equal(told.quality, -told.loss)


def test_no_image_depends_on_anothers_move(batch):
    backbone = ToyBackbone()
    objective = bound_objective(backbone, backbone(batch.images).pooled, 0.1, "white-box")
    moved = (batch.images + 0.1 * torch.rand(batch.images.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    keep = torch.tensor([True, False, False, True, True, False])
    torch.testing.assert_close(objective[keep](moved[keep]).loss, objective(moved).loss[keep])


def test_an_attack_lowers_the_bound_without_labels(batch):
    backbone, limits = ToyBackbone().eval(), Linf(8 / 255)
    objective = bound_objective(backbone, backbone(batch.images).pooled, 0.1, "white-box")
    found = PGD(steps=5).perturb(objective, batch.images.clone(), limits, streams=Streams(0, batch.ids))
    assert limits.allows(found, batch.images).all()
    with torch.no_grad():
        assert (objective(found).loss > objective(batch.images).loss).all()


def test_targets_are_never_looked_at(batch):
    unlabelled = Batch(batch.ids, batch.images, (None,) * 6)
    ends = []
    for shown in (batch, unlabelled):
        training = MIAT().begin(ToyBackbone().eval(), PGD(steps=2), Linf(8 / 255))
        ends.append(training.step(shown, Streams(0, shown.ids, "x"), 0.5))
    assert ends[0] == ends[1]
