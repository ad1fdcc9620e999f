"""The texts of a run: what is said, and what is never left unsaid."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sslrob.errors import SslrobError
from sslrob.report import compare, duration, estimate, everything, find, read, show
from sslrob.runs import Run

SPEC = {
    "sslrob": "0.1.0",
    "task": {"name": "detection", "plugin": "sslrob-toy 1.0", "version": 1},
    "dataset": {"id": "toys", "format": "coco", "path": "toys", "split": "test", "images": 300, "classes": [], "settings": {}, "fit": None},
    "backbone": {"id": "toy-swav", "use": "toy", "plugin": "sslrob-toy 1.0", "settings": {}, "weights": None, "seed": 0},
    "head": {"id": "toy-fcos", "kind": "fcos", "protocol": "frozen", "settings": {}, "weights": None, "clean": {}},
    "victim": None,
    "attack": {"id": "pgd", "use": "pgd", "plugin": "sslrob 0.1.0", "objective": "task", "settings": {"steps": 20}, "restarts": 1},
    "threat_model": "linf:1/255",
    "seed": 0,
    "asked": "swav",
}
RESULTS = {
    "images": 200,
    "clean": {"ap50": {"value": 62.04, "low": 57.5, "high": 66.1}, "map": {"value": 31.2, "low": 28.0, "high": 34.1}},
    "robust": {"ap50": {"value": 20.0, "low": 16.5, "high": 24.1}, "map": {"value": 8.1, "low": 6.9, "high": 9.4}},
    "rounded": {"ap50": {"value": 21.0, "low": 17.5, "high": 25.1}, "map": {"value": 8.4, "low": 7.0, "high": 9.6}},
    "attack_success_rate": {"value": 62.5, "low": 55.2, "high": 69.3, "n": 176},
    "cost": {"forwards": 15.25, "backwards": 14.5},
    "distance": {"mean": 0.0037, "max": 1 / 255},
}
RECORD = {
    "format": 1,
    "status": "finished",
    "id": "0123abcd",
    "spec": SPEC,
    "provenance": {"command": ["eval", "--backbone", "swav", "--set", "x=a b"]},
    "headline": "map",
    "results": RESULTS,
    "flags": [],
    "seconds": 185.0,
}


def store(folder: Path, record: dict, rows: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    if rows:
        Run(folder).append({"id": f"{i}"} for i in range(rows))
    return folder


def test_a_corruption_bounds_nothing():
    attack = {**SPEC["attack"], "id": "weather", "use": "sslrob/corruption"}
    told = show({**RECORD, "spec": {**SPEC, "attack": attack, "threat_model": "linf:1"}, "sentence": "weather", "folder": "gone"})
    assert "No bound on robustness: a corruption is a control" in told
    assert "An upper bound" not in told


def test_a_share_that_rounds_to_nothing_has_no_sign():
    assert estimate({"value": -0.04, "low": -0.9, "high": 0.3}) == "0.0 [-0.9, 0.3]"


def test_a_finished_run(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = store(Path("runs/toy-swav-toys-pgd-0123abcd"), RECORD, rows=2)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "overview.png").touch()
    golden("report.txt", plain(show(read(folder))) + "\n")


def test_flags_are_shown_with_their_evidence(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        {"name": "dead-gradients", "evidence": "50 of 400 gradients (12%) were zero or not finite: the attack was blind"},
        {"name": "random-victim", "evidence": "two forwards of the same images differ by 0.2"},
    ]
    spec = {**SPEC, "attack": {**SPEC["attack"], "id": "fgsm", "use": "sslrob/fgsm", "settings": {}}, "threat_model": "l2:0.5"}
    results = {**RESULTS, "lost": {"value": 74.0, "low": 70.9, "high": 77.2}}
    folder = store(Path("runs/flagged"), {**RECORD, "spec": spec, "flags": flags, "results": results})
    golden("report_flags.txt", plain(show(read(folder))) + "\n")


def test_unfinished_runs_say_so_and_how_to_go_on(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = {key: value for key, value in RECORD.items() if key not in ("results", "headline", "flags", "seconds")}
    started = store(Path("runs/started"), {**begun, "status": "started"}, rows=40)
    failed = store(Path("runs/failed"), {**begun, "status": "failed", "error": "RunFailed: the victim returned NaN"}, rows=1)
    extended = store(Path("runs/extended"), {**RECORD, "status": "started"}, rows=250)
    golden("report_unfinished.txt", "\n\n\n".join(plain(show(read(folder))) for folder in (started, failed, extended)) + "\n")


def test_several_runs_are_a_table(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weaker = copy.deepcopy(RECORD)
    weaker["spec"]["threat_model"], weaker["flags"] = "linf:0.5/255", [{"name": "changed-victim", "evidence": "its buffers changed"}]
    weaker["spec"]["head"] |= {"id": "toy-swav-fcos-deep", "alone": False}
    weaker["results"]["lost"] = {"value": 40.2, "low": 35.1, "high": 44.0}
    for name, record in (
        ("toy-swav-toys-pgd-0123abcd", RECORD),
        ("toy-swav-toys-pgd-89abcdef", weaker),
        ("toy-x", {**RECORD, "status": "started"}),
    ):
        record = {key: value for key, value in record.items() if name != "toy-x" or key != "results"}
        store(Path("runs") / name, record, rows=3)
    golden("report_several.txt", plain(compare([read(folder) for folder in everything(Path("runs"))])) + "\n")


def test_several_runs_tell_what_was_asked_where_it_differs(tmp_path):
    def asked(name, use="pgd", objective="task", seed=0, **settings):
        attack = {**SPEC["attack"], "use": use, "objective": objective, "settings": settings}
        return read(store(tmp_path / name, {**RECORD, "spec": {**SPEC, "attack": attack, "seed": seed}}))

    one = asked("one", steps=20, random_start=True)
    many = asked("many", use="sslrob/pgd", objective="task:dlr", steps=100, random_start=True)
    others = [asked("other", use="fgsm", size=1), asked("later", use="square", queries=5), asked("seed", use="square", seed=3, queries=5)]

    def cells(*records):
        header, *lines = plain(compare(records)).splitlines()
        found = {
            name: [line[header.index(name) :].split("  ")[0] for line in lines] for name in ("objective", "settings") if name in header
        }
        return found.get("objective"), found.get("settings")

    assert cells(one, others[0]) == (None, None)
    assert cells(one, many) == (["task", "task:dlr"], ["steps=20", "steps=100"])
    assert cells(*others) == (None, ["", "seed=0", "seed=3"])


def test_a_run_that_attacked_nothing(tmp_path):
    results = {**RESULTS, "attack_success_rate": {"value": None, "low": 0.0, "high": 100.0, "n": 0}}
    assert "attack success rate  – % of the 0 images not fooled when clean" in plain(
        show(read(store(tmp_path / "run", {**RECORD, "results": results})))
    )


def test_images_of_which_the_adversary_showed_the_clean_one(tmp_path):
    for count, line in ((1, "1 image: "), (3, "3 images: ")):
        told = plain(show(read(store(tmp_path / str(count), {**RECORD, "results": {**RESULTS, "declined": count}}))))
        assert f"declined             {line}whatever was found helps the victim" in told
    assert "declined" not in plain(show(read(store(tmp_path / "none", {**RECORD, "results": {**RESULTS, "declined": 0}}))))


def test_the_rule_of_the_worst_case_is_named_where_the_task_has_one(tmp_path):
    told = plain(show(read(store(tmp_path / "told", {**RECORD, "judged_by": "share of right pixels"}))))
    assert "worst case" in told
    assert "the candidate with the lowest share of right pixels" in told
    assert "worst case" not in plain(show(read(store(tmp_path / "older", RECORD))))


def test_a_spec_of_another_version_is_named_by_its_folder(tmp_path):
    folder = store(tmp_path / "old-run", {**RECORD, "status": "started", "spec": {**SPEC, "new_key": 1}})
    assert plain(show(read(folder))).startswith("old-run\n")


def test_estimates_and_durations():
    assert estimate(None) == "–"
    assert estimate({"value": 5.0, "low": 1.23, "high": 8.76}) == "5.0 [1.2, 8.8]"
    assert [duration(s) for s in (0.04, 59.9, 59.99, 185.4, 7300)] == ["0.0 s", "59.9 s", "1 min 00 s", "3 min 05 s", "2 h 01 min"]


def test_runs_are_found_by_folder_prefix_and_id(tmp_path):
    runs = tmp_path / "runs"
    a, b = (store(runs / name, RECORD) for name in ("swav-toys-pgd-0123abcd", "swav-toys-pgd-89abcdef"))
    assert find(str(a), runs) == a
    assert find(str(a / "run.json"), runs) == a
    assert find("swav-toys-pgd-8", runs) == b
    assert find("0123abcd", runs) == a
    with pytest.raises(SslrobError, match="'swav' may be any of 2 runs") as error:
        find("swav", runs)
    assert "write more" in error.value.hint
    with pytest.raises(SslrobError, match="no run is named 'swva-toys'") as error:
        find("swva-toys", runs)
    assert "swav-toys-pgd-0123abcd" in error.value.hint
    with pytest.raises(SslrobError, match="there are none"):
        find("swav", tmp_path / "elsewhere")


def test_reading_a_run_needs_no_torch(tmp_path):
    folder = store(tmp_path / "run", RECORD)
    code = f"import sys; from sslrob.cli import run; code = run(['report', {str(folder)!r}]); print([m for m in ('torch', 'numpy') if m in sys.modules], code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


def plain(text: str) -> str:
    """Without colours, and with the machine's path separators made one."""
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\\", "/")
