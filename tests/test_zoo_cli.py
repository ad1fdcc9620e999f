"""`sslrob zoo list`, `show`, `verify` and `add`: what they tell of a collection, how wide, and of what is not here."""

from __future__ import annotations

import json

import pytest

from sslrob.cli.zoo_rows import listed
from sslrob.cli.zoo_show import told_of
from sslrob.errors import SslrobError
from sslrob.plugins import installed
from sslrob.zoo import Backbone, Dataset, Head, Recipe, Study, Zoo

MADE = {"method": "Barlow Twins", "data": "pool", "epochs": 12.75, "batch_size": 1024, "seed": 0}


def head(backbone: str, dataset: str, kind: str, protocol: str, top1: float | None = None, **more) -> Head:
    clean = {} if top1 is None else {"top1": top1}
    return Head(backbone=backbone, dataset=dataset, kind=kind, protocol=protocol, clean=clean, **more)


@pytest.fixture
def zoo(tmp_path):
    """One backbone with everything, one hardened from it, one with another architecture, one random."""
    weights = tmp_path / "bt.safetensors"
    weights.write_bytes(bytes(1_380_000))
    log = tmp_path / "bt.log.jsonl"
    log.write_text('{"settings": 1}\n{"step": 3000, "loss": 2.5, "knn": 0.71}\n')

    def backbone(**more) -> Backbone:
        return Backbone(**{"use": "mini-resnet", "license": "Apache-2.0", **more})

    def dataset(task: str, **more) -> Dataset:
        return Dataset(task=task, format="f", path=tmp_path, threat_model="linf:1/255", license="MIT", **more)

    hardening = {
        "backbone": "mini-barlow-twins",
        "defense": "mi-at",
        "attack": "pgd",
        "threat_model": "linf:1/255",
        "dataset": "crops",
    }
    heads = {
        "bt-linear": head("mini-barlow-twins", "crops", "linear", "linear", 61.25),
        "bt-finetuned": head("mini-barlow-twins", "crops", "linear", "finetuned", 88.0, default=True),
        "bt-knn": head("mini-barlow-twins", "crops", "knn", "knn", 58.0),
        "bt-linear-letters": head("mini-barlow-twins", "letters", "linear", "linear", 40.0, default=True),
        "bt-fcos": head("mini-barlow-twins", "scenes", "fcos", "frozen"),
        "bt-faster-rcnn": head("mini-barlow-twins", "scenes", "faster-rcnn", "frozen"),
        "hard-linear": head("mini-barlow-twins-mi-at", "crops", "linear", "linear", 55.5),
    }
    return Zoo(
        backbones={
            "mini-barlow-twins": backbone(weights={"file": weights}, pretraining={**MADE, "log": log}, family="barlow-twins"),
            "mini-barlow-twins-mi-at": backbone(hardening=hardening, weights={"url": "http://x/y.safetensors", "sha256": "0" * 64}),
            "mini-barlow-twins-wide": backbone(settings={"widths": [48, 96, 192, 384], "bias": True}),
            "mini-random": backbone(seed=3),
        },
        datasets={
            "crops": dataset("classification", default=True),
            "letters": dataset("classification"),
            "scenes": dataset("sslrob-mmdet/detection", default=True),
        },
        heads=heads,
        recipes={
            "fcos": Recipe(task="detection", kind="fcos", protocol="frozen", default=True, schedule={"epochs": 2, "learning_rate": 0.002})
        },
        studies={
            "mini": Study(
                backbones=["mini-barlow-twins", "mini-random"],
                attacks=["pgd", "fgsm"],
                datasets={"crops": {"recipes": [], "epsilons": ["linf:1/255"]}},
                description="who stands",
            )
        },
    )


def rows(text: str) -> dict[str, str]:
    """Lines by their first word, without colours."""
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in text.splitlines()]
    return {line.split()[0]: " ".join(line.split()) for line in lines if line.strip() and not line.startswith(" ")}


def test_backbones_are_told_in_full(zoo):
    told = rows(listed("backbone", zoo.backbones, zoo))
    assert told["backbone"] == "backbone method network epochs batch k-NN linear size heads"
    assert told["mini-barlow-twins"] == (
        "mini-barlow-twins Barlow Twins mini-resnet 12.8 1,024 58.0 61.2 1.4 MB linear* knn fcos faster-rcnn; letters: linear"
    )
    assert told["mini-barlow-twins-mi-at"].startswith("mini-barlow-twins-mi-at Barlow Twins + mi-at mini-resnet 12.8 1,024 55.5 remote")
    assert told["mini-barlow-twins-wide"] == "mini-barlow-twins-wide mini-resnet 48-96-192-384 bias=True"
    assert told["mini-random"] == "mini-random mini-resnet"
    assert told["license:"] == "license: Apache-2.0"
    assert told["heads:"] == "heads: * on the finetuned backbone too"
    assert told["hardened:"] == "hardened: mini-barlow-twins-mi-at from mini-barlow-twins"
    assert told["families"].endswith("barlow-twins = mini-barlow-twins")


def test_licenses_that_differ_have_a_column(zoo):
    other = zoo.backbones["mini-random"].model_copy(update={"license": "MIT"})
    told = rows(listed("backbone", zoo.backbones | {"mini-random": other}, zoo))
    assert told["mini-random"] == "mini-random mini-resnet MIT"
    assert "license:" not in told


def test_the_table_fits_a_terminal_of_140_columns(zoo, monkeypatch):
    """Heads wrap below themselves; notes that a terminal would break anywhere are not part of the table."""
    monkeypatch.setenv("COLUMNS", "140")
    wide = zoo.backbones | {
        "mini-swav-wide": zoo.backbones["mini-barlow-twins-wide"].model_copy(update={"settings": {"widths": [48, 96, 192, 384]}})
    }
    wide.pop("mini-barlow-twins-wide")
    text = listed("backbone", wide, zoo)
    assert max(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in text.splitlines()) <= 140
    assert "letters: linear" in " ".join(text.split())


def test_recipes_and_studies_are_listed(zoo):
    assert rows(listed("recipe", zoo.recipes, zoo))["fcos"] == "fcos detection fcos frozen (default) epochs=2 learning_rate=0.002"
    assert rows(listed("study", zoo.studies, zoo))["mini"] == "mini 2 crops pgd, fgsm who stands"
    assert listed("study", {}, zoo) == "no studies"


def test_everything_is_told_but_what_is_empty(zoo):
    told = told_of(zoo.backbones["mini-barlow-twins"])
    assert told["pretraining"]["seed"] == 0
    assert told["default"] is False
    assert "seed" not in told  # of random weights, and these are not
    assert "paper" not in told
    assert told_of(zoo.backbones["mini-random"])["seed"] == 3


@pytest.fixture
def no_plugins(monkeypatch):
    """Without plugins of other distributions, and none of it remembered afterwards."""
    monkeypatch.setenv("SSLROB_PLUGINS", "")
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.mark.usefixtures("no_plugins")
def test_show_ends_with_the_log_of_the_pretraining(tmp_path, monkeypatch, capsys):
    from sslrob import cli

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"step": 1}\n{"step": 2, "knn": 0.5}\n')
    made = "{method: m, data: d, log: LOG}"
    entries = "\n".join(f"  b{log}: {{use: toy, license: MIT, pretraining: {made.replace('LOG', f'{log}.jsonl')}}}" for log in "abc")
    (tmp_path / "c.jsonl").write_text("no json\n")
    file = tmp_path / "zoo.yaml"
    file.write_text(f"schema: 1\nbackbones:\n{entries}\nrecipes:\n  fast: {{task: classification, kind: linear, protocol: linear}}\n")
    assert cli.run(["zoo", "show", "ba", "--zoo", str(file)]) == 0
    assert "last_logged:\n    step: 2\n    knn: 0.5\n" in capsys.readouterr().out
    for other in ("bb", "bc", "fast"):
        assert cli.run(["zoo", "show", other, "--zoo", str(file)]) == 0
        assert "last_logged" not in capsys.readouterr().out
    assert cli.run(["zoo", "list", "recipes", "studies", "--zoo", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"]["fast"]["batch_size"] == 16


# The published checkpoints, and a collection of one's own beside them


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run `sslrob WORDS` with the toy plugin and sslrob's own zoo; exit code, stdout and stderr."""
    from sslrob import cli, hookimpl

    class Toy:
        @hookimpl
        def register_backbones(self, register):
            register("toy", "sslrob.testing.toy_victims:ToyBackbone")

    for name in ("SSLROB_DATA", "SSLROB_ZOO", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "SSLROB_HOME", "SSLROB_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("SSLROB_PLUGINS", "")
    monkeypatch.setenv("SSLROB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    installed.cache_clear()
    installed().add(Toy(), "sslrob-toy 1.0")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(words))
        out, err = capsys.readouterr()
        return code, out.replace("\x1b[1m", "").replace("\x1b[0m", ""), err

    yield run
    installed.cache_clear()


def names(text: str) -> set[str]:
    """What stands in the first column of a table, without its header and notes."""
    return {line.split()[0] for line in text.splitlines()[1:] if line.strip() and ":" not in line.split()[0] and not line.startswith(" ")}


def test_the_list_of_everything_has_a_line_for_a_family(said):
    code, out, _ = said("zoo", "list")
    told = rows(out)
    assert code == 0
    assert told["swav"].startswith("swav 13 swav-r50-ep800 100–800 67.2–78.5 Apache-2.0, CC-BY-NC-4.0 (nc), MIT RN50 RN50w2")
    assert "RN50_clip ViT-B/32" in told["clip"]
    assert "swav-r50-ep400" not in out
    assert "imagenet" in told
    assert max(map(len, out.splitlines())) <= 200


def test_backbones_are_listed_in_full_where_they_are_asked_for(said):
    told = rows(said("zoo", "list", "backbones")[1])
    assert told["swav-r50w2-ep400"] == "swav-r50w2-ep400 SwAV resnet 50 width=2 400 77.3 CC-BY-NC-4.0 (nc) remote"
    assert told["dino-vits16"] == "dino-vits16 DINO timm vit_small_patch16_224.dino 77.0 Apache-2.0 remote imagenet: linear"
    assert "license: (nc) not for commercial use" in told["license:"]


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        ("--family swav", "swav-r50-ep800 swav-r50-mm-ep200-bs256", "dino-r50"),
        ("--factor batch-size", "byol-r50-ep300-bs64 swav-r50-ep400-bs256 simsiam-r50-ep100", "dino-r50 swav-r50-ep800"),
        ("--family byol --factor augmentation", "byol-r50-ep300 byol-r50-ep300-crop-only", "swav-r50-ep400 byol-r50-ep300-bs64"),
        ("--license MIT --family swav", "swav-r50-lightly-ep100 swav-r50-vissl-ep800", "swav-r50-ep800"),
        ("--license noncommercial --family moco-v3", "moco-v3-r50-ep1000", "moco-v3-r50-mm-ep100"),
        ("--license commercial --family moco-v3", "moco-v3-r50-mm-ep100", "moco-v3-r50-ep1000"),
        ("heads --license cc-by-nc-4.0 --family dino", "", "dino-r50-imagenet"),
        ("heads --factor core", "dino-r50-imagenet vicreg-r50-ep1000-linear-imagenet", "dino-vits8-imagenet"),
        ("--task classification --family vicreg", "vicreg-r50-lightly-ep100", "vicreg-r50-ep1000"),
        ("--family vicreg --family SwAV --license MIT", "vicreg-r50-ep1000 swav-r50-lightly-ep100", "swav-r50-ep800 dino-r50"),
    ],
)
def test_filters(said, words, there, not_there):
    code, out, _ = said("zoo", "list", *words.split())
    assert code == 0
    assert set(there.split()) <= names(out)
    assert not set(not_there.split()) & names(out)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--factor durration", "no factor is named 'durration'", "did you mean 'duration'"),
        ("--family swaw", "no family is named 'swaw'", "did you mean 'swav'"),
        ("--license GPL-3.0", "no license is named 'GPL-3.0'", ""),
        ("--task classify", "no task is named 'classify'", "did you mean 'classification'"),
        ("--family swav --family swaw", "no family is named 'swaw'", "did you mean 'swav'"),
        ("datasets --family swav", "datasets have no family", "leave out --family"),
    ],
)
def test_wrong_filters(said, words, message, hint):
    code, out, err = said("zoo", "list", *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert hint in err


def test_what_a_family_means_does_not_depend_on_the_filter(said, tmp_path):
    mini = "schema: 1\nbackbones: {mini-swav: {use: toy, license: MIT, family: swav}}\n"
    data = "datasets: {crops: {task: classification, format: imagefolder, path: d, threat_model: linf:1/255, license: MIT}}\n"
    (tmp_path / "mini.yaml").write_text(mini + data)

    def meant(*words: str) -> str:
        lines = said("zoo", "list", "--zoo", "mini.yaml", *words)[1].splitlines()
        return next((line for line in lines if line.startswith("families mean:")), "")

    assert meant("--family", "swav") == "families mean: swav = swav-r50-ep800; on the data sets of own: swav = mini-swav"
    assert meant("--family", "swav", "--license", "Apache-2.0") == ""  # neither is among these


def test_a_reference_is_no_entry(said):
    code, _, err = said("zoo", "show", "timm:resnet50")
    assert code == 2
    assert "'timm:resnet50' is a reference, not an entry of the zoo" in err
    assert "--backbone timm:resnet50 of sslrob train" in err
    assert "see: sslrob zoo list" in said("zoo", "show", "qqqqqq")[2]


def test_filtered_lists_as_json(said):
    found = json.loads(said("zoo", "list", "--factor", "method", "--json")[1])
    assert set(found) == {"backbones"}
    assert set(found["backbones"]) >= {"vicreg-r50-lightly-ep100"}
    assert found["backbones"]["dino-r50-lightly-ep100"]["reported"]["knn"] == 49.9


def test_show_tells_of_a_family_all_that_one_needs(said):
    code, out, _ = said("zoo", "show", "swav")
    told = " ".join(out.split())
    assert code == 0
    for part in (
        "backbone swav-r50-ep800, in ",
        "method: SwAV data: ImageNet-1k epochs: 800 batch_size: 4096",
        "reported: top1: 75.3",
        "swav-r50-ep800-imagenet swav-r50-ep800 imagenet linear linear top1 75.3",
        "weights not here, size not published; sslrob zoo fetch swav-r50-ep800; no sha256 is published",
        "pixels RGB in [0, 1], which the backbone normalises itself: mean 0.485 0.456 0.406, std 0.228 0.224 0.225",
        "use sslrob eval --backbone swav-r50-ep800 --dataset imagenet --attack pgd",
        "you may no commercial use; use, change and pass on",
        "paper https://arxiv.org/abs/2006.09882",
        "swav means swav-r50-ep800; its other members:",
        "swav-r50w5-ep400 SwAV resnet 50 width=5",
    ):
        assert part in told
    assert "pixels RGB in [0, 1], as they are" in " ".join(said("zoo", "show", "simclr")[1].split())
    entries = json.loads(said("zoo", "show", "swav", "--json")[1])
    assert entries[0]["name"] == "swav-r50-ep800"
    assert len(entries) == 13


def test_show_tells_which_member_a_collection_means(said, tmp_path):
    mini = "schema: 1\nbackbones: {mini-swav: {use: toy, license: MIT, family: swav}}\n"
    data = "datasets: {crops: {task: classification, format: imagefolder, path: d, threat_model: linf:1/255, license: MIT}}\n"
    (tmp_path / "mini.yaml").write_text(mini + data)
    out = said("zoo", "show", "swav", "--zoo", "mini.yaml")[1]
    assert "swav means swav-r50-ep800, but mini-swav on the data sets of own; its other members:" in out


def test_verify_passes_over_what_was_not_downloaded(said, tmp_path):
    (tmp_path / "mine.yaml").write_text("schema: 1\nbackbones: {mine: {use: toy, license: MIT, family: swav}}\n")
    code, out, err = said("zoo", "verify", "--zoo", "mine.yaml")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [["✓", "backbone", "mine"]]
    assert "entries are not here: sslrob zoo fetch NAME" in err
    assert said("zoo", "verify", "swav", "--zoo", "mine.yaml")[1].split()[:3] == ["✓", "backbone", "mine"]
    code, out, _ = said("zoo", "verify", "swav-r50-ep800")
    assert code == 1
    assert out.startswith("✗ backbone  swav-r50-ep800")
    code, out, _ = said("zoo", "verify", "imagenet")
    assert code == 1
    assert "SSLROB_DATA is not set" in out
    assert "export SSLROB_DATA=FOLDER, the folder that holds imagenet/val" in out


def test_a_head_without_its_data_is_held_against_its_backbone(said, tmp_path):
    import torch
    from safetensors.torch import save_file

    text = "schema: 1\nbackbones: {mine: {use: toy, license: MIT}}\nheads:\n"
    for width in (3, 4):
        save_file({"head.weight": torch.zeros(1000, width), "head.bias": torch.zeros(1000)}, tmp_path / f"{width}.safetensors")
        text += (
            f"  of-{width}: {{backbone: mine, dataset: imagenet, kind: linear, protocol: linear, weights: {{file: {width}.safetensors}}}}\n"
        )
    (tmp_path / "mine.yaml").write_text(text)
    code, out, _ = said("zoo", "verify", "mine", "--zoo", "mine.yaml", "--metrics")
    assert code == 1
    assert "✓ head      of-3  fits mine, 1,000 classes; imagenet is not here to measure on" in out
    assert "✗ head      of-4" in out
    assert "1 of another shape: head.weight (1000, 4) for (1000, 3)" in out


def test_a_folder_with_some_classes_of_imagenet_keeps_their_labels(tmp_path, monkeypatch):
    import numpy as np
    from PIL import Image

    from sslrob import assemble, zoo_files
    from sslrob.plugins import Plugins

    for name in ("n01443537", "n15075141"):
        (folder := tmp_path / "imagenet" / "val" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((300, 260, 3), dtype=np.uint8)).save(folder / "a.JPEG")
    monkeypatch.setenv("SSLROB_DATA", str(tmp_path))
    data = assemble.dataset(zoo_files.load([], Plugins()).datasets["imagenet"], assemble.task("classification"))
    assert [data[i].target for i in range(2)] == [1, 999]
    assert len(data.classes) == 1000
    assert data[0].image.shape == (3, 224, 224)
    (tmp_path / "imagenet" / "val" / "tench").mkdir()
    Image.fromarray(np.zeros((300, 260, 3), dtype=np.uint8)).save(tmp_path / "imagenet" / "val" / "tench" / "a.JPEG")
    with pytest.raises(SslrobError, match=r"folder 'tench' of .* is none of the 1000 classes"):
        assemble.dataset(zoo_files.load([], Plugins()).datasets["imagenet"], assemble.task("classification"))


def test_a_checkpoint_joins_the_zoo_once(said, tmp_path):
    import torch

    torch.save({"mix.weight": torch.eye(3)[:, :, None, None], "mean": torch.full((3, 1, 1), 0.5)}, tmp_path / "net.pth")
    (tmp_path / "mine.yaml").write_text("schema: 1\nbackbones: {toy-1: {use: toy, license: MIT}}\n")
    words = ("zoo", "add", "net.pth", "--zoo", "mine.yaml", "--method", "My Method")
    code, out, err = said(*words, "--arch", "toy-1", "--license", "CC-BY-NC-4.0", "--data", "ImageNet-1k")
    assert (code, err) == (0, "")
    assert out.startswith("my-method-toy-1: toy\nas toy-1\n")
    (entry,) = json.loads(said("zoo", "show", "my-method-toy-1", "--json")[1])
    assert entry["weights"]["file"] == str(tmp_path / "net.pth")
    assert len(entry["weights"]["sha256"]) == 64
    assert (entry["pretraining"]["method"], entry["license"]) == ("My Method", "CC-BY-NC-4.0")
    assert said("zoo", "verify", "my-method-toy-1")[0] == 0
    code, _, err = said(*words, "--arch", "toy-1", "--name", "another")
    assert code == 2
    assert "the zoo has this file already, as backbone 'my-method-toy-1'" in err
    assert "is already in" in said(*words, "--arch", "toy-1", "--name", "toy-1")[2]
    assert "'swav' is a family" in said(*words, "--arch", "toy-1", "--name", "swav")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("absent.pth --method m", "no weights at"),
        ("net.pth --method m", "nothing recognises"),
        ("net.pth --method m --arch resnet50", "nothing recognises how"),
        ("net.pth --method m --arch resnet50 --layout swav", "no backbone is named 'resnet'"),
        ("net.pth --method m --arch toy-1", "do not fit"),
        ("net.pth --method m --arch toy-1", "or save it anew without what is unexpected"),
        ("net.pth --method m --arch toy-1 --mean 0.5,0.5", "neither one number nor three"),
        ("net.pth --method m --arch toy-1 --name Big", "is no name for a backbone"),
    ],
)
def test_a_checkpoint_that_cannot_join(said, tmp_path, words, message):
    import torch

    torch.save({"mix.weight": torch.zeros(5, 3, 1, 1)}, tmp_path / "net.pth")
    (tmp_path / "mine.yaml").write_text("schema: 1\nbackbones: {toy-1: {use: toy, license: MIT}}\n")
    code, out, err = said("zoo", "add", *words.split(), "--zoo", "mine.yaml")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "sslrob_home").exists() or not list((tmp_path / "sslrob_home").rglob("zoo.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "it is empty"), (b"<html>log in", "it is a web page"), (b"hello there", "it is a text, which begins 'hello there'")],
)
def test_what_is_no_checkpoint_at_all_cannot_join(said, tmp_path, content, message):
    (tmp_path / "net.pth").write_bytes(content)
    err = said("zoo", "add", "net.pth", "--method", "m")[2]
    assert f"net.pth' is no checkpoint: {message}" in err
    assert "--layout" not in err
    assert "is a folder" in said("zoo", "add", ".", "--method", "m")[2]


def test_a_home_that_is_read_only(said, tmp_path):
    import torch

    torch.save({"mix.weight": torch.eye(3)[:, :, None, None], "mean": torch.full((3, 1, 1), 0.5)}, tmp_path / "net.pth")
    (tmp_path / "mine.yaml").write_text("schema: 1\nbackbones: {toy-1: {use: toy, license: MIT}}\n")
    (tmp_path / "sslrob_home").write_text("a file where the folder should be")
    code, _, err = said("zoo", "add", "net.pth", "--zoo", "mine.yaml", "--method", "m", "--arch", "toy-1")
    assert code == 1
    assert "set SSLROB_HOME to another folder" in err


def test_whoever_uses_a_noncommercial_licence_is_told_and_the_run_records_it(said, tmp_path):
    import numpy as np
    from PIL import Image

    for name, light in (("dark", 90), ("light", 166)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8, 3), light + i, dtype=np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    data = "task: classification, format: imagefolder, path: data, threat_model: linf:8/255, license: MIT, default: true"
    file = tmp_path / "mine.yaml"
    file.write_text(
        "schema: 1\nbackbones: {mine: {use: toy, license: CC-BY-NC-4.0}}\n"
        f"datasets: {{shades: {{{data}, fit: {{path: data, settings: {{crop: 4}}}}}}}}\n"
    )
    warning = "mine is under Creative Commons Attribution-NonCommercial 4.0: no commercial use\n"
    code, out, err = said("train", "--backbone", "mine", "--recipe", "linear", "--device", "cpu", "--zoo", "mine.yaml")
    assert code == 0, err
    assert out.startswith(warning)
    words = ("eval", "--backbone", "mine", "--task", "classification", "--attack", "fgsm", "--device", "cpu", "--zoo", "mine.yaml")
    assert said(*words)[1].startswith(warning)
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["spec"]["backbone"]["license"] == "CC-BY-NC-4.0"
    file.write_text(file.read_text().replace("CC-BY-NC-4.0", "MIT"))
    told = json.loads(said(*words, "--dry-run", "--json")[1])
    assert told["folder"] == f"runs/{run.name}"  # what one may do with it changes no number
