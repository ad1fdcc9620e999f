"""Files whose layout and architecture are guessed, and what is said when a file is not what it was taken for."""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sslrob_backbones.guess import architecture, guess, guess_head
from sslrob_backbones.layouts import LAYOUTS
from sslrob_backbones.layouts.dino import Dino
from sslrob_backbones.layouts.dinov2 import Dinov2
from sslrob_backbones.layouts.masked import Mae
from sslrob_backbones.layouts.moves import described
from sslrob_backbones.layouts.openmmlab import OpenMMLab
from sslrob_backbones.layouts.placed import Placed
from sslrob_backbones.layouts.swav import Swav
from sslrob_backbones.layouts.timm import Timm
from sslrob_backbones.layouts.torchvision import Torchvision
from sslrob_backbones.resnet import ResNet
from sslrob_backbones.timm import Timm as TimmBackbone
from torch import Tensor, nn

from sslrob.errors import SslrobError
from sslrob.plugins import installed
from sslrob.weights import apply

State = dict[str, Tensor]


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def resnet(stages: tuple[int, ...] = (3, 4, 6, 3), planes: int = 64, inner: int | None = None) -> State:
    """A bottleneck ResNet's convolutions, as far as a guess reads them."""
    state = {"conv1.weight": torch.zeros(planes, 3, 7, 7)}
    for stage, count in enumerate(stages):
        width = (planes if inner is None else inner) << stage
        for block in range(count):
            for conv, size in ((1, 1), (2, 3), (3, 1)):
                state[f"layer{stage + 1}.{block}.conv{conv}.weight"] = torch.zeros(width, width, size, size, device="meta")
    return state


def vit(width: int = 384, depth: int = 12, patch: int = 16, side: int = 14, scaled: bool = False, gated: bool = False) -> State:
    state = {
        "cls_token": torch.ones(1, 1, width),
        "pos_embed": torch.full((1, side**2 + 1, width), 2.0),
        "patch_embed.proj.weight": torch.zeros(width, 3, patch, patch),
        "patch_embed.proj.bias": torch.zeros(width),
        "norm.weight": torch.zeros(width),
        "norm.bias": torch.zeros(width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
    }
    for name, (out, into) in {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 2 * width if gated else 4 * width),
    }.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    if scaled:
        shapes |= {"ls1.gamma": (width,), "ls2.gamma": (width,)}
    for block in range(depth):
        state |= {f"blocks.{block}.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    return state


SMALL = vit(width=32, depth=1)
LINEAR = {"weight": torch.zeros(10, 64), "bias": torch.zeros(10)}
PROJECTOR = {**below("0.clf.0.", LINEAR), **below("1.clf.0.", LINEAR)}
FILES: dict[str, dict[str, Any]] = {
    "torchvision": {**resnet(), **below("fc.", LINEAR)},
    "swav": below("module.", {**resnet(), "projection_head.0.weight": torch.zeros(2, 2)}),
    "moco": {"epoch": 200, "state_dict": {**below("module.encoder_q.", resnet()), "module.queue": torch.zeros(2, 2)}},
    "moco-v3": {"state_dict": below("module.", {**SMALL, **below("head.", LINEAR)}), "best_acc1": torch.tensor(73.2)},
    "simsiam": {"state_dict": below("module.encoder.", resnet())},
    "dino": {"student": {}, "teacher": below("backbone.", SMALL)},
    "dinov2": {**SMALL, "mask_token": torch.zeros(1, 32)},
    "mae": {"model": {**SMALL, "decoder_embed.weight": torch.zeros(2, 2)}},
    "msn": {"target_encoder": below("module.", SMALL), "encoder": below("module.", SMALL)},
    "ibot": {"state_dict": {**SMALL, "masked_embed": torch.zeros(1, 32)}},
    "vissl": {"classy_state_dict": {"base_model": {"model": {"trunk": below("_feature_blocks.", resnet()), "heads": {}}}}},
    "openmmlab": {"meta": {}, "state_dict": below("backbone.", {"patch_embed.projection.weight": torch.zeros(32, 3, 16, 16)})},
    "lightly": {
        "pytorch-lightning_version": "2",
        "state_dict": {**below("backbone.", resnet()), "online_classifier.classification_head.weight": torch.zeros(2, 2)},
    },
    "robust": {"model": below("module.model.", resnet())},
    "timm": {"features.0.conv.weight": torch.zeros(8, 3, 3, 3)},
}


@pytest.mark.parametrize("layout", FILES)
def test_the_likeliest_layout_is_that_of_the_file(layout: str) -> None:
    assert guess(FILES[layout])[0].layout == layout


def test_a_bare_vit_is_not_taken_for_dinos() -> None:
    first, second = guess(vit(32, 2))[:2]
    assert (first.layout, second.layout) == ("timm", "dino")
    assert first.reason == "the file itself has a ViT under timm's names, as in DINO's bare files: if it is DINO's, say layout dino"
    state = installed().get("layout", first.layout)().backbone(vit(32, 2))
    assert "positions" not in architecture(state, first.layout).settings
    assert guess({"teacher": below("backbone.", vit(32, 2))})[0].layout == "dino"


def test_a_guess_says_what_it_saw() -> None:
    lightning = {"pytorch-lightning_version": "2", "state_dict": below("backbone.", vit(32, 2))}
    assert guess(lightning)[0].reason.startswith("'state_dict', below 'backbone.', has a ViT: a file of PyTorch Lightning with its tensors")
    assert guess(FILES["swav"])[0].reason == "the file itself, below 'module.', has a ResNet and 'projection_head.0.weight'"


@pytest.mark.parametrize("found", [{}, {"epoch": 3}, {"projector.0.weight": torch.zeros(2, 2)}, {"weight": torch.zeros(2, 2)}])
def test_nothing_is_guessed_of_what_is_no_network(found: dict[str, Any]) -> None:
    assert guess(found) == guess_head(found) == []


@pytest.mark.parametrize(("found", "layout"), [(LINEAR, "dinov2-linear"), ({"state_dict": below("module.linear.", LINEAR)}, "dino-linear")])
def test_a_head_alone_is_known_as_one(found: dict[str, Any], layout: str) -> None:
    assert guess(found) == []
    assert [candidate.layout for candidate in guess_head(found)] == [layout]


def test_every_layout_is_registered_under_its_own_name() -> None:
    for name in LAYOUTS:
        layout = installed().get("layout", name)()
        assert isinstance(layout, Placed)
        assert layout.name == name


@pytest.mark.parametrize(
    ("layout", "found", "said", "hint"),
    [
        ("swav", FILES["moco"], "'state_dict/module.encoder_q.conv1.weight'", "say `layout: moco`"),
        ("swav", {"module.projection_head.0.weight": torch.zeros(2, 2)}, "'module.conv1.weight'", "a projector is no backbone"),
        ("dinov2", {"state_dict": below("module.linear.", LINEAR)}, "'patch_embed.proj.weight'", "a linear head of layout 'dino-linear'"),
        ("dino-linear", FILES["torchvision"], "a linear head alone", "say `layout: torchvision`"),
        ("moco", {"epoch": 3, "arch": "resnet50"}, "found no tensors, only 'epoch', 'arch'", "whole backbone"),
        ("moco", {}, "found nothing at all", "whole backbone"),
    ],
)
def test_what_is_no_backbone_of_the_layout_is_told(layout: str, found: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(SslrobError, match="finds no backbone") as caught:
        installed().get("layout", layout)().backbone(found)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("layout", "found", "said", "hint"),
    [
        ("swav", FILES["swav"], "checkpoints of layout 'swav' hold no linear head", "sslrob train"),
        ("moco", {"state_dict": below("module.encoder_q.fc.", LINEAR)}, "'state_dict/module.fc.weight'", "the linear evaluation"),
        ("dino-linear", LINEAR, "'state_dict/module.linear.weight'", "say `layout: dinov2-linear`"),
        ("vissl", {"classy_state_dict": {"base_model": {"model": {"heads": PROJECTOR}}}}, "heads/0.clf.0.weight'", "the linear evaluation"),
        ("mae", FILES["mae"], "'model/head.weight'", "the linear evaluation"),
    ],
)
def test_what_is_no_head_of_the_layout_is_told(layout: str, found: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(SslrobError) as caught:
        installed().get("layout", layout)().head(found)
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_resnets_are_told_by_their_stages_and_stem() -> None:
    assert architecture(resnet()).settings == {"depth": 50, "width": 1}
    assert architecture(resnet((3, 24, 36, 3), 128)).settings == {"depth": 200, "width": 2}
    assert architecture(resnet(), "swav").settings["std"][0] == 0.228
    assert (
        architecture(resnet(planes=128)).reason
        == "stages of 3, 4, 6, 3 bottlenecks and a stem of 128 channels: ResNet-50 with 2 times the channels"
    )
    assert architecture(below("net.", resnet())).settings == {"model": "resnet50"}


@pytest.mark.parametrize(
    ("state", "layout", "model", "arguments"),
    [
        (vit(), "dino", "vit_small_patch16_224", {}),
        (vit(), "moco-v3", "vit_small_patch16_224", {"num_heads": 12}),
        (vit(patch=8, side=28), "dino", "vit_small_patch8_224", {}),
        (vit(768, patch=4, side=56), "msn", "vit_base_patch16_224", {"patch_size": 4}),
        (vit(patch=14, side=37, scaled=True), "dinov2", "vit_small_patch14_dinov2", {}),
        (vit(side=6), "timm", "vit_small_patch16_224", {"img_size": 96}),
        (vit(48, 2, side=4, scaled=True, gated=True), "dinov2", "vit_giant_patch14_dinov2", None),
    ],
)
def test_vits_are_told_by_width_patches_and_layout(state: State, layout: str, model: str, arguments: dict[str, Any] | None) -> None:
    told = architecture(below("net.", state), layout)
    assert (told.backbone, told.settings["model"]) == ("timm", model)
    assert ("mean" in told.settings) == (layout != "timm")
    assert arguments is None or told.settings.get("arguments", {}) == arguments


def test_what_is_told_can_be_built() -> None:
    plain = ResNet(depth=14, width=0.125)
    told = architecture(plain.state_dict())
    apply(ResNet(**told.settings), plain.state_dict(), what="a small ResNet")
    registers = {**vit(32, 2, patch=8, side=4, scaled=True), "register_tokens": torch.zeros(1, 4, 32), "mask_token": torch.zeros(1, 32)}
    for layout, found in (("dino", vit(32, 2, patch=8, side=4)), ("dinov2", registers)):
        state = installed().get("layout", layout)().backbone(found)
        apply(TimmBackbone(**architecture(state, layout).settings), state, what="a small ViT")


@pytest.mark.parametrize(
    ("state", "said", "hint"),
    [
        (resnet(inner=128), "a ResNet with stages of 3, 4, 6, 3 bottlenecks", "wide_resnet50_2"),
        (resnet((1, 2, 3, 4)), "stages of 1, 2, 3, 4", "say which model"),
        (
            {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64)},
            "'layer1.0.conv1.weight' is missing",
            "again",
        ),
        (below("net.", {**SMALL, "fc_norm.weight": torch.zeros(32)}), "it has 'fc_norm.weight'", "say which model"),
        ({name: tensor for name, tensor in SMALL.items() if name != "pos_embed"}, "'pos_embed' is missing", "again"),
        ({"stem.weight": torch.zeros(1)}, "neither of a ResNet nor of a ViT: stem.weight", "say which model"),
    ],
)
def test_what_is_not_built_here_is_told(state: State, said: str, hint: str) -> None:
    with pytest.raises(SslrobError) as caught:
        architecture(state)
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_a_training_of_dino_is_read_and_swav_has_no_command_line(tmp_path: Path) -> None:
    rate = np.float64(0.1)
    training = {
        "teacher": below("backbone.", SMALL),
        "args": argparse.Namespace(output_dir=Path("/out"), arch="vit_small"),
        "optimizer": {"state": {}, "param_groups": [{"lr": rate}]},
    }
    torch.save(training, tmp_path / "dino.pth")
    torch.save({"state_dict": below("module.", resnet((1, 1, 1, 1), 8, 0)), "optimizer": {"lr": rate}}, tmp_path / "swav.pth")
    assert Dino().backbone(Dino().read(tmp_path / "dino.pth")).keys() == below("net.", SMALL).keys()
    assert "conv1.weight" in Swav().backbone(Swav().read(tmp_path / "swav.pth"))
    with pytest.raises(SslrobError, match=r"would call 'argparse\.Namespace'"):
        Swav().read(tmp_path / "dino.pth")


def test_openmmlabs_log_is_read_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mmengine.logging.history_buffer")
    kind = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = kind  # type: ignore[attr-defined]
    log = kind()
    log._log_history = np.ones(3)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        torch.save({"message_hub": {"log_scalars": {"train/loss": log}}, "state_dict": below("backbone.", SMALL)}, tmp_path / "mm.pth")
    assert "net.cls_token" in OpenMMLab().backbone(OpenMMLab().read(tmp_path / "mm.pth"))


def test_a_safetensors_file_of_timm_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({**SMALL, **below("head.", LINEAR)}, tmp_path / "model.safetensors")
    found = Timm().read(tmp_path / "model.safetensors")
    assert Timm().backbone(found).keys() == below("net.", SMALL).keys()
    assert Timm().head(found).keys() == {"head.weight", "head.bias"}


def test_the_norm_before_maes_classifier_becomes_part_of_it() -> None:
    torch.manual_seed(0)
    probe = nn.Sequential(nn.BatchNorm1d(8, affine=False, eps=1e-6), nn.Linear(8, 3))
    probe(torch.randn(16, 8) * 3 + 1)
    head = Mae().head({"model": below("head.", probe.state_dict())})
    x = torch.randn(4, 8)
    torch.testing.assert_close(x @ head["head.weight"].T + head["head.bias"], probe.eval()(x))


def test_batches_are_counted_where_the_file_is_too_old_to() -> None:
    state = Torchvision().backbone({**resnet(), "bn1.running_mean": torch.zeros(64)})
    assert state["bn1.num_batches_tracked"] == 0


def test_registers_leave_the_class_token_its_position() -> None:
    state = Dinov2().backbone({**SMALL, "register_tokens": torch.zeros(1, 4, 32)})
    assert state["net.cls_token"].unique().tolist() == [3]  # 1, and 2 of its position
    assert state["net.pos_embed"].shape[1] == 14**2


def test_mappings_that_lie_in_each_other_are_described_once() -> None:
    deep: dict[str, Any] = {"w": torch.ones(1)}
    for _ in range(60):
        deep = {"a": deep, "b": deep}
    deep["itself"] = deep
    assert described(deep) == f"{'a/' * 60 + 'w'!r}, 1 tensor in all"
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert described(deep) == "no tensors, only 'a'"
