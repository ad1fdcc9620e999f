"""`sslrob train`: a head in one command, at once the second time, and there for `sslrob eval`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from sslrob import cli, hookimpl
from sslrob.plugins import installed
from sslrob.references import file_of, split
from sslrob.testing.toy_victims import ToyBackbone
from sslrob.zoo import Backbone, Weights

ZOO = """schema: 1
backbones:
  toy-1: {use: toy, family: toys, default: true, license: MIT}
  toy-2: {use: toy, family: toys, seed: 1, license: MIT}
  other-1: {use: toy, family: others, license: MIT}
  other-2: {use: toy, family: others, license: MIT}
datasets:
  shades: &shades
    {task: classification, format: imagefolder, path: test, classes: [dark, light], threat_model: "linf:8/255", default: true, license: MIT, fit: {path: train}}
  tones: {task: classification, format: imagefolder, path: test, threat_model: "linf:8/255", license: MIT, fit: {path: train}}
recipes:
  slow: {task: classification, kind: linear, protocol: finetuned, schedule: {epochs: 2, learning_rate: 0.01}, batch_size: 4}
"""


class Toy:
    @hookimpl
    def register_backbones(self, register):
        register("toy", ToyBackbone)

    @hookimpl
    def resolve_reference(self, kind, text):
        bare, settings = split(text)
        return Backbone(use="toy", settings=settings, weights=Weights(file=file_of(bare)), license="MIT") if kind == "backbone" else None


@pytest.fixture(autouse=True)
def _machine(tmp_path, monkeypatch):
    """sslrob with one plugin, two splits of dark and light images, and an empty home."""
    monkeypatch.setenv("SSLROB_PLUGINS", "")
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        for name, light in (("dark", 90), ("light", 166)):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(np.full((8, 8, 3), light + i, dtype=np.uint8)).save(tmp_path / part / name / f"{i}.png")
    (tmp_path / "zoo.yaml").write_text(ZOO)
    monkeypatch.setenv("SSLROB_ZOO", str(tmp_path / "zoo.yaml"))
    installed.cache_clear()
    installed().add(Toy(), "sslrob-toy 1.0")
    yield
    installed.cache_clear()


def answer(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sslrob train WORDS`, without colours."""
    return said(capsys, "train", *words)


def said(capsys, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    return code, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (out, err))


def test_a_head_is_made_told_and_attacked_by_the_command_that_is_told(capsys, tmp_path):
    code, out, err = answer(capsys, "--backbone", "toys", "--recipe", "linear", "--device", "cpu")
    assert code == 0, err
    first, second, third = out.splitlines()
    assert first == "toy-1-linear on shades: top1 100.0, top5 100.0"
    assert second == f"it is in {tmp_path / 'home' / 'zoo' / 'toy-1-linear' / 'zoo.yaml'}"
    assert third == "attack it: sslrob eval --backbone toy-1 --task classification --head toy-1-linear --attack pgd"
    command = shlex.split(third.removeprefix("attack it: sslrob "))
    code, out, err = said(capsys, *command, "--device", "cpu", "--pictures", "0", "--json")
    assert code == 0, err
    assert json.loads(out)["results"]["clean"]["top1"]["value"] == 100


def test_the_same_command_again_answers_at_once(capsys, monkeypatch):
    words = ["--backbone", "toy-1", "--recipe", "slow", "--device", "cpu"]
    first = answer(capsys, *words)
    monkeypatch.setattr("sslrob.fitting.fit_head", None)  # calling it would be an error
    assert answer(capsys, *words)[:2] == first[:2]


def test_changed_weights_or_recipes_are_fitted_again(capsys, tmp_path, monkeypatch):
    words = ["--backbone", "toy-1", "--recipe", "slow", "--device", "cpu", "--json"]
    before = json.loads(answer(capsys, *words)[1])["record"]["made_from"]
    (tmp_path / "zoo.yaml").write_text(ZOO.replace("epochs: 2", "epochs: 1"))
    code, out, err = answer(capsys, *words)
    assert code == 0, err
    assert json.loads(out)["record"]["made_from"] != before


def test_progress_goes_to_stderr_and_json_is_all_of_stdout(capsys):
    code, out, err = answer(capsys, "--backbone", "toy-1", "--recipe", "slow", "--device", "cpu")
    assert code == 0
    assert "toy-1-slow: 6 of 6" in err
    code, out, err = answer(capsys, "--backbone", "toy-2", "--recipe", "slow", "--device", "cpu", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["head"] == "toy-2-slow"
    assert told["record"]["protocol"] == "finetuned"
    assert told["evaluation"].startswith("sslrob eval --backbone toy-2 ")


def test_a_folder_of_ones_own_takes_several_heads(capsys, tmp_path):
    for recipe in ("linear", "knn"):
        code, out, err = answer(capsys, "--backbone", "toy-1", "--recipe", recipe, "--device", "cpu", "--out", "my heads")
        assert code == 0, err
        assert out.splitlines()[2].endswith("--attack pgd --zoo 'my heads/zoo.yaml'")
    assert sorted(path.name for path in Path("my heads").glob("[!.]*")) == ["toy-1-linear.safetensors", "zoo.yaml"]
    assert not (tmp_path / "home").exists()
    code, out, err = said(capsys, "zoo", "list", "heads", "--zoo", "my heads/zoo.yaml")
    assert "toy-1-linear" in out
    assert "toy-1-knn" in out
    assert "toy-1-linear" not in said(capsys, "zoo", "list", "heads")[1]


@pytest.mark.parametrize(
    ("words", "head"),
    [
        (["--task", "classification"], "toy-1-linear"),
        (["--task", "classification", "--protocol", "knn"], "toy-1-knn"),
        (["--dataset", "tones"], "toy-1-linear-tones"),
    ],
)
def test_a_task_and_a_protocol_mean_the_usual_recipe(words, head, capsys):
    code, out, err = answer(capsys, "--backbone", "toys", *words, "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["head"] == head


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["--backbone", "toys"], "neither a recipe nor a task is given", "add --recipe NAME"),
        (["--backbone", "toi-1", "--recipe", "linear"], "no backbone is named 'toi-1'", "did you mean 'toy-1'"),
        (["--backbone", "toy-1", "--recipe", "lineer"], "no recipe is named 'lineer'", "did you mean 'linear' or"),
        (["--backbone", "others", "--recipe", "linear"], "2 backbones are of family 'others'", "add --backbone other-1 or other-2"),
        (["--backbone", "toy-1", "--recipe", "linear", "--task", "classification"], "a recipe says for which task", "leave --task"),
        (
            ["--backbone", "toy-1", "--task", "classification", "--protocol", "nearest"],
            "no protocol is named 'nearest'",
            "did you mean 'linear'?",
        ),
        (
            ["--backbone", "toy-1", "--task", "classification", "--protocol", "frozen"],
            "no recipe for task 'classification'",
            "its protocols",
        ),
        (["--backbone", "toy-1", "--recipe", "linear", "--dataset", "shade"], "no dataset is named 'shade'", "did you mean 'shades'"),
    ],
)
def test_what_is_wrong_is_told(words, error, hint, capsys):
    code, out, err = answer(capsys, *words)
    assert (code, out) == (2, "")
    assert error in err
    assert hint in err


def test_a_name_that_is_taken_is_not_taken_over(capsys, tmp_path):
    answer(capsys, "--backbone", "toy-1", "--recipe", "slow", "--device", "cpu", "--out", "mine")
    (tmp_path / "zoo.yaml").write_text(ZOO.replace("epochs: 2", "epochs: 1"))
    code, _, err = answer(capsys, "--backbone", "toy-1", "--recipe", "slow", "--zoo", "mine/zoo.yaml")
    assert code == 2
    assert "head 'toy-1-slow' is already in" in err


def test_nothing_is_downloaded_to_train_before_the_images_are_there(capsys, tmp_path, monkeypatch):
    weights = 'weights: {url: "https://x.invalid/w.pth", sha256: unknown}'
    (tmp_path / "zoo.yaml").write_text(ZOO.replace("default: true, license: MIT}", f"{weights}, default: true, license: MIT}}", 1))
    monkeypatch.setenv("SSLROB_CACHE", str(tmp_path / "cache"))
    words = ["--backbone", "toy-1", "--offline"]
    monkeypatch.setenv("SSLROB_OFFLINE", "1")  # as --offline will
    assert "downloads are off" in answer(capsys, *words, "--recipe", "slow")[2]
    (tmp_path / "train").rename(tmp_path / "gone")
    for command, more in (("train", ["--recipe", "slow"]), ("harden", ["--defense", "linear"])):
        code, _, err = said(capsys, command, *words, *more)
        assert code == 2, err
    assert "no folder" in answer(capsys, *words, "--recipe", "slow")[2]


@pytest.mark.parametrize("trust", [[], ["--trust-code"]])
def test_the_command_that_is_told_trusts_what_this_one_did(capsys, tmp_path, monkeypatch, trust):
    monkeypatch.setenv("SSLROB_TRUST_CODE", "0")
    path = stored(tmp_path / "w.safetensors", 0)
    _, _, err = said(capsys, "eval", "--backbone", f"file:{path}", "--task", "classification", *trust)
    assert f"train one: sslrob train --backbone file:{path}{''.join(f' {word}' for word in trust)} --recipe linear" in err
    _, out, _ = answer(capsys, "--backbone", f"file:{path}", "--recipe", "linear", "--device", "cpu", *trust)
    command = shlex.split(out.strip().splitlines()[-1].removeprefix("attack it: "))
    assert ("--trust-code" in command) == bool(trust)


def test_where_no_head_is_eval_names_the_command_that_trains_one(capsys):
    _, _, err = said(capsys, "eval", "--backbone", "toy-2", "--dataset", "tones")
    assert "hint:  train one: sslrob train --backbone toy-2 --recipe linear --dataset tones" in err


def stored(path: Path, seed: int) -> Path:
    """A file of a toy backbone's weights, by the seed."""
    path.parent.mkdir(exist_ok=True)
    save_file({name: tensor * (1 + seed) for name, tensor in ToyBackbone().state_dict().items()}, path)
    return path


@pytest.mark.parametrize("out", [[], ["--out", "my heads"]], ids=["own", "out"])
def test_the_head_of_a_file_does_not_serve_another_file(capsys, tmp_path, monkeypatch, out):
    words = ["--backbone", "file:w.safetensors", "--recipe", "linear", "--device", "cpu", "--json", *out]
    asked = ["eval", "--task", "classification", "--dry-run", "--json", *(["--zoo", f"{tmp_path}/my heads/zoo.yaml"] if out else [])]
    path = stored(tmp_path / "w.safetensors", 0)
    code, text, err = answer(capsys, *words)
    assert code == 0, err
    first = json.loads(text)["record"]
    assert first["backbone"] == f"file:{path}"
    assert said(capsys, *asked, "--backbone", "file:w.safetensors")[0] == 0

    stored(path, 1)  # another file in its place
    code, _, err = said(capsys, *asked, "--backbone", "file:w.safetensors")
    error, hint = err.splitlines()[:2]
    assert code == 2
    assert error.endswith(f"was trained on another file than '{path}'")
    assert hint.startswith(f"hint:  train it anew: sslrob train --backbone file:{path} --recipe linear")
    assert not out or hint.endswith(f"--out '{tmp_path}/my heads'")
    name = json.loads(text)["head"]
    code, told, err = said(capsys, "zoo", "verify", name, "--device", "cpu", *asked[5:])
    assert code != 0
    assert "was trained on another file" in told + err

    again = json.loads(answer(capsys, *words)[1])["record"]
    assert again["made_from"] != first["made_from"]
    assert said(capsys, *asked, "--backbone", "file:w.safetensors")[0] == 0

    stored(tmp_path / "elsewhere" / path.name, 0)  # another file of that name
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = said(capsys, *asked, "--backbone", "file:w.safetensors")
    assert code == 2
    assert f"no head of backbone 'file:{tmp_path}/elsewhere/w.safetensors'" in err
    assert said(capsys, *asked, "--backbone", "file:../w.safetensors")[0] == 0
