"""Common corruptions: the package's own images, from each image's own random numbers, and a threat model that says what they are."""

import sys

import numpy as np
import pytest
import torch

from sslrob.builtin.corruption import SMALLEST, Corruption
from sslrob.data import batches
from sslrob.errors import SslrobError
from sslrob.evaluate import Question, evaluate
from sslrob.objective import build
from sslrob.settings import checked
from sslrob.streams import Streams
from sslrob.testing import ToyDataset, toys
from sslrob.testing.unchanged import generators_unused
from sslrob.threat_model import Linf
from sslrob.trust import dead_gradients

TYPES = [
    *("gaussian-noise", "shot-noise", "impulse-noise", "defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "snow", "frost", "fog"),
    *("brightness", "contrast", "elastic-transform", "pixelate", "jpeg-compression"),
]
EVERY_IMAGE = Linf(1.0)


def photograph(height, width):
    """(2, 3, h, w) smooth, with an edge."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    one = torch.stack([y, x, (x * y).sqrt()])
    one[:, height // 3 : height // 2] = 0.2
    return torch.stack([one, one.flip(-1)])


def corrupted(attack, images, ids=("a", "b"), seed=0):
    toy = toys()["segmentation"]
    objective = build("task", toy.victim, toy.batch(), attack.access)
    found = attack.perturb(objective, images, EVERY_IMAGE, streams=Streams(seed, ids))
    assert EVERY_IMAGE.allows(found, images).all()
    assert found.dtype == images.dtype
    assert objective.cost.forwards.tolist() == [0] * 4
    return found


@pytest.mark.parametrize("type", [pytest.param(type, marks=pytest.mark.slow if type == "glass-blur" else ()) for type in TYPES])
def test_each_is_the_packages_own(type):
    package = pytest.importorskip("imagecorruptions")
    images = photograph(40, 56)
    with generators_unused(type):
        found = corrupted(Corruption(type=type, severity=4), images)
        again = corrupted(Corruption(type=type, severity=4), images)
    assert torch.equal(found, again)
    assert not torch.equal(found, images)
    state = np.random.get_state()
    seed = int(Streams(0, ("a",)).integers((), 2**31 - 1))
    np.random.seed(seed)
    pixels = (images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    own = {"seed": seed} if type in ("glass-blur", "impulse-noise") else {}
    theirs = np.array(package.corrupt(pixels, severity=4, corruption_name=type.replace("-", "_"), **own))
    np.random.set_state(state)
    assert torch.equal((found[0] * 255).round().byte().permute(1, 2, 0), torch.from_numpy(theirs))


def test_they_are_the_fifteen():
    package = pytest.importorskip("imagecorruptions")
    assert sorted(TYPES) == sorted(name.replace("_", "-") for name in package.get_corruption_names())


@pytest.mark.parametrize("type", ["gaussian-noise", "fog", "contrast"])
def test_a_higher_severity_does_more(type):
    pytest.importorskip("imagecorruptions")
    images = photograph(64, 64)
    far = [(corrupted(Corruption(type=type, severity=severity), images) - images).square().mean() for severity in (1, 3, 5)]
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize("type", ["impulse-noise", "snow"])
def test_each_image_has_its_own_numbers(type):
    pytest.importorskip("imagecorruptions")
    images = photograph(32, 32)[:1].repeat(2, 1, 1, 1)
    first, second = corrupted(Corruption(type=type), images)
    assert not torch.equal(first, second)
    assert torch.equal(corrupted(Corruption(type=type), images[1:], ids=("b",))[0], second)
    assert not torch.equal(corrupted(Corruption(type=type), images, seed=1)[0], first)


def test_small_images_are_mirrored_out():
    package = pytest.importorskip("imagecorruptions")
    small = photograph(40, 56)[:, :, :20, :24]
    large = np.pad(small[0].numpy(), ((0, 0), (0, SMALLEST - 20), (0, SMALLEST - 24)), mode="symmetric")
    found = corrupted(Corruption(type="jpeg-compression"), small)[0]
    pixels = np.round(large * 255).astype(np.uint8).transpose(1, 2, 0)
    theirs = np.array(package.corrupt(pixels, severity=3, corruption_name="jpeg_compression")[:20, :24])
    assert torch.equal((found * 255).round().byte().permute(1, 2, 0), torch.from_numpy(theirs))


def test_an_evaluation_reads_truthfully():
    """Robust means right before and after; the distance is told; nothing is flagged."""
    pytest.importorskip("imagecorruptions")
    toy = toys()["classification"]
    dataset = ToyDataset(toy.dataset.images, [1 - t if i == 2 else t for i, t in enumerate(toy.dataset.targets)], "f")
    question = Question(toy.task, toy.victim, Corruption(severity=5), EVERY_IMAGE)
    rows = [row for part in evaluate(question, batches(dataset, 4)) for row in part.rows]
    assert rows[2]["clean"]["fooled"]
    assert rows[2]["distance"] == 0
    changed = [row for row in rows if not row["clean"]["fooled"] and not row["declined"]]
    assert changed
    assert all(0.1 < row["distance"] <= 1 for row in changed)
    assert all(row["robust"]["fooled"] or row["robust"]["quality"] <= row["clean"]["quality"] for row in rows)
    assert dead_gradients(rows) == []


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(SslrobError, match="need the package 'imagecorruptions-imaug'") as caught:
        corrupted(Corruption(), photograph(32, 32))
    assert caught.value.hint == 'install it: pip install "sslrob[corruptions]"'


@pytest.mark.parametrize(("settings", "key"), [({"type": "rain"}, "type"), ({"severity": 6}, "severity"), ({"severity": 0}, "severity")])
def test_settings_that_are_no_corruption(settings, key):
    with pytest.raises(SslrobError, match=f"setting '{key}' of attack 'corruption'"):
        checked(Corruption, settings, "attack 'corruption'")
