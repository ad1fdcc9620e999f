"""Strength on a small trained segmentor against adv-lib's attacks made for segmentation: at the radius that one of them needs to turn nearly
all pixels of an image, ours turns as many.
"""

import pytest
import torch
from sslrob_mmseg.dataset import IGNORED

from sslrob import Batch, Linf
from sslrob.builtin.sea import SEA
from sslrob.objective import build
from sslrob.streams import Streams

references = pytest.importorskip("adv_lib.attacks.segmentation", exc_type=ImportError)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")]

STEPS = 200  # of theirs, and of ours in all
SHARE = 0.8  # of the pixels that they turn
ATTACKS = {
    "alma-prox": lambda model, images, labels, masks: references.alma_prox(
        model, images, labels, masks, num_steps=STEPS, adv_threshold=SHARE
    ),
    "dag": lambda model, images, labels, masks: references.dag(model, images, labels, masks, max_iter=STEPS, adv_threshold=SHARE, γ=0.01),
}


@pytest.fixture(autouse=True)
def uncompiled():
    """ALMA's proximal operator is compiled when it is first called, which takes longer than all the rest."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("name", ATTACKS)
def test_as_many_pixels_at_the_radius_of(trained, scenes, name):
    images, masks = scenes(2, seed=11)
    labels = torch.stack(list(masks)).long()
    theirs = ATTACKS[name](trained, images, labels.where(labels != IGNORED, 0), labels != IGNORED)
    for i, mask in enumerate(masks):
        radius = float((theirs[i] - images[i]).abs().max())
        assert radius > 0  # it found something
        batch = Batch(("a",), images[i : i + 1], (mask,))
        objective = build("task", trained, batch, "white-box")
        attack = SEA(steps=STEPS // len(trained.strongest))
        ours = attack.perturb(objective, batch.images, Linf(radius), streams=Streams(0, batch.ids))
        left, reference = (float(trained.quality(trained(x), (mask,))) for x in (ours, theirs[i : i + 1]))
        assert left <= reference
