"""The loop of defenses: the same to the bit wherever it was stopped, and clear words where it cannot run."""

import copy
import json
from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
from pydantic import Field

from sslrob import Defense, Linf, SslrobError
from sslrob.builtin.gradient import PGD
from sslrob.data import Sample
from sslrob.defense import Training
from sslrob.errors import RunFailed
from sslrob.hardening import StepLog, harden, shown
from sslrob.testing import ToyBackbone
from sslrob.testing.toy_tasks import ToyDataset

ATTACK, LIMITS = PGD(steps=2), Linf(8 / 255)


class Stopped(Exception):
    """What a kill is to a test."""


@dataclass(frozen=True)
class Noisy(Defense):
    """Walk at random: each step depends on its images, its random numbers and the steps before."""

    steps: Annotated[int, Field(description="batches")] = 7
    batch_size: Annotated[int, Field(description="images")] = 3
    bad_from: Annotated[int, Field(description="the loss is not finite from this step on")] = 99

    def begin(self, backbone, attack, threat_model):
        return Walk(self, backbone)


class Walk(Training):
    def __init__(self, settings, natural):
        self.settings, self.backbone, self.count = settings, copy.deepcopy(natural), 0

    def step(self, batch, streams, progress):
        self.count += 1
        move = (batch.images.mean((2, 3))[:, :, None, None, None] * streams.normal((3, 3, 1, 1))).mean(0).movedim(0, 1)
        with torch.no_grad():
            self.backbone.mix.weight += 0.01 * (1 - progress) * self.count * move.movedim(0, 1)
        return {"loss": float("nan") if self.count >= self.settings.bad_from else float(move.sum()), "count": self.count}

    def state(self):
        return {"backbone": self.backbone.state_dict(), "count": self.count}

    def restore(self, state):
        self.backbone.load_state_dict(state["backbone"])
        self.count = state["count"]


@pytest.fixture
def data():
    return ToyDataset(torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), range(8), "eight")


def weights(backbone):
    return backbone.state_dict()["mix.weight"]


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_hardening_that_was_stopped_ends_as_the_uninterrupted_one(data, tmp_path, stop):
    natural, told = ToyBackbone(), []
    whole = harden(Noisy(), natural, data, ATTACK, LIMITS, log=told.append)
    log = StepLog(tmp_path / "log.jsonl")

    def stopping(measures):
        log(measures)
        if measures["step"] == stop:
            raise Stopped

    keywords = {"checkpoint": tmp_path / "part.pt", "every": 0}
    with pytest.raises(Stopped):
        harden(Noisy(), natural, data, ATTACK, LIMITS, log=stopping, **keywords)
    assert (tmp_path / "part.pt").exists() == (stop > 1)
    again = []

    def listening(measures):
        again.append(measures["step"])
        log(measures)

    log = StepLog(tmp_path / "log.jsonl")
    resumed = harden(Noisy(), natural, data, ATTACK, LIMITS, log=listening, **keywords)
    assert torch.equal(weights(whole), weights(resumed))
    assert again == list(range(stop, 8))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["loss"] for line in lines] == pytest.approx([measures["loss"] for measures in told], abs=1e-6)
    assert not torch.equal(weights(whole), weights(natural))


def test_seeds_differ_and_repeat(data):
    first, again, other = (harden(Noisy(), ToyBackbone(), data, ATTACK, LIMITS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_checkpoints_are_kept_at_the_end_whatever_the_clock_says(data, tmp_path):
    harden(Noisy(), ToyBackbone(), data, ATTACK, LIMITS, checkpoint=tmp_path / "part.pt", every=1e9)
    assert torch.load(tmp_path / "part.pt", weights_only=True)["step"] == 7


def test_an_epoch_shows_no_image_twice_and_each_in_a_new_order(data):
    epochs = [[id for step in (2 * epoch, 2 * epoch + 1) for id in shown(data, 4, step, 0).ids] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(data.ids) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_fewer_images_than_a_batch_are_told(data):
    with pytest.raises(SslrobError, match="8 images are fewer than a batch of 9") as caught:
        harden(Noisy(batch_size=9), ToyBackbone(), data, ATTACK, LIMITS)
    assert "--set batch_size=8" in caught.value.hint


def test_images_of_several_sizes_are_told(data):
    class Mixed(ToyDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.id, sample.image[:, : 3 + index % 2], sample.target)

    mixed = Mixed(data.images, data.targets, "mixed")
    with pytest.raises(SslrobError, match="several sizes, such as 4 × 3 and 4 × 4"):
        harden(Noisy(batch_size=8), ToyBackbone(), mixed, ATTACK, LIMITS)


def test_a_loss_that_is_not_finite_ends_it(data):
    with pytest.raises(RunFailed, match="step 3 of 7"):
        harden(Noisy(bad_from=3), ToyBackbone(), data, ATTACK, LIMITS)


def test_a_torn_line_of_the_log_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    StepLog(path)({"step": 2, "loss": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.5}]
