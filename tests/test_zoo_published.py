"""The published checkpoints: every entry is complete, in order, and says what a reader has to know."""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest

from sslrob import license as licenses
from sslrob import zoo_files
from sslrob.plugins import Plugins, installed
from sslrob.records import unset
from sslrob.zoo import FIRST_PARTY, Zoo

FACTORS = {"core", "method", "duration", "batch-size", "augmentation", "architecture", "width"}
PREFIX_IN_NAME = re.compile(r"[-_]([0-9a-f]{8})\.pth$")


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    """sslrob's own zoo alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SSLROB_ZOO", "SSLROB_DATA"):
            patch.delenv(name, raising=False)
        patch.setenv("SSLROB_HOME", os.devnull)
        patch.setattr("platformdirs.user_config_path", lambda name: zoo_files.Path(os.devnull))
        return zoo_files.load([], Plugins())


def test_there_are_more_than_a_hundred_and_each_is_complete(zoo: Zoo) -> None:
    assert len(zoo.backbones) >= 130
    for name, record in zoo.backbones.items():
        weights = record.weights
        assert weights is not None, name
        assert weights.layout is not None, name
        assert record.family is not None, name
        assert record.pretraining is not None, name
        assert record.pretraining.method, name
        assert record.paper.startswith("arXiv:"), name
        assert licenses.of(record.license) is not None, name
        assert {"mean", "std"} <= record.settings.keys(), name
        assert set(record.factors) <= FACTORS, name


def test_an_id_says_what_the_record_says(zoo: Zoo) -> None:
    for name, record in zoo.backbones.items():
        made, settings = record.pretraining, record.settings
        assert made is not None
        for pattern, value in ((r"-ep(\d+)", made.epochs), (r"-bs(\d+)", made.batch_size)):
            if found := re.search(pattern, name):
                assert float(found[1]) == value, name
        if (found := re.search(r"-r(\d+)(?:w(\d+))?(-|$)", name)) and record.use == "resnet":
            assert (settings.get("depth", 50), settings.get("width", 1)) == (int(found[1]), int(found[2] or 1)), name
        if found := re.search(r"-vit([a-z]+)(\d+)", name):
            patch = settings.get("arguments", {}).get("patch_size")  # type: ignore[union-attr]
            assert f"patch{found[2]}" in str(settings["model"]) or patch == int(found[2]), name


def test_no_address_is_given_to_two_networks(zoo: Zoo) -> None:
    sources = Counter((w.url, w.hf, w.file) for record in zoo.backbones.values() if (w := record.weights) is not None)
    assert max(sources.values()) == 1
    heads = Counter((w.url, w.hf, w.file) for head in zoo.heads.values() if (w := head.weights) is not None)
    assert max(heads.values()) == 1
    for name, head in zoo.heads.items():
        body, weights = zoo.backbones[head.backbone].weights, head.weights
        assert body is not None
        assert weights is not None, name
        same = (weights.url, weights.hf, weights.file) == (body.url, body.hf, body.file)
        assert not same or (weights.layout, weights.sha256, weights.published_hash) == (body.layout, body.sha256, body.published_hash), name


def test_numbers_of_others_are_not_told_as_ours(zoo: Zoo) -> None:
    from sslrob.cli.zoo_rows import head_row

    assert not any(record.clean for record in zoo.recorded("head").values())
    assert head_row("x", zoo.recorded("head")["swav-r50-ep800-imagenet"], zoo)[-1] == "top1 75.3 (published)"


def test_a_checksum_in_a_files_name_is_the_published_one(zoo: Zoo) -> None:
    for record in (*zoo.backbones.values(), *zoo.heads.values()):
        weights = record.weights
        if weights is not None and weights.url is not None and (found := PREFIX_IN_NAME.search(weights.url)):
            assert weights.published_hash == f"sha256:{found[1]}" or str(weights.sha256).startswith(found[1]), weights.url


def test_every_family_has_one_default_and_every_backbone_a_way_to_a_head(zoo: Zoo) -> None:
    for family, members in zoo.families().items():
        assert [zoo.backbones[name].default for name in members] == [True, *[False] * (len(members) - 1)], family
    reachable = {head.backbone for head in zoo.recorded("head").values()}
    assert reachable == set(zoo.backbones)
    for name, head in zoo.untrained.items():
        assert head.recipe == f"sslrob train --backbone {head.backbone} --recipe linear --dataset imagenet"
        assert name == f"{head.backbone}-linear-imagenet"  # as the recipe will call it
        assert not any(other.backbone == head.backbone for other in zoo.heads.values())


def test_the_traps(zoo: Zoo) -> None:
    """What others got wrong: see the comments in zoo.yaml."""
    settings = {name: record.settings for name, record in zoo.backbones.items()}
    for name, record in zoo.backbones.items():
        layout = record.weights.layout if record.weights else None
        assert (settings[name]["std"] == [0.228, 0.224, 0.225]) == (layout == "swav"), name
        assert (settings[name].get("padding") == "same") == (layout == "haiku"), name
        assert ((settings[name]["mean"], settings[name]["std"]) == (0, 1)) == (layout == "simclr-tf"), name
        assert (settings[name].get("arguments") == {"num_heads": 12}) == ("moco-v3-vits16" in name), name
    for name in ("swav-r50-ep800", "moco-v3-r50-ep1000", "simsiam-r50-ep100", "mae-vitb16", "msn-vitb16-ep600", "byol-r50-ep1000"):
        assert licenses.permits(zoo.backbones[name].license, "noncommercial")
    body = {name: head.body for name, head in zoo.heads.items()}
    assert body["dino-vits8-imagenet"] == {"readout": "cls4"}
    assert body["dino-vitb8-imagenet"] == {"readout": "cls-mean-pairs"}
    assert [body[f"dinov2-vitg14-imagenet{more}"] for more in ("", "-4-layers")] == [{"readout": "cls+mean"}, {"readout": "cls4+mean"}]
    ends = {bs: str(zoo.heads[f"simclr-r50-mm-ep200{bs}-imagenet"].weights) for bs in ("", "-bs256")}
    assert "f12c0457" in ends[""]
    assert "9596a505" in ends["-bs256"]


def test_factors_hold_the_comparisons(zoo: Zoo) -> None:
    of = {factor: {name for name, record in zoo.backbones.items() if factor in record.factors} for factor in FACTORS}
    assert {zoo.backbones[name].family for name in of["core"]} == {
        *("barlow-twins", "byol", "dino", "moco-v3", "simclr", "swav", "vicreg", "supervised")
    }
    assert len(of["core"]) == 8
    assert {f"swav-r50-ep{epochs}" for epochs in (100, 200, 400, 800)} <= of["duration"]
    assert {f"byol-r50-ep300{bs}" for bs in ("", *(f"-bs{2**i}" for i in range(6, 12)))} <= of["batch-size"]
    assert {zoo.backbones[name].family for name in of["method"]} >= {"barlow-twins", "byol", "dino", "moco-v2", "simclr", "swav", "vicreg"}
    assert all("lightly" in name for name in of["method"])


def test_imagenet_waits_for_its_folder(zoo: Zoo) -> None:
    data = zoo.datasets["imagenet"]
    assert unset(data.path) == "SSLROB_DATA"
    assert data.fit is not None
    assert unset(data.fit.path) == "SSLROB_DATA"
    assert not data.default
    assert "$SSLROB_DATA/imagenet/train" in data.source


def test_every_layout_and_architecture_is_registered_where_their_plugin_is_installed(zoo: Zoo) -> None:
    plugins = installed()
    if not any(origin.startswith("sslrob-backbones ") for origin in plugins.origins):
        pytest.skip("sslrob-backbones is not installed")
    for use in {record.use for record in zoo.backbones.values()}:
        plugins.find("backbone", use)
    for record in (*zoo.backbones.values(), *zoo.heads.values()):
        assert record.weights is not None
        plugins.find("layout", str(record.weights.layout))


def test_collections_of_the_first_party_file(zoo: Zoo) -> None:
    assert {zoo.collection("backbone", name) for name in zoo.backbones} == {FIRST_PARTY}
