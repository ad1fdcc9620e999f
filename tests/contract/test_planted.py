"""The contract checks catch what they are for: one planted fault each."""

import random
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import pytest
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from sslrob import Attack, Backbone, Defense, Features
from sslrob.attack import Best
from sslrob.builtin.gradient import FGSM, PGD
from sslrob.builtin.restarts import Restarts
from sslrob.defense import Training
from sslrob.objective import build
from sslrob.testing import (
    LinearVictim,
    ToyBackbone,
    ToyDataset,
    ToySegmenter,
    ToyTask,
    check_attack,
    check_backbone,
    check_defense,
    check_settings,
    check_strength,
    check_task,
    check_victim,
    toys,
)
from sslrob.threat_model import Linf


def complaint(check, *args, **keywords):
    with pytest.raises(AssertionError) as caught:
        check(*args, **keywords)
    return str(caught.value)


# attacks


class Cheat(PGD):
    def perturb(self, objective, images, threat_model, *, streams):
        return super().perturb(objective, images, type(threat_model)(1.2 * threat_model.epsilon), streams=streams)


class InPlace(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        return images.copy_(super().perturb(objective, images, threat_model, streams=streams))


class Graph(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        return super().perturb(objective, images, threat_model, streams=streams).requires_grad_()


class GlobalNoise(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        return threat_model.project(images + 0.01 * torch.randn_like(images), images)


class GlobalChoice(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        return images.clone() if random.random() < 0.5 else threat_model.project(images + 0.001, images)


class Backward(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        x = images.clone().requires_grad_()
        objective(x).loss.sum().backward()
        return threat_model.project(images + threat_model.steepest(x.grad, images), images)


class BatchMean(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x).loss.sum(), x)
        return threat_model.project(images + threat_model.steepest(gradient.mean(0, keepdim=True).expand_as(x), images), images)


class WaitsForOthers(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        for _ in images[1:]:
            objective(images)
        return super().perturb(objective, images, threat_model, streams=streams)


class Half(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        return super().perturb(objective, images, threat_model, streams=streams).half()


@dataclass(frozen=True)
class Counting(FGSM):
    seen: list[int] = field(default_factory=list)

    def perturb(self, objective, images, threat_model, *, streams):
        self.seen.append(len(images))
        return super().perturb(objective, images, threat_model, streams=streams)


class ChangesVictim(FGSM):
    def perturb(self, objective, images, threat_model, *, streams):
        with torch.no_grad():
            next(objective.victim.parameters()).mul_(1.01)
        return super().perturb(objective, images, threat_model, streams=streams)


class Mutable(Attack):
    def perturb(self, objective, images, threat_model, *, streams):
        return images.clone()


@dataclass(frozen=True)
class Claims(PGD):
    """Says that it draws nothing, and starts at random."""

    randomised: ClassVar[bool] = False


@dataclass(frozen=True)
class Elsewhere(FGSM):
    tasks: ClassVar[frozenset[str]] = frozenset({"depth"})


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (Cheat(), "left the threat model"),
        (InPlace(), "changed its input in place"),
        (Graph(), "carry a graph"),
        (GlobalNoise(), "global generator of torch"),
        (GlobalChoice(), "global generator of random"),
        (Backward(), "left a gradient"),
        (BatchMean(), "let no image depend on another"),
        (WaitsForOthers(), "let what an image spends depend on no other"),
        (Half(), "returned (torch.float16"),
        (Counting(), "changed its own settings"),
        (ChangesVictim(), "changed 'weight'"),
        (Mutable(), "not a frozen dataclass"),
        (Claims(), "leave `randomised` at True"),
        (Elsewhere(), "none of which has a toy"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Attack) else "",
)
def test_attack_faults_are_caught(attack, says):
    assert says in complaint(check_attack, attack)


@pytest.mark.parametrize(
    "attack",
    [PGD(steps=1, step_size=0.1), PGD(steps=3, step_size=0.1), FGSM()],
    ids=["one-short-step", "three-short-steps", "no-move"],
)
def test_weaklings_are_caught(attack, monkeypatch):
    if isinstance(attack, FGSM):
        monkeypatch.setattr(FGSM, "perturb", lambda self, objective, images, threat_model, *, streams: images.clone())
    assert "too weak" in complaint(check_strength, attack)


def test_a_cheat_is_caught_by_its_strength():
    assert "which no allowed image can" in complaint(check_strength, Cheat(), slack=None)


@pytest.mark.parametrize("attack", [Restarts(PGD(steps=3), 2), PGD(steps=7, random_start=False)], ids=["restarts", "from-clean"])
def test_sound_attacks_pass(attack):
    check_attack(attack)


# victims


class OverBatch(ToySegmenter):
    def loss(self, outputs, targets, name, progress):
        return super().loss(outputs, targets, name, progress) * outputs.mean()


class OneNumber(ToySegmenter):
    def loss(self, outputs, targets, name, progress):
        return super().loss(outputs, targets, name, progress).mean()


class Sampled(ToySegmenter):
    def loss(self, outputs, targets, name, progress):
        return super().loss(outputs, targets, name, progress) * (1 + torch.rand(()))


class Detached(ToySegmenter):
    def loss(self, outputs, targets, name, progress):
        return super().loss(outputs.detach(), targets, name, progress)


class ScaledByBatch(ToySegmenter):
    """No gradient between images, and yet they depend on each other."""

    def loss(self, outputs, targets, name, progress):
        return super().loss(outputs, targets, name, progress) / len(outputs)


class Remembers(ToySegmenter):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        self.seen += 1
        return super().forward(images)


class FloatVerdict(ToySegmenter):
    def fooled(self, outputs, targets):
        return super().fooled(outputs, targets).float()


class NanQuality(ToySegmenter):
    def quality(self, outputs, targets):
        return super().quality(outputs, targets) * float("nan")


class OnePrediction(ToySegmenter):
    def predict(self, outputs):
        return super().predict(outputs)[:1]


@pytest.mark.parametrize(
    ("victim", "says"),
    [
        (OverBatch(), "gradient at other images"),
        (OneNumber(), "has shape ()"),
        (Sampled(), "differ"),
        (Detached(), "carries no graph"),
        (ScaledByBatch(), "alone and in a batch differ"),
        (Remembers(), "changed 'seen'"),
        (FloatVerdict(), "fooled is torch.float32"),
        (NanQuality(), "quality is NaN"),
        (OnePrediction(), "returned 1 predictions"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_victim_faults_are_caught(victim, says):
    batch = toys()["segmentation"].batch()
    assert says in complaint(check_victim, victim, batch.images, batch.targets)


@pytest.mark.parametrize("kind", ["classification", "segmentation", "detection"])
def test_toys_keep_the_contracts_of_victims_and_tasks(kind):
    toy = toys()[kind]
    batch = toy.batch()
    check_victim(toy.victim, batch.images, batch.targets)
    check_task(toy.task, toy.dataset, toy.victim)


def test_a_target_without_signal_may_have_no_gradient():
    class Capped(LinearVictim):
        losses = ("margin",)

        def loss(self, outputs, targets, name, progress):
            return super().loss(outputs, targets, name, progress).clamp_min(-3.2)

    batch = toys()["classification"].batch()  # margins 2, 2.5, 3, 3.5, 4, 4.5
    assert "zero gradient for image [3]" in complaint(check_victim, Capped(), batch.images, batch.targets)
    check_victim(Capped(), batch.images, batch.targets, signal=[True, True, True, False, False, False])


def test_one_image_shows_nothing():
    batch = toys()["classification"].batch()
    with pytest.raises(ValueError, match="too few"):
        check_victim(LinearVictim(), batch.images[:1], batch.targets[:1])


# tasks


class Tuples(ToyTask):
    def measure(self, prediction, target):
        return {**super().measure(prediction, target), "size": (1, 2)}


class Shares(ToyTask):
    """A mean that forgets the weights."""

    def aggregator(self, rows):
        return lambda weights: {"right": 100 * sum(row["right"] / row["of"] for row in rows) / len(rows)}


class Fractions(ToyTask):
    def aggregator(self, rows):
        return lambda weights: {"right": 100.5 * float(weights @ [row["right"] for row in rows])}


class OtherHeadline(ToyTask):
    headline = "map"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Tuples(), "changes when stored as JSON"),
        (Shares("segmentation"), "counts as often as its weight"),
        (Fractions(), "metrics are in percent"),
        (OtherHeadline(), "but the metrics are right"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ToyTask) else "",
)
def test_task_faults_are_caught(task, says):
    toy = toys()[task.kind]
    dataset = toy.dataset
    if isinstance(task, Shares):  # right about some pixels only, so that rows differ
        dataset = ToyDataset(dataset.images, [(t + torch.arange(8) // (7 - i)) % 3 for i, t in enumerate(dataset.targets)], "planted")
    assert says in complaint(check_task, task, dataset, toy.victim)


def test_dataset_faults_are_caught():
    toy = toys()["classification"]
    twice = ToyDataset(toy.dataset.images, toy.dataset.targets, "f")
    twice.ids = ("same",) * len(twice)
    assert "an id twice" in complaint(check_task, toy.task, twice, toy.victim)
    normalised = ToyDataset(toy.dataset.images * 2 - 1, toy.dataset.targets, "f")
    assert "stay in [0, 1]" in complaint(check_task, toy.task, normalised, toy.victim)
    nameless = ToyDataset(toy.dataset.images, toy.dataset.targets, "")
    assert "fingerprint" in complaint(check_task, toy.task, nameless, toy.victim)


# backbones


class Unnormalised(ToyBackbone):
    def forward(self, images):
        return super().forward(images + self.mean)


class WrongStride(ToyBackbone):
    def __init__(self):
        super().__init__()
        self.strides = (1, 4)


class Floor(ToyBackbone):
    def forward(self, images):
        features = super().forward(images)
        return Features(features.pooled, (features.maps[0], F.avg_pool2d(features.maps[0], 2)))


class BatchNorm(ToyBackbone):
    def forward(self, images):
        features = super().forward(images)
        return Features(features.pooled - features.pooled.mean(0), features.maps)


class NoBuffer(ToyBackbone):
    def __init__(self):
        super().__init__()
        mean = self.mean
        del self.mean
        self.mean = mean


class Dropout(ToyBackbone):
    def forward(self, images):
        features = super().forward(images)
        return Features(F.dropout(features.pooled, 0.5, training=True), features.maps)


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        (Unnormalised(), "not 0; normalise"),
        (WrongStride(), "promise"),
        (Floor(), "promise"),
        (BatchNorm(), "depends on another image"),
        (NoBuffer(), "no buffer `mean`"),
        (Dropout(), "zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Backbone) else "",
)
def test_backbone_faults_are_caught(backbone, says):
    torch.manual_seed(0)
    message = complaint(check_backbone, backbone, sizes=[(16, 16), (17, 21)])
    assert says in message or (isinstance(backbone, Dropout) and "differs from call to call" in message)


@pytest.mark.parametrize("levels", [1, 4])
def test_the_toy_backbone_keeps_the_contract(levels):
    check_backbone(ToyBackbone(levels))


# defenses


@dataclass(frozen=True)
class Align(Defense):
    """Pull the adversarial embedding to the clean one."""

    steps: Annotated[int, Field(description="batches shown")] = 10
    batch_size: Annotated[int, Field(description="images in each")] = 3
    rate: Annotated[float, Field(description="step of the gradient descent")] = 0.5
    momentum: Annotated[float, Field(description="share of the last step that is taken again")] = 0.5
    in_place: Annotated[bool, Field(description="spoil the given backbone")] = False
    forgetful: Annotated[bool, Field(description="keep no momentum")] = False

    def begin(self, backbone, attack, threat_model):
        return Aligning(self, backbone, attack, threat_model)


class Aligning(Training):
    def __init__(self, settings, backbone, attack, threat_model):
        self.settings, self.attack, self.threat_model = settings, attack, threat_model
        self.backbone = backbone if settings.in_place else deepcopy(backbone)
        self.optimizer = torch.optim.SGD(self.backbone.parameters(), abs(settings.rate), settings.momentum, maximize=settings.rate < 0)

    def step(self, batch, streams, progress):
        victim = LinearVictim()
        victim.body = self.backbone
        objective = build("embedding", victim, batch, self.attack.access)
        found = self.attack.perturb(objective, batch.images.clone(), self.threat_model, streams=streams)
        loss = (self.backbone(found).pooled - self.backbone(batch.images).pooled).square().sum(1).mean()
        for parameter, gradient in zip(
            self.backbone.parameters(), torch.autograd.grad(loss, list(self.backbone.parameters())), strict=True
        ):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss": loss.item()}

    def state(self):
        kept = {"backbone": self.backbone.state_dict()}
        return kept if self.settings.forgetful else {**kept, "optimizer": self.optimizer.state_dict()}

    def restore(self, state):
        self.backbone.load_state_dict(state["backbone"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])


def test_a_sound_defense_passes():
    check_defense(Align(rate=10.0))
    check_settings(Align)


@pytest.mark.parametrize(
    ("defense", "says"),
    [
        (Align(in_place=True), "trains the backbone that it was given"),
        (Align(rate=-10.0), "training must lower it"),
        (Align(rate=0.0), "left the weights as they were"),
        (Align(rate=10.0, forgetful=True), "went on from its state ended differently"),
        (Align(rate=10.0, steps=2.5), "a whole number"),
    ],
    ids=["in-place", "uphill", "no-step", "forgetful", "half-a-step"],
)
def test_defense_faults_are_caught(defense, says):
    assert says in complaint(check_defense, defense)


# settings


def test_settings_faults_are_caught():
    @dataclass(frozen=True)
    class NoDefault(FGSM):
        length: Annotated[int, Field(description="of something")] = field(kw_only=True)

    @dataclass(frozen=True)
    class Silent(FGSM):
        length: int = 3

    @dataclass(frozen=True)
    class Documented(FGSM):
        """Args:
        length, width: of something.
        """

        length: int = 3
        width: int = 4

    @dataclass(frozen=True)
    class Loose(FGSM):
        __pydantic_config__: ClassVar[dict] = {"extra": "ignore"}

    @dataclass(frozen=True)
    class OutOfRange(FGSM):
        length: Annotated[int, Field(ge=1, description="of something")] = 3

    assert "'length' of NoDefault has no default" in complaint(check_settings, NoDefault)
    assert "'length' of Silent has no description" in complaint(check_settings, Silent)
    assert "misspelt setting" in complaint(check_settings, Loose)
    for sound in (Documented, OutOfRange, PGD, ToyBackbone, ToyTask):
        check_settings(sound)


def test_a_single_image_is_a_batch_too():
    """The smallest attack there is keeps the contract."""

    @dataclass(frozen=True)
    class Nothing(Attack):
        access: ClassVar[str] = "decision"

        def perturb(self, objective, images, threat_model, *, streams):
            return Best(images).images

    check_attack(Nothing(), threat_models=[Linf(1 / 255)])
    check_strength(Nothing(), slack=None)
