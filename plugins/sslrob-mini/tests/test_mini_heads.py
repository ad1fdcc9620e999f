"""Which heads ship, how they are recorded, and what training does to their samples."""

import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sslrob_mini import heads
from sslrob_mini.heads import is_first, prune, record, shipped

from sslrob import assemble, zoo_files
from sslrob.data import Sample
from sslrob.plugins import installed
from sslrob.recipes import plan, usual_recipe
from sslrob.zoo import Head, Weights

ZOO = zoo_files.load()
SHIPPED = shipped(ZOO)


def sample(target, n=0):
    return Sample(f"{n}", torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(n)), target)


def test_a_label_is_the_same_in_a_mirror():
    before = sample(3)
    after = assemble.task("classification").mirrored(before)
    assert after.target == 3
    assert torch.equal(after.image, before.image.flip(-1))


def test_a_mask_is_mirrored_with_its_image():
    before = sample(torch.arange(24).view(4, 6))
    after = assemble.task("segmentation").mirrored(before)
    assert torch.equal(after.target, before.target.flip(-1))
    assert torch.equal(after.image, before.image.flip(-1))


def test_boxes_are_mirrored_with_their_image():
    from sslrob_mmdet.objects import objects

    task = assemble.task("detection")
    before = sample(objects(torch.tensor([[1.0, 0, 3, 2]]), torch.tensor([4]), crowd=torch.tensor([[0.0, 0, 6, 1]])))
    after = task.mirrored(before)
    assert torch.equal(after.image, before.image.flip(-1))
    assert after.target.boxes.tolist() == [[3, 0, 5, 2]]
    assert after.target.crowd.tolist() == [[0, 0, 6, 1]]
    assert torch.equal(task.mirrored(after).target.boxes, before.target.boxes)


@pytest.mark.parametrize(
    ("task", "protocol", "recipe"),
    [
        ("classification", "linear", "linear"),
        ("classification", "knn", "knn"),
        ("classification", "finetuned", "finetuned"),
        ("segmentation", "frozen", "fcn"),
        ("segmentation", "finetuned", "fcn-finetuned"),
        ("detection", "frozen", "fcos"),
        ("detection", "finetuned", "fcos-finetuned"),
    ],
)
def test_every_task_and_protocol_has_a_usual_recipe(task, protocol, recipe):
    assert usual_recipe(installed().find("task", task), protocol, ZOO) == recipe


def test_every_recipe_builds_a_victim_and_has_a_schedule_that_is_one():
    from sslrob.settings import complete
    from sslrob.training import Schedule

    for name, recipe in ZOO.recipes.items():
        task = assemble.task(recipe.task)
        body = assemble.backbone(ZOO.get("backbone", "mini-random"), name="mini-random")
        assert task.victim(body, kind=recipe.kind, classes=("a", "b"), settings=recipe.settings).backbone is body, name
        if recipe.schedule:
            complete(Schedule, recipe.schedule, (), name)
        else:
            assert recipe.protocol in ("linear", "knn"), name


def test_every_method_has_the_heads_of_every_task_and_each_a_first_choice():
    wanted = SHIPPED
    methods = [name for name, backbone in ZOO.backbones.items() if backbone.family is not None and name.startswith("mini-")]
    assert {"mini-swav", "mini-supervised", "mini-random"} <= set(methods)
    for backbone in methods:
        assert {f"{backbone}-{recipe}" for recipe in ("linear", "knn", "fcn", "fcos", "linear-mini-letters")} <= set(wanted)
    firsts = [plan(ZOO, installed(), *wanted[name]).head for name in wanted if is_first(name, wanted)]
    places = [(head.backbone, head.dataset) for head in firsts]
    assert len(places) == len(set(places)), "two first choices"
    assert {place for place in places if place[0] in methods} == {
        (backbone, dataset) for backbone in methods for dataset in ("mini-crops", "mini-letters", "mini-scenes-masks", "mini-scenes")
    }


def head(dataset: str, out: Path, name: str) -> Head:
    (out / f"{name}.safetensors").write_bytes(b"")
    return Head(backbone="mini-swav", dataset=dataset, kind="fcos", weights=Weights(file=out / f"{name}.safetensors"))


def test_a_new_first_choice_takes_the_place_of_the_old_one(tmp_path):
    record(tmp_path, "old", head("mini-scenes", tmp_path, "old"), first=True)
    record(tmp_path, "elsewhere", head("mini-crops", tmp_path, "elsewhere"), first=True)
    record(tmp_path, "new", head("mini-scenes", tmp_path, "new"), first=True)
    stored = yaml.safe_load((tmp_path / "heads.yaml").read_text())["heads"]
    assert {name: entry.get("default", False) for name, entry in stored.items()} == {"elsewhere": True, "new": True, "old": False}
    assert stored["new"]["weights"]["file"] == "new.safetensors"


def test_what_is_no_longer_shipped_is_pruned(tmp_path):
    for name in ("old", "new"):
        record(tmp_path, name, head("mini-scenes", tmp_path, name), first=False)
    (tmp_path / "new.0123abcd.part.pt").write_bytes(b"")
    assert set(prune(tmp_path, {"new"})) == {"old", "old.safetensors", "new.0123abcd.part.pt", ".heads.yaml.lock"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["heads.yaml", "new.safetensors"]
    assert list(yaml.safe_load((tmp_path / "heads.yaml").read_text())["heads"]) == ["new"]


def test_the_script_makes_what_is_asked_and_skips_what_is_there(tmp_path, capsys):
    words = ["--out", str(tmp_path), "mini-random-linear", "mini-random-knn"]
    assert heads.main(words) == 0
    assert '"name": "mini-random-linear"' in capsys.readouterr().out
    records = zoo_files.read(tmp_path / "heads.yaml").records.heads
    assert set(records) == {"mini-random-linear", "mini-random-knn"}
    assert records["mini-random-linear"].default
    assert 10 < records["mini-random-linear"].clean["top1"] < 40
    assert heads.main(words) == 0
    assert capsys.readouterr().out == ""
    assert heads.main(["--out", str(tmp_path), "mini-radnom-linear"]) == 2
    assert "no head or backbone of the collection is named 'mini-radnom-linear'" in capsys.readouterr().err


KILLED = """schema: 1
datasets:
  dots: {task: classification, format: imagefolder, path: test, threat_model: "linf:1/255", license: MIT, fit: {path: train}}
recipes:
  steps: {task: classification, kind: linear, protocol: finetuned, batch_size: 8, schedule: {epochs: 8, learning_rate: 0.001}}
"""


@pytest.mark.slow
def test_a_training_killed_by_the_system_goes_on_and_ends_the_same(tmp_path):
    generator = np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), ("left", "right")):
        (tmp_path / split / name).mkdir(parents=True)
        for i in range(12):
            pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "zoo.yaml").write_text(KILLED)
    words = ["--backbone", "mini-random", "--recipe", "steps", "--dataset", "dots", "--zoo", str(tmp_path / "zoo.yaml"), "--device", "cpu"]
    command = [sys.executable, "-m", "sslrob", "train", *words, "--json", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, str(tmp_path / "killed")], **quiet)
    while not list(tmp_path.glob("killed/*.part.pt")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [file.suffix for file in tmp_path.glob("killed/*") if file.suffix in (".pt", ".safetensors", ".yaml")] == [".pt"]
    made = [
        json.loads(subprocess.run([*command, str(tmp_path / out)], check=True, capture_output=True).stdout) for out in ("killed", "whole")
    ]
    assert made[0]["record"]["weights"]["sha256"] == made[1]["record"]["weights"]["sha256"]
    assert made[0]["record"]["clean"] == made[1]["record"]["clean"]
    assert not list(tmp_path.glob("killed/*.part.pt"))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_in_the_zoo_and_made_from_what_the_zoo_has(name):
    planned, there = plan(ZOO, installed(), *SHIPPED[name]).head, ZOO.heads[name]
    assert (there.kind, there.settings, there.protocol) == (planned.kind, planned.settings, planned.protocol)
    assert there.made_from in ("", planned.made_from), f"make it again: python -m sslrob_mini.heads {name}"
    assert there.default == is_first(name, SHIPPED)


def test_what_is_recorded_does_not_ship_and_is_made_from_what_the_zoo_has():
    wanted = heads.recorded(ZOO)
    assert {"mini-swav-fcn-finetuned", "mini-swav-faster-rcnn", "mini-swav-upernet-finetuned"} <= set(wanted)
    assert not set(wanted) & set(SHIPPED)
    ours = {name: head for name, head in ZOO.untrained.items() if name.startswith("mini-")}
    assert set(ours) <= set(wanted)
    for name, head in ours.items():
        assert head.made_from == plan(ZOO, installed(), *wanted[name]).head.made_from, f"python -m sslrob_mini.heads --recorded {name}"
        assert head.clean, name


def test_a_head_that_does_not_ship_is_trained_into_the_users_zoo_and_recorded_without_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "home"))
    fake = heads.Shipped("mini-random", "linear")
    monkeypatch.setattr(heads, "recorded", lambda zoo: {"mini-random-again": fake})
    monkeypatch.setattr(heads, "plan", lambda zoo, plugins, *head: replace(plan(zoo, plugins, *head), name="mini-random-again"))
    monkeypatch.setattr("sslrob.fitting.plan", lambda zoo, plugins, *head: replace(plan(zoo, plugins, *head), name="mini-random-again"))
    assert heads.main(["--recorded", "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "mini-random-again"
    (stored,) = yaml.safe_load((tmp_path / "out" / "heads.yaml").read_text())["heads"].values()
    assert "weights" not in stored
    assert stored["clean"] == told["clean"]
    assert stored["recipe"] == "sslrob train --backbone mini-random --recipe linear"
    assert list((tmp_path / "home" / "zoo" / "mini-random-again").glob("*.safetensors"))
