"""Heads that are recorded and not shipped: listed, never chosen, and replaced by the one that a user trains."""

import json

import pytest
import yaml

from sslrob import cli, own, recipes, zoo_files
from sslrob.choice import choose
from sslrob.errors import SslrobError
from sslrob.zoo import Head, Weights

FILE = {
    "schema": 1,
    "backbones": {"net": {"use": "tiny", "license": "MIT"}},
    "datasets": {
        "shades": {"task": "classification", "format": "imagefolder", "path": "data", "threat_model": "linf:1/255", "license": "MIT"}
    },
    "heads": {
        "net-linear": {
            "backbone": "net",
            "dataset": "shades",
            "kind": "linear",
            "protocol": "linear",
            "weights": {"file": "head.safetensors"},
        },
        "net-deep": {
            "backbone": "net",
            "dataset": "shades",
            "kind": "deep",
            "protocol": "finetuned",
            "clean": {"top1": 71.5},
            "recipe": "sslrob train --backbone net --recipe deep",
        },
    },
}


@pytest.fixture
def zoo_file(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text(yaml.safe_dump(FILE))
    return path


def test_a_recorded_head_is_no_choice_until_it_is_trained(zoo_file):
    zoo = zoo_files.load([zoo_file])
    assert "net-deep" not in zoo.heads
    assert zoo.untrained["net-deep"].clean == {"top1": 71.5}
    assert choose("net", "shades", None, zoo).head == "net-linear"


@pytest.mark.parametrize("word", ["net-deep", "deep"])
def test_asked_for_by_name_or_kind_the_error_says_how_to_train_it(zoo_file, word):
    with pytest.raises(SslrobError, match="'net-deep' is recorded, but not trained on this machine") as caught:
        choose("net", "shades", word, zoo_files.load([zoo_file]))
    assert caught.value.hint == "sslrob train --backbone net --recipe deep"


def test_a_kind_that_nobody_trained_is_trained_by_a_recipe(tmp_path):
    path = tmp_path / "zoo.yaml"
    shades = {**FILE["datasets"]["shades"], "fit": {"path": "data"}}
    recipe = {"task": "classification", "kind": "wide", "protocol": "frozen"}
    path.write_text(yaml.safe_dump({**FILE, "datasets": {"shades": shades}, "recipes": {"broad": recipe}}))
    for word, hint in (
        ("wide", "train one: sslrob train --backbone net --recipe broad --dataset shades"),
        ("net-dep", "did you mean 'net-deep' or"),
    ):
        with pytest.raises(SslrobError, match=f"no head of 'net' on 'shades' is named '{word}'") as caught:
            choose("net", "shades", word, zoo_files.load([path]))
        assert caught.value.hint.startswith(hint)


def test_the_one_that_a_user_trains_takes_its_place(zoo_file, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "home"))
    weights = own.folder("net-deep") / "net-deep.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    mine = Head(backbone="net", dataset="shades", kind="deep", protocol="finetuned", weights=Weights(file=weights), clean={"top1": 70.9})
    own.write("net-deep", {"heads": {"net-deep": mine}})
    zoo = zoo_files.load([zoo_file])
    assert zoo.get("head", "net-deep").clean == zoo.recorded("head")["net-deep"].clean == {"top1": 70.9}
    assert choose("net", "shades", "deep", zoo).head == "net-deep"
    assert zoo.origin("head", "net-deep") == own.folder("net-deep") / own.FILE


def test_two_records_of_one_name_are_a_clash(zoo_file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"schema": 1, "heads": {"net-deep": FILE["heads"]["net-deep"]}}))
    with pytest.raises(SslrobError, match="head 'net-deep' is already in"):
        zoo_files.load([zoo_file, other])


def test_a_record_of_an_unknown_backbone_is_an_error(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text(yaml.safe_dump({**FILE, "heads": {"h": {**FILE["heads"]["net-deep"], "backbone": "nett"}}}))
    with pytest.raises(SslrobError, match="no backbone is named 'nett'") as caught:
        zoo_files.load([path])
    assert caught.value.hint == "did you mean 'net'?"


def test_the_list_says_what_is_not_here(zoo_file, capsys):
    def run_cli(*words: str) -> str:
        assert cli.run(list(words)) == 0
        return capsys.readouterr().out

    told = run_cli("zoo", "list", "heads", "--zoo", str(zoo_file))
    row = next(line for line in told.splitlines() if line.startswith("net-deep"))
    assert "finetuned, not here" in row
    assert "top1 71.5" in row
    assert "zoo show HEAD" in told
    assert "sslrob train --backbone net --recipe deep" in run_cli("zoo", "show", "net-deep", "--zoo", str(zoo_file))
    shown = json.loads(run_cli("zoo", "list", "heads", "--json", "--zoo", str(zoo_file)))
    assert shown["heads"]["net-deep"]["weights"] is None


def test_made_does_not_count_a_record(zoo_file):
    zoo = zoo_files.load([zoo_file])
    planned = recipes.Plan("net-deep", zoo.untrained["net-deep"], "deep", None, True)
    assert recipes.made(planned, zoo) is None
    recipes.require_free(planned, zoo, own.folder("net-deep") / own.FILE)
