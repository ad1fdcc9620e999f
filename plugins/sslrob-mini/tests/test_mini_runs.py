"""Whole evaluations on the embedded collection: what a number may not depend on, and what survives a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslrob import zoo_files
from sslrob.execute import run
from sslrob.plugins import installed
from sslrob.resolve import Words, resolve
from sslrob.runs import Run

TASKS = ("classification", "segmentation", "detection")
LIMIT = {"classification": 32, "segmentation": 12, "detection": 12}


def spec(task: str, backbone: str = "supervised", **words):
    words = {"attack": "pgd", "settings": ("steps=3",), "backbone": backbone, "task": task, **words}
    return resolve(Words(**words), zoo_files.load(), installed())


def verdicts(folder: str) -> dict[str, tuple[bool, bool, bool]]:
    return {row["id"]: tuple(row[v]["fooled"] for v in ("clean", "robust", "rounded")) for row in Run(Path(folder)).rows()}


@pytest.mark.parametrize("task", TASKS)
def test_batch_size_and_shards_change_no_verdict(task, tmp_path):
    asked, limit = spec(task), LIMIT[task]
    whole = run(asked, runs=tmp_path / "8", limit=limit, batch_size=8, pictures=0)
    for size, shards in ((1, 1), (32, 1), (8, 4)):
        other = run(asked, runs=tmp_path / f"{size}-{shards}", limit=limit, batch_size=size, shards=shards, pictures=0)
        assert verdicts(other["folder"]) == verdicts(whole["folder"])
        for verdict in ("clean", "robust"):
            for metric, value in whole["results"][verdict].items():
                assert other["results"][verdict][metric]["value"] == pytest.approx(value["value"], abs=0.05), (size, shards, verdict, metric)


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
    assert len(list(Path(record["folder"], "pictures").glob("*.png"))) == 3      # two images and the overview


def test_more_images_extend_a_run(tmp_path):
    asked = spec("classification")
    few = run(asked, runs=tmp_path, limit=5, pictures=0)
    first = Path(few["folder"], "images.jsonl").read_bytes()
    more = run(asked, runs=tmp_path, limit=9, pictures=0)
    assert more["results"]["images"] == 9
    assert Path(more["folder"], "images.jsonl").read_bytes().startswith(first)


def test_the_collection_is_as_good_as_it_says():
    zoo = zoo_files.load()
    clean = {name: record.clean for name, record in zoo.heads.items()}
    assert clean["mini-supervised-linear"]["top1"] >= 82
    assert clean["mini-swav-linear"]["top1"] >= 2 * clean["mini-random-linear"]["top1"]
    assert clean["mini-supervised-fcos-finetuned"]["AP50"] >= 60
    assert clean["mini-swav-fcos"]["AP50"] >= 5 * clean["mini-random-fcos"]["AP50"]
    assert clean["mini-supervised-fcn-finetuned"]["miou"] >= 45


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(zoo_files.load().heads))
def test_recorded_clean_metrics_are_measured_again(name):
    from sslrob.verify import verify

    finding = verify("head", name, zoo_files.load(), installed(), metrics=True)
    assert not finding.problem, finding
