"""Detectors composed of a backbone and a head."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sslrob_mmdet.heads import config
from sslrob_mmdet.losses import NAMES as LOSSES
from sslrob_mmdet.losses import overlaps
from sslrob_mmdet.objects import Detections, Objects, objects
from sslrob_mmdet.task import Detection
from torch import Tensor, nn
from torchvision.ops import batched_nms

from sslrob.backbone import Backbone, Features
from sslrob.builtin.gradient import PGD
from sslrob.data import Batch
from sslrob.errors import SslrobError
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.threat_model import Linf

KINDS = ("fcos", "faster-rcnn")
CLASSES = ("red", "green", "blue")
HEAD = {"width": 16, "score": 0.05}
SIZE = (70, 90)  # sides that no stride divides


class ToyBackbone(Backbone):
    """Four maps of strides 4 to 32, without BatchNorm."""

    channels = (8, 12, 16, 24)
    strides = (4, 8, 16, 32)
    width = 24

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), persistent=False)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        pairs = zip((8, *self.channels), self.channels, strict=False)
        self.stages = nn.ModuleList([nn.Conv2d(i, o, 3, 2, 1) for i, o in pairs])

    def forward(self, images: Tensor) -> Features:
        x, maps = self.stem((images - self.mean) / 0.25), []
        for stage in self.stages:
            x = stage(nn.functional.gelu(x))
            maps.append(x)
        return Features(x.mean((2, 3)), tuple(maps))


def scenes(n: int, seed: int) -> tuple[Tensor, list[Objects]]:
    """Grey noise with one or two rectangles; the colour is the class."""
    g = torch.Generator().manual_seed(seed)
    h, w = SIZE
    images, truths = 0.4 + 0.05 * torch.randn(n, 3, h, w, generator=g), []
    for image in images:
        boxes, labels = [], []
        for side in range(int(torch.randint(1, 3, (), generator=g))):
            bh, bw = (int(torch.randint(24, 40, (), generator=g)) for _ in "hw")
            y, x = int(torch.randint(h - bh, (), generator=g)), int(torch.randint(45 - bw, (), generator=g)) + 45 * side
            labels.append(int(torch.randint(3, (), generator=g)))
            image[labels[-1], y : y + bh, x : x + bw] += 0.5
            boxes.append([x, y, x + bw, y + bh])
        truths.append(objects(torch.tensor(boxes, dtype=torch.float), torch.tensor(labels)))
    return images.clamp(0, 1), truths


def nothing() -> Objects:
    return objects(torch.empty(0, 4), torch.empty(0, dtype=torch.long))


@pytest.fixture(scope="module")
def trained():
    """One victim a kind, trained for as long as it takes to find something."""
    victims = {}
    for kind, steps, rate in (("fcos", 100, 1e-2), ("faster-rcnn", 60, 4e-3)):
        torch.manual_seed(0)
        victim = Detection().victim(ToyBackbone(), kind=kind, classes=CLASSES, settings=HEAD).train()
        optimizer = torch.optim.AdamW(victim.parameters(), lr=rate)
        for step in range(steps):
            images, truths = scenes(4, 100 + step)
            loss = victim.loss(victim(images), truths, "train", 1.0).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(victim.parameters(), 5.0)
            optimizer.step()
        victims[kind] = victim.eval().requires_grad_(False)
    return victims


def look(victim, images: Tensor, targets, name: str) -> tuple[Tensor, Tensor]:
    x = images.clone().requires_grad_()
    loss = victim.loss(victim(x), targets, name, 0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_of_one_image_and_the_same_each_time(trained, kind, name):
    victim = trained[kind]
    images, truths = scenes(4, 0)
    truths[3] = nothing()
    loss, gradient = look(victim, images, truths, name)
    again, gradient_again = look(victim, images, truths, name)
    assert loss.shape == (4,)
    assert loss.isfinite().all()
    assert torch.equal(loss, again)
    assert torch.equal(gradient, gradient_again)
    silent = {"box", "dag", *(["objectness"] if kind == "fcos" else [])}  # without objects there is nothing to say about where they are
    signal = slice(0, 3 if name in silent else 4)
    assert (gradient[signal].flatten(1).abs().amax(1) > 0).all()
    for i in range(4):
        alone, alone_gradient = look(victim, images[i : i + 1], truths[i : i + 1], name)
        torch.testing.assert_close(alone[0], loss[i], rtol=1e-4, atol=1e-5)
        difference = (alone_gradient[0] - gradient[i]).norm()
        assert difference <= 1e-3 * gradient[i].norm() + 1e-7
    if name in silent:
        assert loss[3].abs() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_add_up(trained, kind):
    victim = trained[kind]
    images, truths = scenes(3, 1)
    outputs = victim(images)
    train, cls, box, objectness, vanish = (victim.loss(outputs, truths, name, 1.0) for name in LOSSES[:5])
    torch.testing.assert_close(train, cls + box)
    assert (objectness < (box if kind == "fcos" else cls)).all()  # it is a part of that
    torch.testing.assert_close(vanish, -victim.loss(outputs, [nothing()] * 3, "train", 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_no_loss_draws_or_leaves_a_trace(trained, kind):
    victim = trained[kind]
    images, truths = scenes(2, 2)
    modes, state = [m.training for m in victim.modules()], {k: v.clone() for k, v in victim.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    outputs = victim(images)
    for name in victim.losses:
        victim.loss(outputs, truths, name, 1.0)
    victim.fooled(outputs, truths)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()
    assert modes == [m.training for m in victim.modules()]
    assert all(torch.equal(value, state[key]) for key, value in victim.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_training_found_the_objects(trained, kind):
    victim, task = trained[kind], Detection()
    images, truths = scenes(12, 3)
    outputs = victim(images)
    predictions = victim.predict(outputs)
    rows = [task.measure(p, t) for p, t in zip(predictions, truths, strict=True)]
    assert task.aggregate(rows)["AP50"] > 30
    assert victim.fooled(outputs, truths).sum() <= 6
    for found in predictions:
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert (found.boxes[:, 2] <= SIZE[1]).all()
        assert (found.boxes[:, 3] <= SIZE[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_lowers_quality(trained, kind):
    victim = trained[kind]
    images, truths = scenes(6, 4)
    moved = images.clone()
    for _ in range(6):
        _, gradient = look(victim, moved, truths, "train")
        moved = (moved + 0.02 * gradient.sign()).clamp(images - 0.06, images + 0.06).clamp(0, 1)
    noise = (images + 0.06 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 1)
    clean, attacked, control = (victim.quality(victim(x), truths).mean() for x in (images, moved, noise))
    assert attacked < 0.5 * control
    assert attacked < 0.5 * clean


def still_right(victim, images, truths) -> Tensor:
    """The share of the candidates on true objects whose likeliest class is the true one."""
    right = [
        (found.logs.argmax(1) == truth.labels[:, None])[overlaps(found, truth) >= 0.5]
        for found, truth in zip(victim._candidates(victim(images)), truths, strict=True)
    ]
    return torch.cat(right).float().mean()


GOALS = {  # what has to rise
    "vanish": lambda victim, x, truths: -sum(found.scores[:1].sum() for found in victim.predict(victim(x))),
    "fabricate": lambda victim, x, truths: sum(found.scores.sum() for found in victim.predict(victim(x))),
    "mislabel": lambda *case: -still_right(*case),
    "dag": lambda *case: -still_right(*case),
    "ranking": lambda victim, x, truths: -victim.quality(victim(x), truths).mean(),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("faster-rcnn", name) for name in GOALS),
        *(("fcos", name) for name in ("vanish", "fabricate", "ranking")),
    ],  # its classes are guesses
)
def test_each_goal_is_reached(trained, kind, name):
    victim = trained[kind]
    images, truths = scenes(6, 4)
    moved = images.clone()
    for _ in range(5):
        _, gradient = look(victim, moved, truths, name)
        moved = (moved + 0.02 * gradient.sign()).clamp(images - 0.06, images + 0.06).clamp(0, 1)
    before, after = (GOALS[name](victim, x, truths) for x in (images, moved))
    assert after > before + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_one_pass_whatever_the_goal(trained, kind):
    images, truths = scenes(2, 4)
    batch = Batch(("a", "b"), images, tuple(truths))
    for name in ("fabricate", "mislabel", "ranking"):
        objective = build(f"task:{name}", trained[kind], batch, "white-box")
        PGD(steps=3).perturb(objective, images, Linf(0.01), streams=Streams(0, batch.ids))
        assert objective.cost.forwards.tolist() == [4, 4]
        assert objective.cost.backwards.tolist() == [3, 3]
        assert not objective.cost.dead.any()


@pytest.mark.parametrize("kind", KINDS)
def test_in_training_mode_all_of_the_head_learns(kind):
    torch.manual_seed(0)
    victim = Detection().victim(ToyBackbone(), kind=kind, classes=CLASSES, settings=HEAD).train()
    images, truths = scenes(4, 5)
    victim.loss(victim(images), truths, "train", 1.0).mean().backward()
    still = [name for name, p in victim.named_parameters() if p.grad is None]
    assert not still
    assert all(m.training for m in victim.modules())


def test_the_backbone_is_there_once(trained):
    victim = trained["fcos"]
    assert isinstance(victim.backbone, ToyBackbone)
    keys = [key for key in victim.state_dict() if key.endswith("stem.weight")]
    assert keys == ["detector.backbone.backbone.stem.weight"]
    for one in trained.values():
        places = [value.data_ptr() for value in one.state_dict().values()]
        assert len(set(places)) == len(places)
    copied = copy.deepcopy(victim)
    assert copied.backbone is not victim.backbone
    images, truths = scenes(1, 6)
    assert torch.equal(copied.loss(copied(images), truths, "train", 1.0), victim.loss(victim(images), truths, "train", 1.0))


def test_initial_weights_of_the_backbone_are_left_alone():
    backbone = ToyBackbone()
    before = copy.deepcopy(backbone.state_dict())
    victim = Detection().victim(backbone, kind="fcos", classes=CLASSES, settings=HEAD)
    assert victim.backbone is backbone
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


class Fixed:
    """Stands in for a detector's predictions."""

    def __init__(self, boxes, scores, labels) -> None:
        self.found = Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.long))


def judged(victim, found: Fixed, truth: Objects) -> tuple[bool, float]:
    images, _ = scenes(1, 0)
    outputs = victim(images)
    outputs.found = [found.found]
    return bool(victim.fooled(outputs, [truth])[0]), float(victim.quality(outputs, [truth])[0])


def test_fooled_and_quality(trained):
    victim = trained["fcos"]
    box, other = [10.0, 10, 50, 50], [60.0, 10, 80, 40]
    one, two = (objects(torch.tensor(b), torch.tensor(labels)) for b, labels in (([box], [1]), ([box, other], [1, 2])))
    assert judged(victim, Fixed([box], [0.9], [1]), one) == (False, pytest.approx(0.9))
    assert judged(victim, Fixed([box], [0.9], [1]), two) == (False, pytest.approx(0.45))
    assert judged(victim, Fixed([box], [0.2], [1]), one) == (False, pytest.approx(0.2))  # found, if not surely
    assert judged(victim, Fixed([box], [0.9], [2]), one) == (True, pytest.approx(-0.81))  # another class
    assert judged(victim, Fixed([[10.0, 10, 50, 34]], [0.9], [1]), one) == (False, pytest.approx(0.9 * 0.3))  # IoU 0.6: 3 of 10
    assert judged(victim, Fixed([[10.0, 10, 50, 29]], [0.9], [1]), one) == (True, pytest.approx(-0.81))
    assert judged(victim, Fixed([box, other], [0.9, 0.5], [1, 1]), one) == (False, pytest.approx(0.9 - 0.25))
    assert judged(victim, Fixed([], [], []), one) == (True, 0.0)
    assert judged(victim, Fixed([], [], []), nothing()) == (False, 0.0)
    assert judged(victim, Fixed([box], [0.2], [0]), nothing()) == (False, pytest.approx(-0.04))
    assert judged(victim, Fixed([box], [0.5], [0]), nothing()) == (True, pytest.approx(-0.25))
    crowded = objects(torch.tensor([box]), torch.tensor([1]), crowd=torch.tensor([[55.0, 0, 90, 70]]))
    assert judged(victim, Fixed([box, other], [0.9, 0.5], [1, 1]), crowded) == (False, pytest.approx(0.9))


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("fcos", {"widht": 64}, ["'widht'", "'fcos'"]),
        ("fcos", {"width": "wide"}, ["'width'"]),
        ("fcos", {"width": 20}, ["'width'", "20"]),
        ("fcos", {"levels": 2}, ["8, 16", "4, 8, 16, 32"]),
        ("fcos", {"finest": 2}, ["'finest'", "4, 8, 16, 32"]),
        ("faster-rcnn", {"reach": 4}, ["'reach'"]),
        ("yolo", {}, ["'yolo'"]),
    ],
)
def test_wrong_settings(kind, settings, words):
    with pytest.raises(SslrobError) as told:
        Detection().victim(ToyBackbone(), kind=kind, classes=CLASSES, settings=settings)
    assert all(word in str(told.value) for word in words), str(told.value)
    assert told.value.hint


@pytest.mark.parametrize(
    ("kind", "settings"), [("fcos", {"levels": 5, "reach": 8}), ("faster-rcnn", {"finest": 4, "levels": 5, "samples": 0})]
)
def test_settings_for_large_images(kind, settings):
    victim = Detection().victim(ToyBackbone(), kind=kind, classes=CLASSES, settings={**HEAD, **settings}).eval()
    images, truths = (
        torch.rand(1, 3, 200, 260, generator=torch.Generator().manual_seed(0)),
        [objects(torch.tensor([[10.0, 20, 190, 180]]), torch.tensor([0]))],
    )
    outputs = victim(images)
    assert len(outputs.maps) == 5
    assert (outputs.size, outputs.padded) == ((200, 260), (224, 288))
    assert victim.loss(outputs, truths, "train", 1.0).isfinite().all()


@pytest.mark.parametrize(("strides", "finest"), [((4, 8, 16, 32), 8), ((16,), 16), ((14,), 14), ((2, 4), 4)])
def test_the_usual_pyramid_begins_where_the_backbone_has_a_map(strides, finest):
    backbone = SimpleNamespace(strides=strides, channels=(8,) * len(strides))
    found = config(backbone, kind="fcos", classes=2, settings={})
    assert found["bbox_head"]["strides"] == [finest, 2 * finest, 4 * finest]


def test_detections_are_drawn(trained):
    picture = Image.new("RGB", (2 * SIZE[1], 2 * SIZE[0]))
    found = Detections(torch.tensor([[10.0, 10, 40, 40], [50.0, 10, 60, 20]]), torch.tensor([0.9, 0.2]), torch.tensor([1, 0]))
    Detection().draw(ImageDraw.Draw(picture), found, classes=CLASSES, scale=2)
    assert picture.getpixel((20, 60)) != (0, 0, 0)
    assert picture.crop((100, 20, 122, 42)).getbbox() is None  # a score below 0.3


@pytest.fixture(scope="module")
def untrained():
    victims = {}
    for kind in KINDS:
        torch.manual_seed(0)
        settings = {**HEAD, "score": 1e-6, "overlap": 0.5}
        victims[kind] = Detection().victim(ToyBackbone(), kind=kind, classes=CLASSES, settings=settings).eval().requires_grad_(False)
    return victims


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_become_the_detections(untrained, kind):
    """Dropping the overlapping ones of each class leaves what the detector finds."""
    victim, (images, _) = untrained[kind], scenes(2, 0)
    outputs = victim(images)
    for found, detections in zip(victim._candidates(outputs), victim.predict(outputs), strict=True):
        labels = torch.arange(3).expand(len(found.logs), -1)
        boxes, scores, labels = found.boxes.reshape(-1, 4), found.logs.exp().flatten(), labels.flatten()
        real = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, scores, labels = boxes[real], scores[real], labels[real]
        kept = batched_nms(boxes, scores, labels, 0.5)[: len(detections.scores)]
        torch.testing.assert_close(scores[kept], detections.scores, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(boxes[kept][0], detections.boxes[0], rtol=1e-3, atol=1e-2)


def known(victim) -> list[str]:
    """What the refusal of an objective says there is."""
    with pytest.raises(SslrobError) as told:
        build("qqqq", victim, Batch(("a",), scenes(1, 0)[0], tuple(scenes(1, 0)[1])), "white-box")
    return told.value.hint.removeprefix("known: ").split(", ")


def test_what_a_detector_lacks_is_refused_by_name(untrained):
    torch.manual_seed(0)
    victim = Detection().victim(ToyBackbone(), kind="fcos", classes=["only"], settings=HEAD)
    assert "task:ranking" in known(victim)
    assert "task:dag" not in known(victim)  # there is no wrong class
    assert "task:mislabel" not in known(victim)
    assert "task:objectness" in known(victim)
    head = victim.detector.bbox_head
    del head.loss_centerness
    assert "task:objectness" not in known(victim)
    with pytest.raises(SslrobError, match="'task:objectness'"):
        build("task:objectness", victim, Batch(("a",), *scenes(1, 0)), "white-box")

    class Odd(type(head)):
        """A head that decodes its boxes in its own way."""

        def _predict_by_feat_single(self, *args, **kwargs): ...

    head.__class__ = Odd
    assert {name for name in known(victim) if ":" in name} == {"task:train", "task:cls", "task:box", "task:vanish"}
    assert set(victim.strongest) <= set(victim.losses)
    for kind in KINDS:
        assert len(untrained[kind].losses) == 9
