"""Every layout, on a file that is built from its documentation alone, against the original architecture's forward written out plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_cases import CASES, HEADS, READOUTS, TRAPS, Case, vit
from published_draws import CLASSES
from torch import Tensor

from sslrob import assemble, weights, zoo, zoo_files
from sslrob.backbone import Backbone
from sslrob.plugins import installed

TOLERANCE = 1e-5  # of the largest number


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLROB_CACHE", str(tmp_path / "cache"))


def built(case: Case, file: Path, **body: Any) -> Backbone:
    record = zoo.Backbone(
        use=case.use, settings={**case.settings, **body}, weights=zoo.Weights(file=file, layout=case.layout), license="MIT"
    )
    return assemble.backbone(record, name="published")


def pictures(case: Case) -> Tensor:
    return torch.rand(2, 3, *case.size, generator=torch.Generator().manual_seed(0))


def agree(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    gap = float((found - expected).abs().max() / expected.abs().max())
    assert gap <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_features_are_the_original_networks(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    content, images = case.write(tmp_path / case.file), pictures(case)
    pooled, maps = case.plain(content, images)
    found = built(case, tmp_path / case.file)(images)
    agree(found.pooled, pooled)
    for own, original in zip(found.maps, maps, strict=True) if case.use == "resnet" else [(found.maps[-1], maps[-1])]:
        agree(own, original)


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_logits_are_the_original_heads(name: str, tmp_path: Path) -> None:
    head = HEADS[name]
    case = CASES[head.case]
    content, images = case.write(tmp_path / case.file), pictures(case)
    file = tmp_path / (head.file if head.write else case.file)
    linear = head.write(file) if head.write else content
    body = {"readout": READOUTS.get(head.how, head.how)} if head.how else {}
    seen = vit(case.layout, case.write, head.how, case.settings).plain(content, images)[0] if head.how else case.plain(content, images)[0]
    record = zoo.Head(
        backbone="published",
        dataset="imagenet",
        kind="linear",
        protocol="linear",
        body=body,
        weights=zoo.Weights(file=file, layout=head.layout),
    )
    victim = assemble.victim(
        record,
        built(case, tmp_path / case.file, **body),
        assemble.task("classification"),
        classes=[str(i) for i in range(CLASSES)],
        name="published-linear",
    )
    agree(victim(images), head.logits(linear, seen))
    state = weights.read(record.weights, "head")
    assert set(state) == {"head.weight", "head.bias"}


def test_every_layout_is_tested_here() -> None:
    registered = {component.name for component in installed().of("layout") if component.distribution == "sslrob-backbones"}
    assert registered == {case.layout for case in CASES.values()} | {head.layout for head in HEADS.values()}


def test_every_checkpoint_of_the_zoo_has_a_layout_that_is_tested_here() -> None:
    found = zoo_files.load()
    tested = {"backbone": {case.layout for case in CASES.values()}, "head": {head.layout for head in HEADS.values()}}
    named = 0
    for kind, layouts in tested.items():
        for name, record in found.recorded(kind).items():
            if record.weights is not None and record.weights.layout is not None:
                assert record.weights.layout in layouts, name
                named += 1
            elif record.weights is not None:
                assert record.weights.url is None, f"{name} comes from elsewhere, in no layout"
    assert named > 100


@pytest.mark.parametrize("name", TRAPS)
@torch.no_grad()
def test_a_wrong_setting_shows(name: str, tmp_path: Path) -> None:
    of, settings = TRAPS[name]
    case = CASES[of]
    content, images = case.write(tmp_path / case.file), pictures(case)
    expected = case.plain(content, images)[0]
    found = built(case, tmp_path / case.file, **settings)(images).pooled
    assert (found - expected).abs().max() > 1e-3 * expected.abs().max()
