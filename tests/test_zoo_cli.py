"""`sslrob zoo list` and `show`: what they tell of a collection, and how wide."""

from __future__ import annotations

import json

import pytest

from sslrob.cli.zoo import told_of
from sslrob.cli.zoo_rows import listed
from sslrob.plugins import installed
from sslrob.zoo import Backbone, Dataset, Head, Recipe, Study, Zoo

MADE = {"method": "Barlow Twins", "data": "pool", "epochs": 12.75, "batch_size": 1024, "seed": 0}


def head(backbone: str, dataset: str, kind: str, protocol: str, top1: float | None = None, **more) -> Head:
    clean = {} if top1 is None else {"top1": top1}
    return Head(backbone=backbone, dataset=dataset, kind=kind, protocol=protocol, clean=clean, **more)


@pytest.fixture
def zoo(tmp_path):
    """One backbone with everything, one hardened from it, one with another architecture, one random."""
    weights = tmp_path / "bt.safetensors"
    weights.write_bytes(bytes(1_380_000))
    log = tmp_path / "bt.log.jsonl"
    log.write_text('{"settings": 1}\n{"step": 3000, "loss": 2.5, "knn": 0.71}\n')

    def backbone(**more) -> Backbone:
        return Backbone(**{"use": "mini-resnet", "license": "Apache-2.0", **more})

    def dataset(task: str, **more) -> Dataset:
        return Dataset(task=task, format="f", path=tmp_path, threat_model="linf:1/255", license="MIT", **more)

    hardening = {
        "backbone": "mini-barlow-twins",
        "defense": "mi-at",
        "attack": "pgd",
        "threat_model": "linf:1/255",
        "dataset": "crops",
    }
    heads = {
        "bt-linear": head("mini-barlow-twins", "crops", "linear", "linear", 61.25),
        "bt-finetuned": head("mini-barlow-twins", "crops", "linear", "finetuned", 88.0, default=True),
        "bt-knn": head("mini-barlow-twins", "crops", "knn", "knn", 58.0),
        "bt-linear-letters": head("mini-barlow-twins", "letters", "linear", "linear", 40.0, default=True),
        "bt-fcos": head("mini-barlow-twins", "scenes", "fcos", "frozen"),
        "bt-faster-rcnn": head("mini-barlow-twins", "scenes", "faster-rcnn", "frozen"),
        "hard-linear": head("mini-barlow-twins-mi-at", "crops", "linear", "linear", 55.5),
    }
    return Zoo(
        backbones={
            "mini-barlow-twins": backbone(weights={"file": weights}, pretraining={**MADE, "log": log}, family="barlow-twins"),
            "mini-barlow-twins-mi-at": backbone(hardening=hardening, weights={"url": "http://x/y.safetensors", "sha256": "0" * 64}),
            "mini-barlow-twins-wide": backbone(settings={"widths": [48, 96, 192, 384], "bias": True}),
            "mini-random": backbone(seed=3),
        },
        datasets={
            "crops": dataset("classification", default=True),
            "letters": dataset("classification"),
            "scenes": dataset("sslrob-mmdet/detection", default=True),
        },
        heads=heads,
        recipes={
            "fcos": Recipe(task="detection", kind="fcos", protocol="frozen", default=True, schedule={"epochs": 2, "learning_rate": 0.002})
        },
        studies={
            "mini": Study(
                backbones=["mini-barlow-twins", "mini-random"],
                attacks=["pgd", "fgsm"],
                datasets={"crops": {"recipes": [], "epsilons": ["linf:1/255"]}},
                description="who stands",
            )
        },
    )


def rows(text: str) -> dict[str, str]:
    """Lines by their first word, without colours."""
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in text.splitlines()]
    return {line.split()[0]: " ".join(line.split()) for line in lines if line.strip() and not line.startswith(" ")}


def test_backbones_are_told_in_full(zoo):
    told = rows(listed("backbone", zoo.backbones, zoo))
    assert told["backbone"] == "backbone method network epochs batch k-NN linear size heads"
    assert told["mini-barlow-twins"] == (
        "mini-barlow-twins Barlow Twins mini-resnet 12.8 1,024 58.0 61.2 1.4 MB linear* knn fcos faster-rcnn; letters: linear"
    )
    assert told["mini-barlow-twins-mi-at"].startswith("mini-barlow-twins-mi-at Barlow Twins + mi-at mini-resnet 12.8 1,024 55.5 remote")
    assert told["mini-barlow-twins-wide"] == "mini-barlow-twins-wide mini-resnet 48-96-192-384 bias=True"
    assert told["mini-random"] == "mini-random mini-resnet"
    assert told["license:"] == "license: Apache-2.0"
    assert told["heads:"] == "heads: * on the finetuned backbone too"
    assert told["hardened:"] == "hardened: mini-barlow-twins-mi-at from mini-barlow-twins"
    assert told["families"].endswith("barlow-twins = mini-barlow-twins")


def test_licenses_that_differ_have_a_column(zoo):
    other = zoo.backbones["mini-random"].model_copy(update={"license": "MIT"})
    told = rows(listed("backbone", zoo.backbones | {"mini-random": other}, zoo))
    assert told["mini-random"] == "mini-random mini-resnet MIT"
    assert "license:" not in told


def test_the_table_fits_a_terminal_of_140_columns(zoo, monkeypatch):
    """Heads wrap below themselves; notes that a terminal would break anywhere are not part of the table."""
    monkeypatch.setenv("COLUMNS", "140")
    wide = zoo.backbones | {
        "mini-swav-wide": zoo.backbones["mini-barlow-twins-wide"].model_copy(update={"settings": {"widths": [48, 96, 192, 384]}})
    }
    wide.pop("mini-barlow-twins-wide")
    text = listed("backbone", wide, zoo)
    assert max(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in text.splitlines()) <= 140
    assert "letters: linear" in " ".join(text.split())


def test_recipes_and_studies_are_listed(zoo):
    assert rows(listed("recipe", zoo.recipes, zoo))["fcos"] == "fcos detection fcos frozen (default) epochs=2 learning_rate=0.002"
    assert rows(listed("study", zoo.studies, zoo))["mini"] == "mini 2 crops pgd, fgsm who stands"
    assert listed("study", {}, zoo) == "no studies"


def test_everything_is_told_but_what_is_empty(zoo):
    told = told_of(zoo.backbones["mini-barlow-twins"])
    assert told["pretraining"]["seed"] == 0
    assert told["default"] is False
    assert "seed" not in told  # of random weights, and these are not
    assert "paper" not in told
    assert told_of(zoo.backbones["mini-random"])["seed"] == 3


@pytest.fixture
def no_plugins(monkeypatch):
    """Without plugins of other distributions, and none of it remembered afterwards."""
    monkeypatch.setenv("SSLROB_PLUGINS", "")
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.mark.usefixtures("no_plugins")
def test_show_ends_with_the_log_of_the_pretraining(tmp_path, monkeypatch, capsys):
    from sslrob import cli

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"step": 1}\n{"step": 2, "knn": 0.5}\n')
    made = "{method: m, data: d, log: LOG}"
    entries = "\n".join(f"  b{log}: {{use: toy, license: MIT, pretraining: {made.replace('LOG', f'{log}.jsonl')}}}" for log in "abc")
    (tmp_path / "c.jsonl").write_text("no json\n")
    file = tmp_path / "zoo.yaml"
    file.write_text(f"schema: 1\nbackbones:\n{entries}\nrecipes:\n  fast: {{task: classification, kind: linear, protocol: linear}}\n")
    assert cli.run(["zoo", "show", "ba", "--zoo", str(file)]) == 0
    assert "last_logged:\n    step: 2\n    knn: 0.5\n" in capsys.readouterr().out
    for other in ("bb", "bc", "fast"):
        assert cli.run(["zoo", "show", other, "--zoo", str(file)]) == 0
        assert "last_logged" not in capsys.readouterr().out
    assert cli.run(["zoo", "list", "recipes", "studies", "--zoo", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"]["fast"]["batch_size"] == 16
