"""Pretraining: views, resuming, the probes; on a toy pool."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sslrob_mini.augment import Cropping, Placing, Recolouring, compose, crop, place, recolour
from sslrob_mini.pretrain.__main__ import main
from sslrob_mini.pretrain.loop import learning_rate, pretrain
from sslrob_mini.pretrain.pool import Pool, read, write
from sslrob_mini.pretrain.settings import SUPERVISED, SWAV, Schedule, Supervised, Swav
from sslrob_mini.probe import embeddings, linear_probe, nearest_neighbours
from sslrob_mini.resnet import ResNet
from torch import Tensor

from sslrob.errors import SslrobError

SCHEDULE = Schedule(steps=6, learning_rate=1e-3, weight_decay=0.01, batch=8, warm_up=2, every=2)
TINY: dict[str, Supervised | Swav] = {
    "supervised": replace(SUPERVISED, schedule=SCHEDULE),
    "swav": replace(SWAV, schedule=SCHEDULE, prototypes=4, frozen=1),
}


@pytest.fixture(scope="module")
def toy_pool() -> Pool:
    generator = torch.Generator().manual_seed(0)

    def random_bytes(*shape: int) -> Tensor:
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)

    return Pool(
        random_bytes(20, 2, 56, 56), torch.arange(20) % 10, random_bytes(20, 3, 64, 64), random_bytes(30, 3, 64, 64), torch.arange(30) % 10
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("name", ["supervised", "swav"])
def test_a_run_killed_and_resumed_ends_like_an_uninterrupted_one(name: str, toy_pool: Pool, tmp_path: Path) -> None:
    if name == "swav":
        pytest.importorskip("lightly")
    pretrain(name, TINY[name], toy_pool, tmp_path / "whole")
    pretrain(name, TINY[name], toy_pool, tmp_path / "parts", stop=3)  # the checkpoint is of step 2
    assert not (tmp_path / "parts" / f"{name}.safetensors").exists()
    pretrain(name, TINY[name], toy_pool, tmp_path / "parts")
    whole, parts = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not torch.equal(whole["stem.0.weight"], ResNet().stem[0].weight.half())
    ResNet().load_state_dict(whole)
    logs = [(tmp_path / run / f"{name}.log.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    assert logs[0][0] == logs[1][0]
    assert len(logs[0]) == len(logs[1]) == 1 + SCHEDULE.steps // SCHEDULE.every


def test_a_checkpoint_of_other_settings_is_refused(toy_pool: Pool, tmp_path: Path) -> None:
    pretrain("supervised", TINY["supervised"], toy_pool, tmp_path, stop=2)
    other = replace(SUPERVISED, schedule=replace(SCHEDULE, seed=1))
    with pytest.raises(SslrobError, match="other settings"):
        pretrain("supervised", other, toy_pool, tmp_path)


def test_no_pool_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supervised", "--pool", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no pool" in capsys.readouterr().err


def test_a_damaged_pool_is_told(toy_pool: Pool, tmp_path: Path) -> None:
    path = write(toy_pool, tmp_path)
    assert torch.equal(read(tmp_path).items, toy_pool.items)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SslrobError, match="is no pool"):
        read(tmp_path)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, weight_decay=0, warm_up=10)
    rates = [learning_rate(schedule, step) for step in range(101)]
    assert rates[9] == rates[10] == max(rates) == 1
    assert rates[0] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_an_item_is_painted_where_its_layout_says() -> None:
    items = torch.full((4, 2, 56, 56), 255, dtype=torch.uint8)
    layout = place(generator(), 4, Placing(scale=(0.3, 0.5), tint=(1.0, 1.0)))
    scenes = compose(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), items, layout)
    painted = scenes[:, 0] > 127
    for k in range(4):
        y, x = torch.nonzero(painted[k], as_tuple=True)
        centre = torch.stack([x, y], 1).float().add(0.5).mean(0) / 32 - 1
        torch.testing.assert_close(centre, layout.centres[k], atol=0.03, rtol=0)
        assert painted[k].sum() / 64**2 == pytest.approx(layout.sides[k].item() ** 2, rel=0.15)


def test_views_are_images_and_follow_the_generator() -> None:
    scenes = torch.rand(6, 3, 64, 64, generator=generator()) * 255
    layout = place(generator(), 6, Placing())
    cropping = Cropping(size=24, area=(0.1, 0.4), spread=0.5)
    first, second = (recolour(g, crop(g, scenes, layout, cropping), Recolouring(share=1.0, blur=0.5)) for g in (generator(), generator()))
    assert first.shape == (6, 3, 24, 24)
    assert torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, recolour(generator(), crop(generator(), scenes, layout, cropping), Recolouring(share=0.0)))


def test_grey_views_are_grey_and_untouched_ones_are_the_scene() -> None:
    scenes = torch.rand(3, 3, 32, 32, generator=generator()) * 255
    grey = recolour(generator(), scenes, Recolouring(grey=1.0, blur=0.0))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    same = recolour(generator(), scenes, Recolouring(share=0.0, grey=0.0, blur=0.0))
    torch.testing.assert_close(same, scenes / 255)


def test_the_probes_find_separable_classes_and_only_those() -> None:
    labels = torch.arange(200) % 4
    noise = torch.randn(200, 8, generator=generator())
    apart = noise + 6 * torch.eye(8)[labels]
    for classify in (linear_probe, nearest_neighbours):
        assert (classify(apart[:100], labels[:100], apart[100:]) == labels[100:]).float().mean() > 0.95
        assert (classify(noise[:100], labels[:100], noise[100:]) == labels[100:]).float().mean() < 0.5


def test_the_backbone_keeps_its_contract_at_odd_sizes() -> None:
    backbone = ResNet().eval()
    features = backbone(torch.rand(2, 3, 45, 70))
    assert features.pooled.shape == (2, backbone.width)
    assert backbone.strides == (4, 8, 16, 32)
    for values, channels, stride in zip(features.maps, backbone.channels, backbone.strides, strict=True):
        assert values.shape == (2, channels, -(-45 // stride), -(-70 // stride))
    assert embeddings(backbone.train(), torch.rand(3, 3, 32, 32)).shape == (3, 192)
    assert backbone.training


def test_widths_and_blocks_must_match() -> None:
    with pytest.raises(ValueError, match="as many widths"):
        ResNet(widths=(8, 16))
