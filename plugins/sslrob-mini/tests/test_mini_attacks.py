"""Every kind of attack on every task, on the embedded collection."""

from pathlib import Path

import pytest

from sslrob import zoo_files
from sslrob.execute import run
from sslrob.plugins import installed
from sslrob.resolve import Words, resolve
from sslrob.runs import Run

OWN = {"classification": "task:dlr", "segmentation": "task:cospgd", "detection": "task:vanish"}  # an objective of the task's own
QUICK = {
    "fgsm": (),
    "pgd": ("steps=3",),
    "apgd": ("steps=4",),
    "embedding-pgd": ("steps=3",),
    "uap": ("steps=3",),
    "square": ("queries=12",),
    "autoattack": ("steps=3", "queries=6", "targets=2"),
    "worst-case": ("steps=6",),
    "mi-fgsm": ("steps=3",),
    "spsa": ("queries=24", "pairs=3"),
    "fmn": ("steps=4",),
    "noise-sign": ("draws=2",),
    "corruption": (),
}


def attacked(attack, task, tmp_path, settings=(), **words):
    spec = resolve(Words(backbone="supervised", task=task, attack=attack, settings=settings, **words), zoo_files.load(), installed())
    return run(spec, runs=tmp_path, limit=4, batch_size=2, pictures=0)


@pytest.mark.slow
@pytest.mark.parametrize("task", OWN)
@pytest.mark.parametrize("attack", QUICK)
def test_every_task_is_attacked_in_every_way(attack, task, tmp_path):
    record = attacked(attack, task, tmp_path, QUICK[attack])
    results, rows = record["results"], list(Run(Path(record["folder"])).rows())
    assert results["images"] == len(rows) == 4
    assert all(row["robust"]["quality"] <= row["clean"]["quality"] for row in rows)  # a metric of four images need not follow
    if attack not in ("uap", "corruption"):
        assert results["cost"]["forwards"] > 0
    if attack == "uap":
        assert record["universal"]["forwards"] == 3 * 32


@pytest.mark.slow
@pytest.mark.parametrize("task", OWN)
def test_every_task_has_an_objective_of_its_own(task, tmp_path):
    record = attacked("pgd", task, tmp_path, ("steps=3",), objective=OWN[task])
    assert record["spec"]["attack"]["objective"] == OWN[task]
    assert record["results"]["cost"]["backwards"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", OWN)
def test_every_task_is_attacked_through_a_surrogate(task, tmp_path):
    record = attacked("mi-fgsm", task, tmp_path, ("steps=3",), surrogates=("mini-swav",))
    assert record["spec"]["surrogates"]
    assert record["results"]["cost"]["backwards"] == 3
