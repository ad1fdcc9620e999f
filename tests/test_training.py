"""The training loop: it learns, leaves a frozen backbone alone, and goes on after a kill as if there had been none."""

import copy

import pytest
import torch
from torch import nn

from sslrob.backbone import Backbone, Features
from sslrob.builtin.classification import LinearClassifier
from sslrob.data import Batch
from sslrob.training import Schedule, train


class Small(Backbone):
    width, channels, strides = 4, (4,), (1,)

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5), persistent=False)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images):
        maps = self.norm(self.conv(images - self.mean)).relu()
        return Features(maps.mean((2, 3)), (maps,))


def victim():
    torch.manual_seed(0)
    return LinearClassifier(Small(), 3)


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(4):
        labels = torch.randint(3, (12,), generator=generator)
        images = 0.2 * torch.rand(12, 3, 8, 8, generator=generator) + 0.7 * nn.functional.one_hot(labels, 3)[..., None, None]
        yield Batch(tuple("abcdefghijkl"), images.clamp(0, 1), tuple(labels.tolist()))


@pytest.mark.parametrize("part", ["head", "all"])
def test_it_learns_and_trains_what_it_was_told_to(part):
    trained, log = victim(), []
    before = copy.deepcopy(trained.state_dict())
    train(trained, batches, 4, Schedule(epochs=12, learning_rate=0.1, train=part), log=log.append)
    assert [row["epoch"] for row in log] == list(range(1, 13))
    assert log[-1]["loss"] < 0.75 * log[0]["loss"]
    assert not trained.training
    unchanged = {name for name, tensor in trained.state_dict().items() if torch.equal(tensor, before[name])}
    assert unchanged == ({name for name in before if name.startswith("body.")} if part == "head" else set())


def test_resumed_equals_uninterrupted(tmp_path):
    schedule, whole, resumed = Schedule(epochs=4, learning_rate=0.05, train="all"), victim(), victim()
    train(whole, batches, 4, schedule)

    def killed(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(resumed, batches, 4, schedule, checkpoint=tmp_path / "part.pt", log=killed)
    fresh, seen = victim(), []
    train(fresh, batches, 4, schedule, checkpoint=tmp_path / "part.pt", log=seen.append)
    assert [row["epoch"] for row in seen] == [3, 4]
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_the_rate_warms_up_and_falls_to_zero():
    schedule = Schedule(epochs=1, learning_rate=1, warmup=0.1)
    rates = [schedule.rate(p / 100) for p in range(101)]
    assert max(rates) == pytest.approx(1)
    assert rates.index(max(rates)) == 10
    assert rates[5] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
