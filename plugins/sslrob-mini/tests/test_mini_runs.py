"""Whole evaluations on the embedded collection: what a number may not depend on, and what survives a kill."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sslrob import Attack, hookimpl, zoo_files
from sslrob.execute import run
from sslrob.plugins import Plugins, installed
from sslrob.resolve import Words, resolve
from sslrob.runs import Run

METHODS = ("barlow-twins", "byol", "dino", "moco-v3", "simclr", "supervised", "swav", "vicreg")
RAW_PIXELS = 26.7  # top-1 of their linear probe: python -m sslrob_mini.probe
TASKS = ("classification", "segmentation", "detection")
LIMIT = {"classification": 32, "segmentation": 12, "detection": 12}


def spec(task: str, backbone: str = "supervised", **words):
    words = {"attack": "pgd", "settings": ("steps=3",), "backbone": backbone, "task": task, **words}
    return resolve(Words(**words), zoo_files.load(), installed())


VERDICTS = ("clean", "robust", "rounded")


def verdicts(folder: str) -> dict[str, tuple[bool, bool, bool]]:
    return {row["id"]: tuple(row[verdict]["fooled"] for verdict in VERDICTS) for row in Run(Path(folder)).rows()}


def qualities(folder: str) -> list[float]:
    return [row[verdict]["quality"] for row in Run(Path(folder)).rows() for verdict in VERDICTS]


ONCE = {"classification": ((1, 2),), "segmentation": ((1, 1),), "detection": ((1, 1),)}  # a process of a shard imports all of OpenMMLab
OTHERS = ((1, 1), (32, 1), (8, 4))  # batch sizes and shards


@pytest.mark.parametrize(
    ("task", "others"),
    [*ONCE.items(), *(pytest.param(task, OTHERS, marks=pytest.mark.slow) for task in TASKS)],
    ids=[*TASKS, *(f"{task} in full" for task in TASKS)],
)
def test_batch_size_and_shards_change_no_verdict(task, others, tmp_path):
    asked, limit = spec(task), LIMIT[task]
    whole = run(asked, runs=tmp_path / "8", limit=limit, batch_size=8, pictures=0)
    for size, shards in others:
        other = run(asked, runs=tmp_path / f"{size}-{shards}", limit=limit, batch_size=size, shards=shards, pictures=0)
        assert verdicts(other["folder"]) == verdicts(whole["folder"])
        assert qualities(other["folder"]) == pytest.approx(qualities(whole["folder"]), abs=2e-3)
        for verdict in ("clean", "robust"):
            for metric, value in whole["results"][verdict].items():
                assert other["results"][verdict][metric]["value"] == pytest.approx(value["value"], abs=0.05), (
                    size,
                    shards,
                    verdict,
                    metric,
                )


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    words = ["eval", "--backbone", "supervised", "--task", "classification", "--set", "steps=20", "--limit", "200", "--pictures", "0"]
    command = [sys.executable, "-m", "sslrob", *words, "--batch-size", "4", "--runs", str(tmp_path / "killed"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = None
    for _ in range(600):
        rows = next(iter(tmp_path.glob("killed/*/images.jsonl")), None)
        if rows is not None and rows.read_bytes().count(b"\n") >= 8:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert rows is not None
    before = rows.read_bytes()
    assert 8 <= before.count(b"\n") < 200, "the run was to be killed in its midst"
    finished = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert rows.read_bytes().startswith(before[: before.rfind(b"\n") + 1]), "rows that were there are not done again"
    whole = run(spec("classification", settings=("steps=20",)), runs=tmp_path / "whole", limit=200, batch_size=50, pictures=0)
    assert verdicts(finished["folder"]) == verdicts(whole["folder"])
    assert finished["results"]["robust"]["top1"]["value"] == whole["results"]["robust"]["top1"]["value"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("swav", {}),
        ("swav", {"attack": "fgsm", "settings": ()}),
        ("swav", {"objective": "embedding"}),
        ("swav", {"norm": "l2", "epsilon": "0.5"}),
        ("supervised", {}),
    ],
    ids=["pgd", "fgsm", "embedding", "l2", "supervised"],
)
def test_every_task_answers(task, backbone, words, tmp_path):
    record = run(spec(task, backbone, **words), runs=tmp_path, limit=6, pictures=2)
    results = record["results"]
    assert results["images"] == 6
    assert record["headline"] in results["clean"]
    assert results["cost"]["backwards"] > 0
    assert {flag["name"] for flag in record["flags"]} <= {"dead-gradients"}
    rows = Run(Path(record["folder"])).rows()
    assert all(row["robust"]["quality"] <= row["clean"]["quality"] for row in rows)
    assert len(list(Path(record["folder"], "pictures").glob("*.png"))) == 3  # two images and the overview


@dataclass(frozen=True)
class Universal(Attack):
    """One step along the mean gradient of some images of the fit split."""

    move: Tensor | None = None

    def fit(self, batches, threat_model, *, streams):
        objective, images = next(iter(batches))
        assert images.shape == (32, 3, 64, 64)
        assert len(streams) == 1000
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x).loss.sum(), x)
        return replace(self, move=gradient.mean(0, keepdim=True).sign())

    def perturb(self, objective, images, threat_model, *, streams):
        return threat_model.project(images + threat_model.epsilon * self.move, images)


class UniversalPlugin:
    @hookimpl
    def register_attacks(self, register):
        register("one-move", Universal)


def test_an_attack_that_learns_learns_from_the_fit_split(tmp_path, monkeypatch):
    Universal.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}
    plugins = Plugins().load()
    plugins.add(UniversalPlugin(), "sslrob-universal 0.1")
    monkeypatch.setattr("sslrob.assemble.installed", lambda: plugins)
    asked = resolve(Words(attack="one-move", backbone="swav", task="classification", epsilon="4/255"), zoo_files.load(), plugins)
    record = run(asked, runs=tmp_path, limit=40, pictures=0)
    assert record["results"]["attack_success_rate"]["value"] > 0
    assert record["results"]["cost"] == {"forwards": 0, "backwards": 0}


def test_more_images_extend_a_run(tmp_path):
    asked = spec("classification")
    few = run(asked, runs=tmp_path, limit=5, pictures=0)
    first = Path(few["folder"], "images.jsonl").read_bytes()
    more = run(asked, runs=tmp_path, limit=9, pictures=0)
    assert more["results"]["images"] == 9
    assert Path(more["folder"], "images.jsonl").read_bytes().startswith(first)
    fewer = run(asked, runs=tmp_path, limit=3, pictures=0)
    assert fewer["results"]["images"] == 3
    kept = Run(Path(more["folder"])).record()
    assert (kept["status"], kept["results"], kept["seconds"]) == ("finished", more["results"], more["seconds"])


def test_the_collection_is_as_good_as_it_says():
    zoo = zoo_files.load()
    clean = {name: record.clean for name, record in zoo.heads.items()}
    assert clean["mini-supervised-linear"]["top1"] >= 81
    assert clean["mini-swav-linear"]["top1"] >= 2 * clean["mini-random-linear"]["top1"]
    assert clean["mini-supervised-fcos-long"]["AP50"] >= 60
    assert clean["mini-swav-fcos"]["AP50"] >= 5 * clean["mini-random-fcos"]["AP50"]
    assert clean["mini-supervised-fcn-long"]["mIoU"] >= 45
    for method in METHODS:
        linear, knn = (clean[f"mini-{method}-{recipe}"]["top1"] for recipe in ("linear", "knn"))
        assert linear >= 1.75 * clean["mini-random-linear"]["top1"], method
        assert linear >= 1.25 * RAW_PIXELS, method
        assert knn >= 1.4 * clean["mini-random-knn"]["top1"], method


def test_a_hardened_backbone_says_from_what_and_has_every_head():
    zoo = zoo_files.load()
    for name in ("mini-swav-mi-at", "mini-simclr-mi-at"):
        record = zoo.backbones[name]
        assert record.hardening.backbone == name.removesuffix("-mi-at")
        tasks = {zoo.datasets[head.dataset].task for head in zoo.heads.values() if head.backbone == name}
        assert {task.rpartition("/")[2] for task in tasks} == set(TASKS)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [*METHODS, "mini-swav-mi-at", "mini-simclr-mi-at"])
@pytest.mark.parametrize("task", TASKS)
def test_every_backbone_is_attacked_on_every_task(task, backbone, tmp_path):
    record = run(spec(task, backbone, settings=("steps=2",)), runs=tmp_path, limit=4, pictures=0)
    assert record["results"]["images"] == 4
    assert record["results"]["cost"]["backwards"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in zoo_files.load().heads if name.startswith("mini-")))
def test_recorded_clean_metrics_are_measured_again(name, monkeypatch, tmp_path):
    from sslrob.verify import Measured, verify

    monkeypatch.setenv("SSLROB_CACHE", str(tmp_path))
    finding = verify("head", name, zoo_files.load(), installed(), measured=Measured())
    assert not finding.problem, finding
