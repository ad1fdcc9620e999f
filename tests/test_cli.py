"""The command line as its users meet it: what it answers, how fast, and what it says when the words are wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sslrob import cli, hookimpl
from sslrob.plugins import installed

LISTS = (["--help"], ["eval", "--help"], ["zoo", "list"], ["attacks", "list"], ["tasks", "list"], ["defenses", "list"], ["plugins", "list"])
HEAVY = ("torch", "torchvision", "numpy", "PIL", "mmcv", "mmengine", "rich.console")


class Toy:
    """A plugin with one backbone."""

    @hookimpl
    def register_backbones(self, register):
        register("toy", "sslrob.testing.toy_victims:ToyBackbone")


class Typo:
    @hookimpl
    def register_atacks(self, register):
        register("x", object)


@pytest.fixture(autouse=True)
def only_core(monkeypatch, tmp_path):
    """sslrob's own components, a toy plugin and a broken one; no zoo of whoever runs the tests."""
    monkeypatch.setenv("SSLROB_PLUGINS", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SSLROB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SSLROB_ZOO", raising=False)
    monkeypatch.delenv("SSLROB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    installed.cache_clear()
    installed().add(Toy(), "sslrob-toy 1.0")
    installed().broken["sslrob-mmdet 0.1.0"] = "ModuleNotFoundError: No module named 'mmdet'"
    yield
    installed.cache_clear()


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Twelve images of two classes, which the pooled mean of the image tells apart, and a head that does."""
    from safetensors.torch import save_file

    for name, light in (("dark", 90), ("light", 166)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8, 3), light + i, dtype=np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    save_file({"head.weight": torch.tensor([[-1.0] * 3, [1.0] * 3]), "head.bias": torch.zeros(2)}, tmp_path / "head.safetensors")
    (tmp_path / "zoo.yaml").write_text(
        """schema: 1
backbones:
  toy-1: {use: toy, family: toys, license: MIT, pretraining: {method: none, data: none, epochs: 800, batch_size: 4096}}
datasets:
  shades:
    {task: classification, format: imagefolder, path: data, images: 12, classes: [dark, light], threat_model: "linf:8/255", default: true, license: MIT}
heads:
  toy-linear: {backbone: toy-1, dataset: shades, kind: linear, weights: {file: head.safetensors}, clean: {top1: 100.0}}
"""
    )
    monkeypatch.setenv("SSLROB_ZOO", str(tmp_path / "zoo.yaml"))


EVAL = ["eval", "--backbone", "toys", "--task", "classification", "--device", "cpu"]


def answer(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sslrob WORDS`, without colours."""
    capsys.readouterr()
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    return code, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (out, err))


# What is listed, and how fast


def test_lists_import_nothing_heavy():
    code = f"import sys; from sslrob.cli import run; codes = [run(words) for words in {LISTS!r}]; print([m for m in {HEAVY!r} if m in sys.modules], set(codes))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] {0}"


@pytest.mark.parametrize("words", [["--help"], ["zoo", "list"]], ids=" ".join)
def test_lists_answer_in_half_a_second(words):
    """Of processor time, the best of three; where other processes slow that down too, against what pydantic alone takes."""

    def spent(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    took, reference = 9.0, 9.0
    for _ in range(3):
        took = min(took, spent(f"from sslrob.cli import run; run({words!r})"))
        if took < 0.5:
            return
        reference = min(reference, spent("import typer, yaml, pydantic.type_adapter"))
    assert took < 2.5 * reference


def test_help(capsys, golden):
    golden("help.txt", answer(capsys, "--help")[1])
    golden("help_eval.txt", answer(capsys, "eval", "--help")[1])


def test_no_words_print_the_help(capsys):
    code, out, err = answer(capsys)
    assert (code, err) == (2, "")
    assert out.startswith("Usage: sslrob")


def test_version(capsys):
    from importlib.metadata import version

    assert answer(capsys, "--version") == (0, f"sslrob {version('sslrob')}\n", "")


def test_lists(capsys, golden, zoo):
    lists = (["zoo", "list"], ["zoo", "list", "heads", "--family", "toys"], ["tasks", "list"], ["defenses", "list"])
    told = [f"$ sslrob {' '.join(words)}\n{answer(capsys, *words)[1]}" for words in lists]
    golden("lists.txt", "\n".join(told))


def test_lists_as_json(capsys, zoo):
    found = json.loads(answer(capsys, "zoo", "list", "--json")[1])
    assert found["backbones"]["toy-1"]["pretraining"]["epochs"] == 800
    assert set(found) == {"backbones", "datasets"}
    assert "pgd" in [entry["attack"] for entry in json.loads(answer(capsys, "attacks", "list", "--json")[1])]
    plugins = json.loads(answer(capsys, "plugins", "list", "--json")[1])
    assert plugins["plugins"]["sslrob-toy 1.0"]["backbone"] == ["toy"]
    assert "sslrob-mmdet 0.1.0" in plugins["broken"]


def test_zoo_list_by_task(capsys, zoo):
    assert "toy-1" in answer(capsys, "zoo", "list", "backbones", "--task", "classification")[1]
    assert answer(capsys, "zoo", "list", "victims", "--task", "classification")[1] == "no victims\n"
    code, _, err = answer(capsys, "zoo", "list", "backbones", "--task", "classificaton")
    assert code == 2
    assert "did you mean 'classification'?" in err


def test_a_broken_plugin_is_listed_with_its_reason(capsys):
    assert "sslrob-mmdet 0.1.0  broken: ModuleNotFoundError: No module named 'mmdet'" in answer(capsys, "plugins", "list")[1]


def test_zoo_show(capsys, zoo):
    code, out, _ = answer(capsys, "zoo", "show", "toys")
    assert code == 0
    assert re.match(r"backbone toy-1, in .*zoo\.yaml\nuse: toy\n", out)
    assert "toy-linear" in out
    (entry,) = json.loads(answer(capsys, "zoo", "show", "shades", "--json")[1])
    assert (entry["kind"], entry["threat_model"]) == ("dataset", "linf:8/255")


def test_zoo_schema_is_json(capsys):
    assert json.loads(answer(capsys, "zoo", "schema")[1])["title"] == "sslrob zoo"


def test_zoo_verify(capsys, zoo, tmp_path):
    code, out, _ = answer(capsys, "zoo", "verify", "--metrics")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["✓", "backbone", "toy-1"],
        ["✓", "head", "toy-linear"],
        ["✓", "dataset", "shades"],
    ]
    assert "top1 100.00 (zoo 100.00)" in out
    (tmp_path / "head.safetensors").write_bytes(b"torn")
    (tmp_path / "data" / "dark" / "0.png").unlink()
    code, out, _ = answer(capsys, "zoo", "verify", "--json")
    problems = {finding["name"]: finding["problem"] for finding in map(json.loads, out.splitlines())}
    assert code == 1
    assert "is not a whole safetensors file" in problems["toy-linear"]
    assert "11 images, 12 in the zoo" in problems["shades"]
    assert not problems["toy-1"]


def test_zoo_verify_measures(capsys, zoo, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(file.read_text().replace("top1: 100.0", "top1: 50.0"))
    code, out, _ = answer(capsys, "zoo", "verify", "toys", "--metrics")
    assert code == 1
    assert "and 50.00 in the zoo" in out
    assert "shades" not in out


def test_zoo_verify_goes_on_where_it_stopped(capsys, zoo, tmp_path, monkeypatch):
    """What was measured is looked up, but not with other weights, nor with --again; a torn line counts for nothing."""
    from sslrob import verify

    rows, looks, told = verify.clean_rows, [], []
    monkeypatch.setattr("sslrob.verify.clean_rows", lambda *given: looks.append(1) or rows(*given))
    for words, expected in (([], 1), ([], 1), (["--again"], 2)):
        code, out, _ = answer(capsys, "zoo", "verify", "toys", "--metrics", *words)
        assert code == 0
        assert len(looks) == expected
        told.append("as measured before" in out)
    assert told == [False, True, False]
    memory = tmp_path / "cache" / "clean.jsonl"
    memory.write_text(memory.read_text().splitlines()[1][:-4])
    answer(capsys, "zoo", "verify", "toys", "--metrics")
    assert len(looks) == 3
    head = tmp_path / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-8] + bytes(8))  # another bias
    out = answer(capsys, "zoo", "verify", "toys", "--metrics")[1]
    assert len(looks) == 4
    assert "top1 100.00" in out


def test_zoo_verify_knows_the_metrics_of_the_task(capsys, zoo, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(file.read_text().replace("top1: 100.0", "top11: 100.0"))
    code, out, err = answer(capsys, "zoo", "verify", "--metrics")
    assert code == 1
    assert "'top11' is in the zoo, but no metric of the task" in out
    assert "1 of 3 entries have a problem" in err


def test_plugins_check(capsys, monkeypatch):
    from sslrob.testing import plugin

    def broken() -> None:
        raise AssertionError("it left the ball")

    checks = [plugin.Check("attack x: settings", lambda: None), plugin.Check("attack x: contract", broken)]
    monkeypatch.setattr("sslrob.testing.checks", lambda name: checks, raising=False)
    code, out, _ = answer(capsys, "plugins", "check", "sslrob-toy")
    assert (code, out) == (1, "✓ attack x: settings\n✗ attack x: contract\n  it left the ball\n1 of 2 checks failed\n")
    monkeypatch.setattr("sslrob.testing.checks", lambda name: checks[:1], raising=False)
    assert answer(capsys, "plugins", "check", "sslrob-toy")[0] == 0


def test_doctor_says_whether_it_is_usable(capsys):
    code, out, _ = answer(capsys, "doctor")
    assert code == 1  # the broken plugin
    assert "✗ sslrob-mmdet 0.1.0" in out
    del installed().broken["sslrob-mmdet 0.1.0"]
    code, out, _ = answer(capsys, "doctor", "--json")
    assert (code, json.loads(out)["usable"]) == (0, True)


# Evaluations


def test_eval_and_report(capsys, zoo, tmp_path):
    code, out, err = answer(capsys, *EVAL, "--set", "steps=2", "--pictures", "3")
    assert code == 0, err
    assert out.startswith("toys → toy-1 · shades (test, 12 images) · linear, frozen · pgd (2 steps) · linf:8/255\n")
    assert re.search(r"top1 +100\.0 \[75\.8, 100\.0\]  100\.0", out)
    assert "An upper bound on robustness" in out
    assert err.splitlines() == ["0 of 12 images", "12 of 12 images"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(list((folder / "pictures").glob("*.png"))) == 4
    reported = answer(capsys, "report", folder.name[:12])[1]
    assert reported == out


def test_eval_as_json_prints_nothing_else(capsys, zoo):
    code, out, err = answer(capsys, *EVAL, "--attack", "noise", "--epsilon", "64/255", "--json")
    record = json.loads(out)
    assert (code, err) == (0, "")
    assert (record["status"], record["headline"], record["results"]["images"]) == ("finished", "top1", 12)
    assert json.loads(answer(capsys, "report", record["folder"], "--json")[1])["results"] == record["results"]


def test_a_stronger_attack_wins(capsys, zoo):
    record = json.loads(answer(capsys, *EVAL, "--epsilon", "64/255", "--json")[1])
    assert record["results"]["robust"]["top1"]["value"] == 0


def test_dry_run_runs_nothing(capsys, zoo, tmp_path):
    code, out, _ = answer(capsys, *EVAL, "--dry-run", "--seed", "7", "--restarts", "2")
    assert code == 0
    assert out.startswith("toys → toy-1 · ")
    assert '"seed": 7' in out
    told = json.loads(answer(capsys, *EVAL, "--dry-run", "--seed", "7", "--restarts", "2", "--json")[1])
    assert told["spec"]["attack"]["restarts"] == 2
    assert told["folder"] in out
    assert told["missing"] is None
    assert not (tmp_path / "runs").exists()


def test_nothing_is_downloaded_before_the_images_are_there_and_the_choice_is_told(capsys, zoo, tmp_path, monkeypatch):
    file, images = tmp_path / "zoo.yaml", tmp_path / "data"
    weights = 'weights: {url: "https://x.invalid/w.pth", sha256: unknown}, license: CC-BY-NC-4.0'
    file.write_text(file.read_text().replace("family: toys, license: MIT", f"family: toys, {weights}"))
    monkeypatch.setenv("SSLROB_OFFLINE", "1")  # a download fails at once
    code, out, err = answer(capsys, *EVAL)
    assert code == 1
    assert "toys → toy-1 · shades" in out
    assert "no commercial use" in out
    assert "is not in the cache, and downloads are off" in err
    assert not (tmp_path / "runs").exists()
    images.rename(tmp_path / "elsewhere")
    code, out, err = answer(capsys, *EVAL)
    assert (code, out) == (2, "")
    assert f"no folder '{images}'" in err
    file.write_text(file.read_text().replace("path: data", "path: $NO_SUCH_VARIABLE/shades"))
    code, out, err = answer(capsys, *EVAL)
    assert (code, out) == (2, "")
    assert "NO_SUCH_VARIABLE is not set" in err
    code, out, _ = answer(capsys, *EVAL, "--dry-run")
    assert code == 0
    assert "its images are not here: the data lie at" in out
    assert "NO_SUCH_VARIABLE" in json.loads(answer(capsys, *EVAL, "--dry-run", "--json")[1])["missing"]


def test_strict_turns_flags_into_exit_code_4(capsys, zoo, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(file.read_text().replace("top1: 100.0", "top1: 50.0"))
    code, out, err = answer(capsys, *EVAL, "--strict")
    assert code == 4
    assert "clean-metric-off" in out
    assert "the result carries 1 flag: clean-metric-off" in err
    assert answer(capsys, *EVAL)[0] == 0


def test_pictures_can_be_asked_for_later(capsys, zoo, tmp_path):
    """The finished run stays as it is, and its rows are not written twice; the pictures are those that it would have made."""
    answer(capsys, *EVAL, "--pictures", "0")
    (folder,) = (tmp_path / "runs").iterdir()
    rows, results = (folder / "images.jsonl").read_bytes(), json.loads((folder / "run.json").read_text())["results"]
    assert not (folder / "pictures").exists()
    assert answer(capsys, *EVAL, "--pictures", "3")[0] == 0
    assert len(list((folder / "pictures").glob("*.png"))) == 4
    assert (folder / "images.jsonl").read_bytes() == rows
    assert json.loads((folder / "run.json").read_text())["results"] == results
    answer(capsys, *EVAL, "--pictures", "3", "--runs", "others")
    (other,) = (tmp_path / "others").iterdir()
    for path in (folder / "pictures").iterdir():
        assert path.read_bytes() == (other / "pictures" / path.name).read_bytes()


def test_restarts_of_a_deterministic_attack_are_refused(capsys, zoo):
    code, _, err = answer(capsys, *EVAL, "--attack", "fgsm", "--restarts", "3")
    assert code == 2
    assert "attack 'fgsm' draws nothing at random: 3 restarts would find the same again" in err
    code, _, err = answer(capsys, *EVAL, "--set", "random_start=false", "--restarts", "3")
    assert code == 2
    assert "--set random_start=true" in err
    assert answer(capsys, *EVAL, "--attack", "noise", "--restarts", "3", "--dry-run")[0] == 0


def test_limits_extend_a_run(capsys, zoo, tmp_path):
    for limit in ("4", "8"):
        record = json.loads(answer(capsys, *EVAL, "--limit", limit, "--json")[1])
        assert record["results"]["images"] == int(limit)
    assert len(list((tmp_path / "runs").iterdir())) == 1


# Wrong words


WRONG = (
    "eval --backbone toys --task classification --attack pdg",
    "eval --backbone toys --task classification --epsilon 4",
    "eval --backbone tos --task classification",
    "eval --backbone toys --task clasification",
    "eval --backbone toys --task classification --set stpes=3",
    "eval --backbone toys --task classification --device gpu7",
    "eval",
    "eval --bakbone toys",
    "eval --limit ten",
    "eval --limit 0",
    "eval toys",
    "evla",
    "zoo list backbonez",
    "zoo show toyz",
    "zoo verify toyz",
    "report nothing",
    "plugins check sslrob-tay",
    "report --jsn",
)


def test_wrong_words(capsys, zoo, golden):
    told = []
    for words in WRONG:
        code, out, err = answer(capsys, *words.split())
        assert code == 2
        told.append(f"$ sslrob {words}\n{out}{err}")
    golden("errors.txt", "\n".join(told))


def test_every_error_has_one_exit_code(capsys, monkeypatch, zoo):
    from sslrob.errors import BudgetExceeded, RunFailed, SslrobError, Suspect

    for error, expected in ((RunFailed("x"), 1), (SslrobError("x"), 2), (BudgetExceeded("x"), 3), (Suspect("x"), 4)):

        def fail(*_args, error=error, **_more):
            raise error

        monkeypatch.setattr("sslrob.zoo_files.load", fail)
        assert answer(capsys, *EVAL) == (expected, "", "error: x\n")


def test_a_fault_is_told_as_one(capsys, monkeypatch):
    def fail(*_args, **_more):
        raise KeyError("surprise")

    monkeypatch.setattr("sslrob.zoo_files.load", fail)
    code, _, err = answer(capsys, *EVAL)
    assert code == 1
    assert err.startswith("error: KeyError: 'surprise'\nhint:  this is a fault of sslrob or of a plugin")
    assert "test_cli.py" in err.splitlines()[2]
    assert "Traceback" not in err
    for words in ((*EVAL, "--traceback"), ("--traceback", *EVAL)):
        code, _, err = answer(capsys, *words)
        assert code == 1
        assert err.startswith("Traceback")
        assert "error: KeyError: 'surprise'" in err


def test_stopping_says_how_to_go_on(capsys, monkeypatch):
    def stop(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("sslrob.zoo_files.load", stop)
    code, out, err = answer(capsys, *EVAL)
    assert (code, out) == (130, "")
    assert err.strip() == "stopped; the same command goes on where it stopped"


def test_a_reader_that_has_seen_enough():
    command = f"{sys.executable} -c 'from sslrob.cli import main; main()' zoo schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


@pytest.mark.parametrize(
    ("words", "missing"),
    [("zoo show", "NAME"), ("zoo fetch", "NAMES"), ("zoo add", "FILE"), ("study run", "NAME"), ("train", "--backbone")],
)
def test_a_word_that_is_missing_is_named(words, missing, capsys):
    assert cli.run(words.split()) == 2
    assert f"error: {missing} is missing" in capsys.readouterr().err
