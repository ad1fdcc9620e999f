"""References by scheme: what they resolve to, and what they refuse."""

from __future__ import annotations

import json
from functools import partial

import published
import pytest
import torch
from published_draws import CLASSES
from published_frameworks import openmmlab
from published_haiku import byol
from published_tensorflow import simclr
from safetensors.torch import save_file
from sslrob_backbones.references import build, resolve
from sslrob_backbones.resnet import ResNet
from sslrob_backbones.timm import Timm
from torch import nn

from sslrob import assemble, references, weights
from sslrob.errors import RunFailed, SslrobError
from sslrob.plugins import installed
from sslrob.testing import check_victim
from sslrob.zoo import Weights

pytestmark = pytest.mark.usefixtures("own_machine")


def bare(**settings) -> ResNet:
    torch.manual_seed(2)
    return ResNet(14, width=0.125, **settings).eval()


# ---- timm


def test_a_model_of_timm():
    found = resolve("backbone", "timm:resnet50.a1_in1k")
    assert (found.use, found.settings, found.license) == ("timm", {"model": "resnet50.a1_in1k"}, "Apache-2.0")
    assert (found.weights.hf, found.weights.sha256, found.weights.layout) == ("timm/resnet50.a1_in1k", "unknown", "timm")
    assert resolve("backbone", "timm:resnet50").settings == {"model": "resnet50.a1_in1k"}, "the weights that timm prefers"
    assert resolve("victim", "timm:resnet50") is None


def test_licences_that_forbid_commerce_are_known_by_their_own_names():
    assert resolve("backbone", "timm:vit_base_patch16_224.mae").license == "CC-BY-NC-4.0"


def test_settings_of_a_model_of_timm():
    found = resolve("backbone", "timm:vit_small_patch16_224.dino?readout=cls4&mean=0.5")
    assert found.settings == {"model": "vit_small_patch16_224.dino", "readout": "cls4", "mean": 0.5}


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("timm:resnt50", "timm has no model 'resnt50'", "did you mean 'resnet50'"),
        ("timm:resnet50.a1_in2k", "timm has no weights 'resnet50.a1_in2k'", "did you mean 'resnet50.a1_in1k'"),
        ("hf:timm", "'hf:timm' names no repository", "hf:ORG/NAME"),
        ("hub:owner/name", "names no entry", "hub:OWNER/NAME:ENTRY"),
        ("file:absent.pth", "no weights at", "check the path"),
    ],
)
def test_what_is_not_there(text, says, hint):
    with pytest.raises(SslrobError, match=says) as caught:
        resolve("backbone", text)
    assert hint in caught.value.hint


# ---- the Hugging Face hub


def repository(monkeypatch, tmp_path, config: object) -> None:
    """Let the hub have one config.json."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    asked = []
    monkeypatch.setattr(weights, "fetch", lambda source: (asked.append(source.hf), path)[1])
    monkeypatch.setattr("sslrob_backbones.references.hugging_face.weights.fetch", weights.fetch)


def test_a_model_on_the_hub(monkeypatch, tmp_path):
    config = {"architecture": "test_vit", "model_args": {"num_heads": 4}, "license": "mit", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3]}}
    repository(monkeypatch, tmp_path, config)
    found = resolve("backbone", "hf:org/name@v2?readout=cls")
    assert found.settings == {"model": "test_vit", "mean": [0.5, 0.4, 0.3], "arguments": {"num_heads": 4}, "readout": "cls"}
    assert (found.weights.hf, found.weights.layout, found.license) == ("org/name@v2", "timm", "MIT")
    assert assemble.backbone(found.model_copy(update={"weights": None}), name="x").width == 64


def test_what_is_no_model_of_timm(monkeypatch, tmp_path):
    repository(monkeypatch, tmp_path, {"architectures": ["BertModel"]})
    with pytest.raises(SslrobError, match=r"'org/bert' is no model of timm: its config\.json names BertModel"):
        resolve("backbone", "hf:org/bert")


def test_the_hub_is_not_asked_offline():
    with pytest.raises(RunFailed, match=r"org/name/config\.json"):
        resolve("backbone", "hf:org/name")


@pytest.mark.parametrize("text", ["hf:org/name/../../x.bin", "hf:../name", "hf:org/name@../x"])
def test_no_part_of_an_address_leads_out_of_the_repository(text):
    with pytest.raises(SslrobError, match="names no file of a repository"):
        resolve("backbone", text)
    with pytest.raises(ValueError, match="hf"):
        Weights(hf=text.removeprefix("hf:"), sha256="unknown")


# ---- files


def test_a_guess_is_explained(tmp_path):
    net = bare()
    torch.save({f"module.{name}": t for name, t in net.state_dict().items()} | {"module.prototypes.weight": torch.rand(9, 3)}, "w.pth")
    found = resolve("backbone", f"file:{tmp_path}/w.pth")
    assert (found.use, found.weights.layout) == ("resnet", "swav")
    assert found.settings == {"depth": 14, "width": 0.125, "std": [0.228, 0.224, 0.225]}
    layout, architecture, pixels = found.notes.splitlines()
    assert layout.startswith("w.pth: layout swav, since ")
    assert architecture.startswith("  architecture: ")
    assert "ResNet-14" in architecture
    assert pixels.startswith("  pixels: mean [0.485, 0.456, 0.406], std [0.228, 0.224, 0.225]")
    built = assemble.backbone(found, name="w").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(built(images).pooled, bare(std=[0.228, 0.224, 0.225])(images).pooled)


@pytest.mark.parametrize(
    ("write", "name", "layout", "settings"),
    [
        (partial(published.swav, wrapped=True), "w.pth.tar", "swav", {"std": [0.228, 0.224, 0.225]}),
        (partial(published.vissl, form="nest"), "w.torch", "vissl", {}),
        (partial(openmmlab, hub=True), "w.pth", "openmmlab", {}),
        (byol, "w.pkl", "haiku", {"padding": "same"}),
        (simclr, "w.zip", "simclr-tf", {"padding": "same-pool", "mean": 0, "std": 1}),
    ],
    ids=["swav", "vissl", "openmmlab", "haiku", "simclr-tf"],
)
def test_files_of_every_kind_are_recognised(tmp_path, write, name, layout, settings):
    write(tmp_path / name)
    found = resolve("backbone", f"file:{tmp_path}/{name}")
    assert (found.use, found.weights.layout) == ("resnet", layout), found.notes
    assert found.settings.items() >= settings.items()
    images = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        assert assemble.backbone(found, name="w")(images).pooled.isfinite().all()


def test_a_classifier_in_a_file_that_is_not_torchs(tmp_path):
    simclr(tmp_path / "w.zip")
    record = references.victim(installed(), f"file:{tmp_path}/w.zip")
    with torch.no_grad():
        assert build(record.reference, record.weights, record.settings).eval()(torch.rand(1, 3, 48, 48)).shape == (1, CLASSES)


def test_a_file_of_lightning_has_no_habits_of_openmmlab(tmp_path):
    net = Timm("vit_small_patch16_224", arguments={"depth": 1, "img_size": 32})
    state = {f"backbone.{name.removeprefix('net.')}": tensor for name, tensor in net.state_dict().items() if name.startswith("net.")}
    for more, heads in (({"pytorch-lightning_version": "2"}, 6), ({}, 12)):
        torch.save({"state_dict": state, **more}, "w.ckpt")
        found = resolve("backbone", f"file:{tmp_path}/w.ckpt")
        assert found.weights.layout == "openmmlab"
        assert found.settings["arguments"].get("num_heads", 6) == heads
        assert ("PyTorch Lightning" in found.notes) == (heads == 6)


def test_what_is_known_is_not_guessed(tmp_path):
    torch.manual_seed(0)
    net = Timm("test_vit", arguments={"num_heads": 4}).eval()
    save_file({name.removeprefix("net."): tensor.contiguous() for name, tensor in net.state_dict().items()}, "w.safetensors")
    text = f"file:{tmp_path}/w.safetensors?layout=timm&model=test_vit&arguments={{num_heads: 4}}&mean=0.4"
    found = resolve("backbone", text)
    assert found.settings == {"model": "test_vit", "arguments": {"num_heads": 4}, "mean": 0.4}
    assert "layout timm, since you say so" in found.notes
    assert assemble.backbone(found, name="w").mean.flatten().tolist() == pytest.approx([0.4] * 3)


def test_a_file_of_nothing_that_is_known(tmp_path):
    torch.save({"weight": torch.rand(3)}, "w.pth")
    with pytest.raises(SslrobError, match=r"w\.pth' holds no backbone in any layout that is known: 'weight'") as caught:
        resolve("backbone", f"file:{tmp_path}/w.pth")
    assert "--weights FILE" in caught.value.hint


def test_a_whole_classifier_in_one_file(tmp_path):
    net, head = bare(), nn.Linear(256, 5)
    torch.save({"state_dict": {**net.state_dict(), **{f"fc.{name}": tensor for name, tensor in head.state_dict().items()}}}, "w.pth")
    record = references.victim(installed(), f"file:{tmp_path}/w.pth?mean=0.5&std=0.25")
    assert (record.task, record.reference, record.settings["mean"]) == ("classification", f"file:{tmp_path}/w.pth", 0.5)
    task = assemble.task("classification")
    victim = task.whole(record.reference, weights=record.weights, settings=record.settings, classes=("a", "b", "c", "d", "e")).eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(victim(images), head(bare(mean=0.5, std=0.25)(images).pooled))
        right = victim(images).argmax(1).tolist()
    check_victim(victim.requires_grad_(False), images, right)
    with pytest.raises(SslrobError, match="has 5 classes, but the data set has 3"):
        task.whole(record.reference, weights=record.weights, settings=record.settings, classes=("a", "b", "c"))


def test_where_a_classifier_lies_does_not_matter():
    described = assemble.task("classification").described
    assert described("file:/a/w.pth") == described("file:/b/w.pth") != described("robustbench:x")


def test_a_backbone_alone_is_no_classifier(tmp_path):
    torch.save(bare().state_dict(), "w.pth")
    with pytest.raises(SslrobError, match="holds no classifier"):
        references.victim(installed(), f"file:{tmp_path}/w.pth")


def lukemelas(net: Timm, head: nn.Linear) -> dict[str, torch.Tensor]:
    """timm's EfficientNet-Lite0 as efficientnet-lite-pytorch saves it; blocks are counted through."""
    counts = [1, 2, 2, 3, 3, 4, 1]
    found = {}
    for name, tensor in net.net.state_dict().items():
        part, *rest = name.split(".")
        if part == "blocks":
            stage, block, inner, leaf = rest
            number = sum(counts[: int(stage)]) + int(block)
            plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
            wide = {
                "conv_pw": "_expand_conv",
                "bn1": "_bn0",
                "conv_dw": "_depthwise_conv",
                "bn2": "_bn1",
                "conv_pwl": "_project_conv",
                "bn3": "_bn2",
            }
            found[f"_blocks.{number}.{(plain if number == 0 else wide)[inner]}.{leaf}"] = tensor
        else:
            found[".".join([{"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}[part], *rest])] = tensor
    return found | {f"_fc.{name}": tensor for name, tensor in head.state_dict().items()}


def test_an_efficientnet_of_tensorflow(tmp_path):
    torch.manual_seed(0)
    net, head = Timm("tf_efficientnet_lite0").eval(), nn.Linear(1280, 4)
    torch.save(lukemelas(net, head), "w.pth")
    record = references.victim(installed(), f"file:{tmp_path}/w.pth")
    assert (record.settings, record.weights.layout) == ({"use": "timm", "model": "tf_efficientnet_lite0"}, "efficientnet-pytorch")
    assert "pixels: mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]" in record.notes
    victim = build(record.reference, record.weights, record.settings).eval()
    images = torch.rand(1, 3, 65, 64)
    with torch.no_grad():
        torch.testing.assert_close(victim(images), head(net(images).pooled))
