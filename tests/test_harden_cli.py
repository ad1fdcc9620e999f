"""`sslrob harden` as its users meet it, on a toy backbone with a toy defense."""

import copy
import json
import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field

from sslrob import Attack, Defense, cli, hardening, hookimpl, own, zoo_files
from sslrob.defense import Training
from sslrob.fitting import fit_head
from sslrob.plugins import installed


@dataclass(frozen=True)
class Drift(Defense):
    """Add a little to the weights, more of it the brighter the adversarial images."""

    steps: Annotated[int, Field(ge=1, description="batches")] = 3
    batch_size: Annotated[int, Field(ge=1, description="images")] = 4
    rate: Annotated[float, Field(gt=0, description="how much")] = 0.1

    def begin(self, backbone, attack, threat_model):
        return Drifting(self, backbone, attack, threat_model)


class Drifting(Training):
    def __init__(self, settings, natural, attack, threat_model):
        self.settings, self.attack, self.threat_model, self.backbone = settings, attack, threat_model, copy.deepcopy(natural)

    def step(self, batch, streams, progress):
        moved = self.threat_model.random_start(batch.images, streams)
        with torch.no_grad():
            self.backbone.mix.weight += self.settings.rate * moved.mean()
        return {"loss": float(moved.mean())}

    def state(self):
        return {"backbone": self.backbone.state_dict()}

    def restore(self, state):
        self.backbone.load_state_dict(state["backbone"])


@dataclass(frozen=True)
class Universal(Attack):
    """Learns from images first."""

    def fit(self, batches, threat_model, *, streams):
        return self

    def perturb(self, objective, images, threat_model, *, streams):
        return images


class Toy:
    @hookimpl
    def register_backbones(self, register):
        register("toy", "sslrob.testing.toy_victims:ToyBackbone")

    @hookimpl
    def register_defenses(self, register):
        register("drift", Drift)

    @hookimpl
    def register_attacks(self, register):
        register("universal", Universal)


@pytest.fixture(autouse=True)
def zoo(monkeypatch, tmp_path):
    """sslrob's own components and the toy; a natural backbone, and images of two shades of which half are the fit split."""
    for name, value in {"SSLROB_PLUGINS": "", "SSLROB_HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "config")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSLROB_ZOO", str(tmp_path / "mine.yaml"))
    monkeypatch.delenv("SSLROB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    installed.cache_clear()
    installed().add(Toy(), "sslrob-toy 1.0")
    for split, more in (("test", 0), ("fit", 3)):
        for name, light in (("dark", 90), ("light", 166)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(np.full((8, 8, 3), light + 4 * i + more, dtype=np.uint8)).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "mine.yaml").write_text(
        """schema: 1
backbones:
  toy-1: {use: toy, family: toys, license: MIT}
  toy-2: {use: toy, family: twins, license: MIT}
  toy-3: {use: toy, family: twins, license: MIT}
datasets:
  shades:
    {task: classification, format: imagefolder, path: test, images: 12, classes: [dark, light], threat_model: "linf:8/255", default: true,
     fit: {path: fit, images: 12}, license: MIT}
  bare: {task: classification, format: imagefolder, path: test, classes: [dark, light], threat_model: "linf:8/255", license: MIT}
defenses:
  drift-more: {use: drift, attack: fgsm, threat_model: "linf:4/255", settings: {rate: 0.2}}
"""
    )
    yield tmp_path
    installed.cache_clear()


HARDEN = ["harden", "--backbone", "toys", "--defense", "drift-more", "--device", "cpu"]


def answer(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sslrob WORDS`, without colours."""
    capsys.readouterr()
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    return code, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (out, err))


def test_help(capsys, golden, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    golden("help_harden.txt", answer(capsys, "harden", "--help")[1])


def test_a_dry_run_says_what_would_be_done(capsys, zoo):
    code, out, _ = answer(capsys, *HARDEN, "--dry-run", "--set", "steps=5")
    assert code == 0
    first = out.splitlines()[0]
    assert first == "toy-1 → toy-1-drift-more · drift-more (5 steps of 4 images) · against fgsm · linf:4/255 · shades (its fit split)"
    assert f"it would be in {zoo}/home/zoo/toy-1-drift-more" in out
    assert not (zoo / "home").exists()


def test_words_change_the_plan(capsys):
    words = ["--attack", "pgd", "--epsilon", "1/255", "--seed", "3", "--name", "mine", "--dry-run", "--json"]
    told = json.loads(answer(capsys, *HARDEN, *words)[1])
    made = told["hardening"]
    assert (told["backbone"], made["attack"], made["threat_model"], made["seed"]) == ("mine", "pgd", "linf:1/255", 3)
    assert made["attack_settings"]["steps"] == 20
    assert made["recipe"] == "sslrob harden --backbone toy-1 --defense drift-more --attack pgd --epsilon 1/255 --seed 3 --name mine"


def test_what_changes_the_weights_changes_what_it_is_made_from(capsys):
    def made_from(*words):
        return json.loads(answer(capsys, *HARDEN, *words, "--dry-run", "--json")[1])["hardening"]["made_from"]

    assert made_from() == made_from("--name", "other") == made_from("--epsilon", "4/255")
    others = [made_from(*words) for words in (["--epsilon", "3/255"], ["--seed", "1"], ["--set", "rate=0.3"], ["--attack", "pgd"])]
    assert len({made_from(), *others}) == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--backbone", "toyz"], "no backbone is named 'toyz'"),
        (["--backbone", "twins"], "2 backbones are of family 'twins'"),
        (["--defense", "drfit"], "no defense is named 'drfit'"),
        (["--attack", "pdg"], "no attack is named 'pdg'"),
        (["--attack", "universal"], "learns from images first"),
        (["--attack", "hop-skip-jump"], "is for objective task alone"),
        (["--attack", "corruption"], "keeps to no epsilon"),
        (["--dataset", "bare"], "'bare' has no fit split"),
        (["--epsilon", "4"], "epsilon 4 is not on the [0, 1] scale"),
        (["--set", "rats=1"], "defense 'drift-more' has no setting 'rats'"),
        (["--set", "rate=-1"], "setting 'rate' of defense 'drift-more'"),
        (["--name", "toy-2"], "'toy-2' is already in"),
        (["--name", "twins"], "'twins' is a family"),
        (["--name", "My Own"], "'My Own' is no name"),
        (["--set", "batch_size=13"], "12 images are fewer than a batch of 13"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value[1:]),
)
def test_mistakes_are_told(capsys, words, says):
    code, _, err = answer(capsys, *HARDEN, "--no-heads", *words)
    assert (code, says in err, "hint:" in err) == (2, True, True), err


def test_a_hardened_backbone_is_compared_and_joins_the_zoo(capsys, zoo, monkeypatch):
    for recipe in ("linear", "knn"):
        name, head = fit_head(zoo_files.load(), "toy-1", recipe, out=own.folder("natural"))
        own.add(own.folder("natural") / own.FILE, {"heads": {name: head}})
    code, out, err = answer(capsys, *HARDEN)
    assert code == 0, err
    table = out.splitlines()
    assert table[0].startswith("toy-1 → toy-1-drift-more")
    assert sum("defense success" in line for line in table) == 2
    assert "linear, top1" in out
    assert "knn, top1" in out
    monkeypatch.setattr(hardening, "make", None)
    monkeypatch.setattr(hardening, "fit_head", None)
    assert answer(capsys, *HARDEN) == (0, out, answer(capsys, *HARDEN)[2])
    told = json.loads(answer(capsys, *HARDEN, "--json")[1])
    assert told["heads"] == ["toy-1-drift-more-knn", "toy-1-drift-more-linear"]
    assert [pair["head"] for pair in told["comparison"]] == ["linear", "knn"]
    assert told["record"]["hardening"]["backbone"] == "toy-1"
    lines = (zoo / "home/zoo/toy-1-drift-more/toy-1-drift-more.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    found = ["eval", "--backbone", "toy-1-drift-more", "--task", "classification", "--head", "linear", "--attack", "fgsm", "--json"]
    assert json.loads(answer(capsys, *found)[1])["results"]["images"] == 12


def test_out_keeps_it_beside_its_own_zoo_file(capsys, zoo):
    assert answer(capsys, *HARDEN, "--no-heads", "--out", "here")[0] == 0
    assert sorted(path.name for path in (zoo / "here").iterdir() if not path.name.startswith(".")) == [
        "toy-1-drift-more.log.jsonl",
        "toy-1-drift-more.safetensors",
        "zoo.yaml",
    ]
    assert not (zoo / "home").exists()
    shown = answer(capsys, "zoo", "show", "toy-1-drift-more", "--zoo", "here/zoo.yaml")
    assert "file: toy-1-drift-more.safetensors" in (zoo / "here/zoo.yaml").read_text()
    assert "defense: drift-more" in shown[1]


def test_another_hardening_of_that_name_is_refused(capsys):
    assert answer(capsys, *HARDEN, "--no-heads")[0] == 0
    code, _, err = answer(capsys, *HARDEN, "--no-heads", "--seed", "1")
    assert (code, "made otherwise" in err, "--name NAME" in err) == (2, True, True)
