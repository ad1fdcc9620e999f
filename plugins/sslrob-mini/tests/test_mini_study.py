"""The reduced study of the embedded collection, from nothing to plots, on two cores."""

import json
import subprocess
import sys
import time

import pytest

from sslrob import zoo_files
from sslrob.study.grid import cells

MINUTES = 20


def sslrob(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "sslrob", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_mini_quick_from_nothing_to_plots(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "home"))
    study = zoo_files.load().studies["mini-quick"]
    runs = ("--runs", str(tmp_path / "runs"))
    began = time.monotonic()
    told = json.loads(sslrob("study", "run", "mini-quick", *runs, "--device", "cpu", "--jobs", "2", "--no-train", "--json"))
    assert time.monotonic() - began < 60 * MINUTES
    assert (told["trained"], told["skipped"], told["failed"]) == ([], [], []), "its heads ship with the collection"
    assert len(told["ran"]) == told["cells"] == len(cells(study))
    again = json.loads(sslrob("study", "run", "mini-quick", *runs, "--device", "cpu", "--jobs", "2", "--json"))
    assert (again["ran"], again["found"]) == ([], told["cells"])
    shown = json.loads(sslrob("study", "show", "mini-quick", *runs, "--format", "json", "--out", str(tmp_path / "out")))
    assert shown["missing"] == []
    assert {number["dataset"] for number in shown["numbers"]} == set(study.datasets)
    robust = [number for number in shown["numbers"] if number["what"] == "robust"]
    assert len(robust) == sum(
        len(study.backbones) * len(asked.recipes) * len(asked.epsilons) * (len(study.attacks) + 1) for asked in study.datasets.values()
    )
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".csv", ".json", ".png", ".svg"}


@pytest.mark.parametrize("name", ["mini", "mini-quick"])
def test_the_studies_compare_with_supervised(name):
    study = zoo_files.load().studies[name]
    assert study.reference == "mini-supervised"
    assert study.attacks == ("fgsm", "pgd", "embedding-pgd")
    assert {record.task for dataset, record in zoo_files.load().datasets.items() if dataset in study.datasets} == {
        "classification",
        "segmentation",
        "detection",
    }
