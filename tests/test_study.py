"""A study's grid: every cell once, in ordinary runs, whatever fails, is killed or is done already; and what its tables say."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslrob import cli, zoo_files
from sslrob.errors import SslrobError
from sslrob.plugins import installed
from sslrob.runs import Run
from sslrob.stats import mcnemar
from sslrob.study.comparing import _difference, _Victim, compare, short_names
from sslrob.study.comparison import CLEAN, WORST
from sslrob.study.crew import work_off
from sslrob.study.grid import Only, Places, cells
from sslrob.testing.toy_tasks import ToyTask

PLUGIN = """
import os
from sslrob import hookimpl


@hookimpl
def register_backbones(register):
    register("toy", "sslrob.testing.toy_victims:ToyBackbone")


class Square:
    def __init__(self, number):
        self.number = number

    def __call__(self, device, tell):
        if self.number == 3:
            os._exit(7)
        if self.number == 4:
            raise ValueError("four")
        tell(1, 1)
        return self.number**2
"""
ZOO = """schema: 1
backbones:
  toy-one: {use: toy, license: MIT, pretraining: {method: One, data: none}}
  toy-two: {use: toy, settings: {levels: 3}, license: MIT, pretraining: {method: Two, data: none}}
  toy-two-hard: {use: toy, settings: {levels: 4}, license: MIT}
datasets:
  shades:
    task: classification
    format: imagefolder
    path: data
    images: 12
    classes: [dark, light]
    threat_model: linf:8/255
    license: MIT
    default: true
    fit: {path: fit, images: 6}
heads:
  toy-one-linear: {backbone: toy-one, dataset: shades, kind: linear, protocol: linear, weights: {file: one.safetensors}}
  toy-two-linear: {backbone: toy-two, dataset: shades, kind: linear, protocol: linear, weights: {file: two.safetensors}}
attacks:
  quick: {use: pgd, settings: {steps: 3}}
studies:
  try:
    description: a trial
    backbones: [toy-one, toy-two]
    reference: toy-two
    attacks: [fgsm, quick]
    datasets:
      shades: {recipes: [linear], factor_recipes: [linear], epsilons: ["linf:24/255", "linf:36/255"], limit: 8}
    hardened: {toy-two-hard: toy-two}
    factors: {depth: [toy-one, toy-two]}
"""


@pytest.fixture(autouse=True)
def _place(monkeypatch, tmp_path):
    """A plugin that workers find too, a zoo of two toys that lean to either class, and nothing of whoever runs the tests."""
    from safetensors.torch import save_file

    site = tmp_path / "site"
    info = site / "sslrob_toys-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "sslrob_toys.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sslrob-toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sslrob]\ntoys = sslrob_toys\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("SSLROB_PLUGINS", "sslrob-toys")
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SSLROB_ZOO", str(tmp_path / "zoo.yaml"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    for folder, n in (("data", 6), ("fit", 3)):
        for name, light in (("dark", 108), ("light", 130)):
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(np.full((8, 8, 3), light + 3 * i, dtype=np.uint8)).save(tmp_path / folder / name / f"{i}.png")
    for name, lean in (("one", 0.0), ("two", 0.15)):
        state = {"head.weight": torch.tensor([[-1.0] * 3, [1.0] * 3]), "head.bias": torch.tensor([0.0, lean])}
        save_file(state, tmp_path / f"{name}.safetensors")
    (tmp_path / "zoo.yaml").write_text(ZOO)
    installed.cache_clear()
    yield
    installed.cache_clear()


def answer(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sslrob study WORDS`, without colours."""
    capsys.readouterr()
    code = cli.run(["study", *words])
    out, err = capsys.readouterr()
    return code, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (out, err))


RUN = ("run", "try", "--jobs", "1", "--device", "cpu")


@pytest.fixture
def forwards(monkeypatch):
    """How many images went through a backbone, as a list of batch sizes."""
    from sslrob.testing.toy_victims import ToyBackbone

    seen: list[int] = []
    forward = ToyBackbone.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(ToyBackbone, "forward", counted)
    return seen


def rows(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/images.jsonl"))}


# The grid


def test_every_cell_once_victim_by_victim():
    grid = cells(zoo_files.load().studies["try"])
    assert len(grid) == len(set(grid)) == 3 * 2 * 2  # the factor's backbones are there already
    assert [cell.head.backbone for cell in grid] == ["toy-one"] * 4 + ["toy-two"] * 4 + ["toy-two-hard"] * 4
    assert {cell.limit for cell in grid} == {8}
    assert {cell.limit for cell in cells(zoo_files.load().studies["try"], limit=3)} == {3}


def test_only_takes_a_part_and_says_what_it_does_not_know():
    grid = cells(zoo_files.load().studies["try"])
    wanted = list(filter(Only.parse(["backbone=toy-one,backbone=toy-two", "attack=fgsm"], grid), grid))
    assert len(wanted) == 4
    assert {cell.attack for cell in wanted} == {"fgsm"}
    for text, message in (("backbone", "not KEY=VALUE"), ("bakbone=x", "no key of --only"), ("attack=pgd-50", "no attack of this study")):
        with pytest.raises(SslrobError, match=message) as caught:
            Only.parse([text], grid)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("backbones: [toy-one, toy-two]", "backbones: [toy-one, toy-tow]", "studies.try.backbones.1: no backbone is named 'toy-tow'"),
        ("reference: toy-two", "reference: toy-two-hard", "'toy-two-hard' is not one of the study's backbones"),
        ("attacks: [fgsm, quick]", "attacks: [fgsm, quack]", "no attack is named 'quack'"),
        ("shades: {recipes: [linear]", "shades: {recipes: [linaer]", "no recipe is named 'linaer'"),
        ("      shades: {", "      shade: {", "no dataset is named 'shade'"),
        ("toy-two-hard: toy-two}", "toy-two-hart: toy-two}", "no backbone is named 'toy-two-hart'"),
        ("depth: [toy-one, toy-two]", "depth: [toy-one, toy-too]", "no backbone is named 'toy-too'"),
        ("linf:24/255", "linf:24", "is not on the .0, 1. scale"),
    ],
)
def test_wrong_names_are_told_with_their_line(tmp_path, right, wrong, message):
    line = ZOO[: ZOO.index(right)].count("\n") + 1
    (tmp_path / "zoo.yaml").write_text(ZOO.replace(right, wrong))
    with pytest.raises(SslrobError, match=message) as caught:
        zoo_files.load()
    assert f"zoo.yaml:{line}: " in str(caught.value)
    assert caught.value.hint


# Running it


def test_all_cells_run_once_and_heads_are_trained_first(capsys, tmp_path, forwards):
    code, out, err = answer(capsys, *RUN)
    assert code == 0, err
    assert "12 cells: 12 run, 0 done before" in out
    assert "heads trained: toy-two-hard-linear" in out
    assert err.splitlines()[-1].startswith("[12/12] toy-two-hard · shades · linear · quick · linf:36/255: top1 ")
    assert [line.startswith("[8/12] training toy-two-hard · shades · linear: trained") for line in err.splitlines()].index(True) == 8
    before, looked = rows(tmp_path / "runs"), len(forwards)
    assert len(before) == 12
    assert {text.count(b"\n") for text in before.values()} == {8}
    code, out, err = answer(capsys, *RUN)
    assert (code, err) == (0, "")
    assert "12 cells: 0 run, 12 done before" in out
    assert (rows(tmp_path / "runs"), len(forwards)) == (before, looked), "nothing is computed again"


def test_a_cell_is_the_run_of_the_same_question(capsys, tmp_path, forwards):
    words = "eval --backbone toy-one --dataset shades --attack fgsm --epsilon 24/255 --limit 8 --pictures 0 --device cpu"
    assert cli.run(words.split()) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    looked = len(forwards)
    code, out, _ = answer(capsys, *RUN, "--only", "backbone=toy-one,attack=fgsm")
    assert code == 0
    assert "2 cells: 1 run, 1 done before" in out
    assert folder.name in {path.name for path in (tmp_path / "runs").iterdir()}
    assert len(forwards) > looked


def test_a_smaller_limit_is_extended(capsys, tmp_path):
    one = (*RUN, "--only", "backbone=toy-one,attack=fgsm")
    answer(capsys, *one, "--limit", "3")
    before = rows(tmp_path / "runs")
    assert {text.count(b"\n") for text in before.values()} == {3}
    assert "2 run" in answer(capsys, *one)[1]
    after = rows(tmp_path / "runs")
    assert after.keys() == before.keys()
    assert all(after[name].startswith(before[name]) and after[name].count(b"\n") == 8 for name in before)
    assert "0 run, 2 done before" in answer(capsys, *one, "--limit", "3")[1]


def test_without_training_what_has_no_head_is_skipped_and_named(capsys, tmp_path):
    code, out, _ = answer(capsys, *RUN, "--no-train", "--json")
    told = json.loads(out)
    assert code == 0
    assert (len(told["ran"]), len(told["skipped"]), told["trained"]) == (8, 4, [])
    assert told["skipped"][0]["command"] == "sslrob train --backbone toy-two-hard --recipe linear"
    assert "4 cells skipped" in answer(capsys, *RUN, "--no-train")[1]
    assert not (tmp_path / "home").exists()


def test_dry_run_runs_nothing(capsys, tmp_path):
    code, out, _ = answer(capsys, "run", "try", "--dry-run")
    assert code == 0
    assert out.count("to run, after its head is trained") == 4
    assert "12 cells, of which 0 are done; 1 head is to be trained" in out
    assert not (tmp_path / "runs").exists()
    told = json.loads(answer(capsys, "run", "try", "--dry-run", "--json")[1])
    assert [cell["state"] for cell in told["cells"]] == ["open"] * 8 + ["headless"] * 4


def test_a_failing_cell_stops_no_other(capsys, monkeypatch):
    from sslrob import execute
    from sslrob.errors import RunFailed

    run = execute.run

    def sometimes(spec, **more):
        if (spec.subject, spec.attack.id) == ("toy-one", "quick"):
            raise RunFailed("the lamp went out", hint="light it")
        return run(spec, **more)

    monkeypatch.setattr("sslrob.execute.run", sometimes)
    code, out, err = answer(capsys, *RUN)
    assert code == 1
    assert "10 run" in out
    assert "2 cells failed: the lamp went out (light it)\n  toy-one · shades · linear · quick · linf:24/255\n" in out
    assert "error: 2 of 12 cells failed" in err
    monkeypatch.setattr("sslrob.execute.run", run)
    assert "2 run, 10 done before" in answer(capsys, *RUN)[1]


def test_a_head_that_cannot_be_trained_fails_its_cells_alone(capsys, tmp_path):
    shutil.rmtree(tmp_path / "fit")
    code, out, _ = answer(capsys, *RUN)
    assert code == 1
    assert "8 run" in out
    assert out.count("toy-two-hard · shades") == 4


@pytest.mark.slow
def test_workers_live_on_and_a_dead_one_fails_its_job_alone():
    from sslrob_toys import Square  # type: ignore[import-not-found]

    events = []
    queue = deque(Square(i) for i in range(6))
    work_off(queue, ("cpu", "cpu"), threads=1, listen=events.append)
    results = {event.job.number: event.result for event in events if event.kind == "done"}
    failed = {event.job.number: str(event.error) for event in events if event.kind == "failed"}
    assert results == {0: 0, 1: 1, 2: 4, 5: 25}
    assert "exit code 7" in failed[3]
    assert failed[4] == "ValueError: four"
    assert sum(event.kind == "progress" for event in events) == 4


@pytest.mark.slow
def test_killed_in_its_midst_and_run_again(capsys, tmp_path):
    """kill -9 of the command ends its workers too; rows that were there stay as they were, and the end is that of a run without a kill."""
    text = (
        ZOO.replace("steps: 3", "steps: 400").replace("limit: 8", "limit: 12").replace("hardened: {toy-two-hard: toy-two}", "hardened: {}")
    )
    (tmp_path / "zoo.yaml").write_text(text)
    words = ["study", "run", "try", "--device", "cpu", "--batch-size", "2", "--only", "attack=quick"]
    killed = [sys.executable, "-m", "sslrob", *words, "--jobs", "2", "--runs", "killed"]
    process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while sum(text.count(b"\n") for text in rows(tmp_path / "killed").values()) < 16 and time.monotonic() < deadline:
        assert process.poll() is None, "the study was to be killed in its midst"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers end by themselves
    before = rows(tmp_path / "killed")
    assert 16 <= sum(text.count(b"\n") for text in before.values()) < 48
    for runs in ("killed", "whole"):
        code, _, err = answer(capsys, *words[1:], "--jobs", "1", "--runs", runs)
        assert code == 0, err
    after, whole = rows(tmp_path / "killed"), rows(tmp_path / "whole")
    assert all(after[name].startswith(text[: text.rfind(b"\n") + 1]) for name, text in before.items())
    assert after.keys() == whole.keys()
    for name in after:
        assert Run(tmp_path / "killed" / name).rows() == Run(tmp_path / "whole" / name).rows()


# What it says


def comparison(tmp_path: Path):
    zoo = zoo_files.load()
    return compare("try", zoo.studies["try"], cells(zoo.studies["try"]), Places(zoo, installed(), tmp_path / "runs"))


def test_tables_agree_with_the_runs(capsys, tmp_path):
    answer(capsys, *RUN)
    found = comparison(tmp_path)
    (one,) = found.tables
    assert (one.images, one.metric, one.graded, one.finetuned, found.missing) == (8, "top1", False, False, ())
    assert dict(found.names) == {"toy-one": "One", "toy-two": "Two", "toy-two-hard": "two-hard"}
    for record in (Run(path.parent).record() for path in (tmp_path / "runs").glob("*/run.json")):
        spec, results = record["spec"], record["results"]
        mine = one.results[spec["backbone"]["id"]]
        key = spec["attack"]["id"], spec["threat_model"]
        assert mine.robust[key][:3] == tuple(results["robust"]["top1"].values())
        assert mine.success[key].value == results["attack_success_rate"]["value"]
        assert mine.clean.value == results["clean"]["top1"]["value"]
        assert mine.robust[WORST, key[1]].value <= mine.robust[key].value
        assert mine.success[WORST, key[1]].value >= mine.success[key].value


def test_tests_are_on_the_same_images_and_corrected_together(capsys, tmp_path):
    answer(capsys, *RUN)
    (one,) = comparison(tmp_path).tables
    assert [(t.backbone, t.against, t.verdict) for t in one.tests] == [
        ("toy-one", "toy-two", verdict) for verdict in (CLEAN, "linf:24/255", "linf:36/255")
    ]
    assert {(t.backbone, t.against) for t in one.hardened} == {("toy-two-hard", "toy-two")}
    for test in one.tests:
        a, b = (one.results[name] for name in (test.backbone, test.against))
        pair = [r.clean if test.verdict == CLEAN else r.robust[WORST, test.verdict] for r in (a, b)]
        assert test.difference.value == pytest.approx(pair[0].value - pair[1].value)
        assert test.adjusted >= test.difference.p
    assert any(test.difference.value for test in one.tests)


def test_runs_of_several_sizes_are_compared_on_common_images(capsys, tmp_path):
    answer(capsys, *RUN, "--only", "backbone=toy-one")
    answer(capsys, *RUN, "--only", "backbone=toy-two,attack=fgsm", "--limit", "5")
    found = comparison(tmp_path)
    (one,) = found.tables
    assert one.images == 5
    assert one.notes == (
        "its runs have 5 to 8 images; everything here is of the 5 images that all of them have",
        "the study asks for 8 images",
    )
    assert {estimate.n for estimate in (one.results["toy-one"].clean, one.results["toy-two"].clean)} == {5}
    assert len(found.missing) == 8
    assert not any((WORST, epsilon) in one.results["toy-two"].robust for epsilon in one.epsilons), "one attack is no worst case of two"
    code, out, _ = answer(capsys, "show", "try")
    assert code == 0
    assert "missing: 8 cells; sslrob study run try runs them" in out
    assert "sslrob study run try --only dataset=shades,recipe=linear" in out


def test_show_before_anything_ran(capsys):
    code, out, _ = answer(capsys, "show", "try")
    assert code == 0
    assert "no run of it is finished yet" in out
    assert "missing: 12 cells" in out


def test_show_in_all_formats(capsys, tmp_path, golden):
    answer(capsys, *RUN)
    golden("study.txt", answer(capsys, "show", "try")[1])
    markdown = answer(capsys, "show", "try", "--format", "markdown")[1]
    assert "| epsilon | method | clean | fgsm | quick | worst case |\n| --- |" in markdown
    numbers = list(csv.DictReader(io.StringIO(answer(capsys, "show", "try", "--format", "csv")[1])))
    assert {number["what"] for number in numbers} == {"clean", "robust", "attack success rate", "difference"}
    told = json.loads(answer(capsys, "show", "try", "--format", "json")[1])
    assert len(told["numbers"]) == len(numbers) == 3 * (1 + 2 * 6) + 3 + 3
    assert answer(capsys, "show", "try", "--format", "xml")[0] == 2
    assert answer(capsys, "show", "tri")[0] == 2


def test_plots_are_the_same_for_the_same_numbers(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    answer(capsys, *RUN)
    for out in ("a", "b"):
        code, _, err = answer(capsys, "show", "try", "--out", out)
        assert code == 0, err
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    plots = {f"{name}.{form}" for name in ("robustness", "differences", "factor-depth", "hardened") for form in ("png", "svg")}
    assert set(files) == {"tables.md", "tables.csv", "tables.json", *plots}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert all(b"<dc:date>" not in text for name, text in files.items() if name.endswith(".svg"))


def graded(kind: str, right: list[int], fooled: list[bool]) -> list[dict]:
    clean = {"fooled": False, "quality": 1.0, "measure": {"right": 10, "of": 10}}
    robust = [{"fooled": f, "quality": r / 10, "measure": {"right": r, "of": 10}} for r, f in zip(right, fooled, strict=True)]
    return [{"id": f"{kind}{i}", "clean": clean, "robust": r} for i, r in enumerate(robust)]


def test_the_worst_case_of_a_graded_task_is_that_of_each_image():
    task = ToyTask("segmentation")
    a, b = graded("x", [2, 9, 5, 1], [False, False, False, True]), graded("x", [8, 1, 5, 0], [False] * 4)
    victim = _Victim(task, ("a", "b"), {("a", "e"): a, ("b", "e"): b})
    worst = victim.worst("e")
    assert worst is not None
    assert [row["measure"]["right"] for row in worst] == [2, 1, 5, 1], "fooled outright is worse than any quality"
    assert victim.worst("unheard") is None
    weaker = _Victim(task, ("a", "b"), {("a", "e"): a, ("b", "e"): graded("x", [0, 0, 0, 0], [False] * 4)})
    found = weaker.worst("e")
    assert found is not None
    assert sum(row["measure"]["right"] for row in found) == 0, "one attack on all images can cost a pooled metric more"


def test_graded_tasks_are_tested_by_paired_bootstrap():
    rng = np.random.default_rng(0)
    low = rng.integers(2, 8, 60).tolist()
    task = ToyTask("segmentation")
    ours = _Victim(task, ("a",), {("a", "e"): graded("x", [r + 1 for r in low], [False] * 60)})
    theirs = _Victim(task, ("a",), {("a", "e"): graded("x", low, [False] * 60)})
    found = _difference(ours, theirs, "e", ours.worst("e") or [], theirs.worst("e") or [])
    assert (found.value, found.low, found.high) == pytest.approx((10, 10, 10))
    assert found.p < 0.01


def test_shares_are_tested_by_mcnemar():
    from sslrob.builtin.classification import Classification

    def rows_of(fooled: list[bool]) -> list[dict]:
        verdicts = [{"fooled": f, "quality": 1.0, "measure": {"label": 0, "predicted": int(f), "rank": int(f)}} for f in fooled]
        return [{"id": str(i), "clean": v, "robust": v} for i, v in enumerate(verdicts)]

    task = Classification()
    ours = _Victim(task, ("a",), {("a", "e"): rows_of([False] * 9 + [True])})
    theirs = _Victim(task, ("a",), {("a", "e"): rows_of([True] * 8 + [False] * 2)})
    found = _difference(ours, theirs, "e", ours.worst("e") or [], theirs.worst("e") or [])
    assert found.value == pytest.approx(70)
    assert found.p == mcnemar(8, 1)


def test_short_names():
    zoo = zoo_files.load()
    study = zoo.studies["try"]
    assert short_names(["toy-one", "toy-two"], study, zoo.backbones) == {"toy-one": "One", "toy-two": "Two"}
    same = study.model_copy(update={"backbones": ("toy-one", "toy-two-hard")})
    assert short_names(["toy-one", "toy-two-hard"], same, zoo.backbones) == {"toy-one": "One", "toy-two-hard": "two-hard"}
