"""References that run other people's code: torch.hub, if it is trusted, and RobustBench, if it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from sslrob_backbones.hub import EXAMPLE, Hub
from sslrob_backbones.references import build, resolve, robustbench
from torch import nn

from sslrob import assemble, references
from sslrob.errors import RunFailed, SslrobError
from sslrob.plugins import installed
from sslrob.testing import check_victim

HUBCONF = """
import torch
from torch import nn
import torchvision

class Own(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 4, 4)

    def forward(self, x):
        return torch.relu(self.layer(x)).mean((2, 3))

def resnet(fc=False):
    torch.manual_seed(5)
    net = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=7)
    if not fc:
        net.fc = nn.Identity()
    return net

def own(width=6):
    return Own(width)

def vit(**more):
    from timm.models.vision_transformer import VisionTransformer
    torch.manual_seed(5)
    return VisionTransformer(img_size=224, patch_size=32, embed_dim=64, depth=1, num_heads=1, num_classes=0, **more)

def words():
    return "no module"

def broken():
    raise RuntimeError("not today")
"""


pytestmark = pytest.mark.usefixtures("own_machine")


# ---- torch.hub


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "hubconf.py").write_text(HUBCONF)
    return tmp_path / "theirs"


def test_code_of_others_is_not_run_unasked(folder):
    (folder / "hubconf.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(SslrobError, match="would run the code of") as caught:
        resolve("backbone", f"hub:{folder}:resnet")
    assert "--trust-code" in caught.value.hint
    with pytest.raises(SslrobError, match="would run the code of"):
        Hub(str(folder), "resnet")


def test_a_network_that_is_built_here_too_gives_its_tensors(folder, monkeypatch):
    monkeypatch.setenv("SSLROB_TRUST_CODE", "1")
    for entry in ("resnet", "resnet?arguments={fc: true}"):
        found = resolve("backbone", f"hub:{folder}:{entry}")
        assert (found.use, found.settings["depth"]) == ("resnet", 14)
        assert "the same embedding as" in found.notes
        monkeypatch.setenv("SSLROB_TRUST_CODE", "0")  # its code is not needed any more
        built = assemble.backbone(found, name="x")
        monkeypatch.setenv("SSLROB_TRUST_CODE", "1")
        theirs = torch.hub.load(str(folder), "resnet", source="local").eval()
        images = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(built(images).pooled, theirs(built.normalised(images)))


@pytest.mark.parametrize("arguments", ["", "?arguments={dynamic_img_size: true}"], ids=["one size", "any size"])
def test_positions_are_stretched_as_in_the_module(folder, monkeypatch, arguments):
    monkeypatch.setenv("SSLROB_TRUST_CODE", "1")
    found = resolve("backbone", f"hub:{folder}:vit{arguments}")
    assert (found.use, found.settings["mean"]) == ("timm", [0.485, 0.456, 0.406])
    assert "positions" not in found.settings  # they are timm's, not DINO's


def test_any_other_module_is_run_where_it_is(folder, monkeypatch):
    monkeypatch.setenv("SSLROB_TRUST_CODE", "1")
    found = resolve("backbone", f"hub:{folder}:own?arguments={{width: 5}}&mean=0.5")
    assert (found.use, found.settings["arguments"], found.settings["mean"]) == ("hub", {"width": 5}, 0.5)
    built = assemble.backbone(found, name="x")
    features = built(torch.rand(2, 3, 32, 32))
    assert (features.pooled.shape, features.maps, built.width) == ((2, 5), (), 5)
    with pytest.raises(SslrobError, match="shows no feature maps") as caught:
        _ = built.strides
    assert "--task classification" in caught.value.hint


@pytest.mark.parametrize(
    ("entry", "says"), [("words", "gives a str, no module"), ("broken", "RuntimeError: not today"), ("absent", "absent")]
)
def test_entries_that_give_nothing(folder, monkeypatch, entry, says):
    monkeypatch.setenv("SSLROB_TRUST_CODE", "1")
    with pytest.raises(SslrobError, match=says):
        resolve("backbone", f"hub:{folder}:{entry}")


@pytest.mark.parametrize("repository", ["/missing/folder", "./missing", "~/missing", "missing"])
def test_a_folder_that_is_not_there(repository):
    with pytest.raises(SslrobError, match=f"no folder at '{repository}'"):
        resolve("backbone", f"hub:{repository}:entry")


def test_code_is_not_downloaded_offline(monkeypatch):
    monkeypatch.setenv("SSLROB_TRUST_CODE", "1")
    with pytest.raises(RunFailed, match="downloads are off"):
        resolve("backbone", "hub:owner/name:main:resnet")


def test_the_example_needs_no_trust():
    assert Hub().strides == (4,)
    assert EXAMPLE.is_dir()


# ---- RobustBench


class Kind(NamedTuple):
    """As a member of an enumeration of RobustBench's."""

    value: str


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 10)

    def forward(self, x):
        return self.layer(x.mean((2, 3)))


@pytest.fixture
def bench(monkeypatch):
    """A RobustBench of two data sets, which writes a checkpoint when a model is loaded for the first time."""

    def load_model(model_name, model_dir, dataset, threat_model):
        path = Path(model_dir) / dataset / threat_model / f"{model_name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        net = Tiny()
        if not path.exists():
            torch.save(net.state_dict(), path)
        return net.eval()

    def kinds(**named):
        return {Kind(name): content for name, content in named.items()}

    models = kinds(cifar10=kinds(Linf={"Standard": {}, "Wong2020Fast": {}}), imagenet=kinds(Linf={"Standard": {}}))
    modules = {"robustbench": SimpleNamespace(), "robustbench.utils": SimpleNamespace(load_model=load_model)}
    modules["robustbench.model_zoo"] = SimpleNamespace(model_dicts=models)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_a_model_of_robustbench(bench, monkeypatch):
    monkeypatch.setenv("SSLROB_OFFLINE", "0")
    record = references.victim(installed(), "robustbench:Wong2020Fast")
    assert (record.task, record.reference) == ("classification", "robustbench:cifar10/Linf/Wong2020Fast")
    victim = build(record.reference, record.weights, record.settings)
    images = torch.rand(2, 3, 8, 8)
    assert victim(images).shape == (2, 10)
    check_victim(victim.requires_grad_(False), images, victim(images).argmax(1).tolist())
    monkeypatch.setenv("SSLROB_OFFLINE", "1")
    assert references.victim(installed(), "robustbench:Wong2020Fast") == record


def test_a_name_of_robustbench_that_means_several(bench):
    with pytest.raises(SslrobError, match="2 models 'Standard'") as caught:
        references.victim(installed(), "robustbench:Standard")
    assert "robustbench:imagenet/Linf/Standard" in caught.value.hint
    with pytest.raises(SslrobError, match="RobustBench has no model 'Wong2020Fats'") as caught:
        references.victim(installed(), "robustbench:Wong2020Fats")
    assert "Wong2020Fast" in caught.value.hint
    with pytest.raises(RunFailed, match="downloads are off"):
        references.victim(installed(), "robustbench:cifar10/Linf/Standard")


def test_robustbench_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(SslrobError, match="robustbench is not installed") as caught:
        references.victim(installed(), "robustbench:Standard")
    assert robustbench.INSTALL in caught.value.hint
