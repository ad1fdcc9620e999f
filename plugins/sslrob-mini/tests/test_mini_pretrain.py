"""Pretraining: views, methods, resuming, the probes; on a toy pool."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from sslrob_mini.augment import Cropping, Placing, Recolouring, compose, crop, place, recolour
from sslrob_mini.pretrain.__main__ import main
from sslrob_mini.pretrain.pool import Pool, read, write
from sslrob_mini.pretrain.settings import Schedule, Settings, Swav
from sslrob_mini.pretrain.table import ALL, METHODS, VARIANTS
from sslrob_mini.probe import embeddings, linear_probe, nearest_neighbours
from sslrob_mini.resnet import ResNet
from torch import Tensor

from sslrob import weights
from sslrob.errors import SslrobError

pytest.importorskip("lightly")
from sslrob_mini.pretrain.cast import start
from sslrob_mini.pretrain.loop import learning_rate, pretrain
from sslrob_mini.pretrain.momentum import MomentumMethod
from sslrob_mini.pretrain.views import draw
from sslrob_mini.shelve import TITLES, augmentations, origin, record

SCHEDULE = Schedule(steps=6, learning_rate=1e-3, weight_decay=0.01, batch=8, warm_up=2, every=2)


def tiny(name: str) -> Settings:
    """The settings of a backbone, for a training of seconds."""
    settings = replace(ALL[name], schedule=SCHEDULE)
    if isinstance(settings, Swav):
        return replace(settings, prototypes=4, frozen=1)
    return replace(settings, outputs=16, frozen=1) if name.startswith("dino") else settings


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


@pytest.mark.parametrize("name", [*METHODS, "dino-vit", "simclr-narrow", "swav-no-multi-crop"])
def test_a_run_killed_and_resumed_ends_like_an_uninterrupted_one(name: str, toy_pool: Pool, tmp_path: Path) -> None:
    pretrain(name, tiny(name), toy_pool, tmp_path / "whole")
    pretrain(name, tiny(name), toy_pool, tmp_path / "parts", stop=3)  # the checkpoint is of step 2
    assert not (tmp_path / "parts" / f"{name}.safetensors").exists()
    pretrain(name, tiny(name), toy_pool, tmp_path / "parts")
    whole, parts = (weights.load(tmp_path / run / f"{name}.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    fresh = start(tiny(name)).backbone
    first = next(key for key in whole if key.endswith("weight"))
    assert not torch.allclose(whole[first], fresh.state_dict()[first], atol=1e-4)
    fresh.load_state_dict(whole)
    logs = [(tmp_path / run / f"{name}.log.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    assert logs[0][0] == logs[1][0]
    assert len(logs[0]) == len(logs[1]) == 1 + SCHEDULE.steps // SCHEDULE.every


@pytest.mark.parametrize("name", METHODS)
def test_each_loss_falls_when_a_batch_is_learned_by_heart(name: str, toy_pool: Pool) -> None:
    settings = tiny(name)
    method = start(settings).train()
    batch = draw(toy_pool, 16, settings.views, generator())
    optimizer = torch.optim.AdamW(method.parts(), lr=2e-3)
    losses = []
    for step in range(2, 27):
        method.before(step % SCHEDULE.steps)
        loss = method.objective(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5


@pytest.mark.parametrize("name", ["byol", "moco-v3", "dino"])
def test_the_momentum_encoder_follows_and_is_not_trained(name: str, toy_pool: Pool) -> None:
    settings = tiny(name)
    method = start(settings).train()
    assert isinstance(method, MomentumMethod)
    assert not any(parameter.requires_grad for parameter in method.slow_backbone.parameters())
    old = [parameter.clone() for parameter in method.slow_backbone.parameters()]
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1)
    method.before(0)
    for before, after in zip(old, method.slow_backbone.parameters(), strict=True):
        torch.testing.assert_close(after - before, torch.full_like(before, 1 - settings.momentum), atol=1e-5, rtol=0)
    method.before(SCHEDULE.steps)  # at the end it stands still
    held = [parameter.clone() for parameter in method.slow_backbone.parameters()]
    method.before(SCHEDULE.steps)
    assert all(torch.equal(a, b) for a, b in zip(held, method.slow_backbone.parameters(), strict=True))


def test_self_supervised_methods_do_not_see_the_labels(toy_pool: Pool) -> None:
    for name in METHODS:
        settings = tiny(name)
        batch = draw(toy_pool, 8, settings.views, generator())
        told, hidden = (start(settings).train().objective(seen, 2).item() for seen in (batch, batch._replace(labels=9 - batch.labels)))
        assert (told == hidden) == (name != "supervised"), name


def test_a_variant_differs_in_its_factor_only() -> None:
    for name, settings in VARIANTS.items():
        usual = METHODS[origin(name)]
        assert type(settings) is type(usual)
        assert settings != usual, name
        changed = {key for key in ("schedule", "views", "architecture") if getattr(settings, key) != getattr(usual, key)}
        assert len(changed - {"schedule"}) <= 1
        assert replace(settings, **{key: getattr(usual, key) for key in ("schedule", "views", "architecture")}) == usual
    full = METHODS["simclr"].schedule
    for batch in (64, 1024):
        schedule = VARIANTS[f"simclr-batch-{batch}"].schedule
        assert schedule.steps * schedule.batch == full.steps * full.batch


def test_the_zoo_entry_says_what_the_table_says() -> None:
    folder = Path(__file__).parents[1] / "sslrob_mini" / "weights"
    for name in sorted(path.stem for path in folder.glob("*.safetensors")):
        entry = record(name, folder)
        made, settings = entry["pretraining"], ALL[name]
        assert made["method"] == TITLES[origin(name)][0]
        assert made["epochs"] == pytest.approx(settings.schedule.steps * settings.schedule.batch / 60_000, abs=0.01)
        header = json.loads((folder / made["log"]).read_text().splitlines()[0])
        assert header["settings"] == json.loads(json.dumps(asdict(settings))), f"{name} was trained with other settings than the table's"
    assert augmentations(METHODS["swav"].views)[0] == "multi-crop 2 × 48 + 4 × 24"


def test_a_checkpoint_of_other_settings_is_refused(toy_pool: Pool, tmp_path: Path) -> None:
    pretrain("supervised", tiny("supervised"), toy_pool, tmp_path, stop=2)
    other = replace(tiny("supervised"), schedule=replace(SCHEDULE, seed=1))
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
