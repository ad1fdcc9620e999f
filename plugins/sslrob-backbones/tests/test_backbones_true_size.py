"""Every checkpoint of the zoo, at its true size, without a number in it: the original's names and shapes go through the entry's layout
into the entry's architecture.  What an entry's size is, its name says; what that means, the original repositories.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from published_draws import Draws, State
from published_vit import mm
from torch import Tensor

from sslrob import assemble, zoo_files
from sslrob.plugins import installed
from sslrob.zoo import Backbone, Head

ZOO = zoo_files.load()
VITS = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16), "g": (1536, 40, 24)}  # width, depth, heads
TWELVE = ("moco-v3",)  # whose ViT-S has 12 heads
WRAPPED: dict[str, Callable[[State], Mapping[str, Any]]] = {
    "torchvision": lambda state: state,
    "swav": lambda state: prefixed("module.", state),
    "moco": lambda state: {"state_dict": prefixed("module.encoder_q.", state)},
    "moco-v3": lambda state: {"state_dict": prefixed("module.base_encoder.", state)},
    "simsiam": lambda state: {"state_dict": prefixed("module.encoder.", state)},
    "dino": lambda state: state,
    "vissl": lambda state: {"classy_state_dict": {"base_model": {"model": {"trunk": prefixed("_feature_blocks.", state), "heads": {}}}}},
    "openmmlab": lambda state: {"meta": {}, "state_dict": prefixed("backbone.", renamed(state))},
    "lightly": lambda state: {"state_dict": prefixed("backbone.", state), "pytorch-lightning_version": "2.0.6"},
    "robust": lambda state: {"model": prefixed("module.model.", state)},
    "dinov2": lambda state: {**state, "mask_token": torch.empty(1, 4, device="meta")},
    "mae": lambda state: {"model": state},
    "ibot": lambda state: {"state_dict": state},
    "msn": lambda state: {"target_encoder": prefixed("module.", state)},
}
TORCH = {name: record for name, record in ZOO.backbones.items() if record.weights and record.weights.layout in WRAPPED}
OTHER = {name: record for name, record in ZOO.backbones.items() if record.weights and record.weights.layout in ("haiku", "simclr-tf")}
BY_TIMM = {name: record for name, record in ZOO.backbones.items() if record.weights and record.weights.layout == "timm"}
PUBLISHED = {name: record for name, record in ZOO.heads.items() if record.weights and record.weights.layout}


class Shapes(Draws):
    """Tensors of the right shapes and no content."""

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Tensor:
        del std, mean
        return torch.empty(shape, device="meta")

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        del low, high
        return torch.empty(shape, device="meta")


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def renamed(state: State) -> State:
    """As mmpretrain names a vision transformer's tensors; a ResNet's are called the same there."""
    return {mm(name): tensor for name, tensor in state.items()} if "cls_token" in state else state


def original(name: str) -> State:
    """What the network is made of that an entry's name says, such as swav-r50w2-ep400 or dino-vitb8."""
    draws = Shapes(0)
    if found := re.search(r"-r(\d+)(?:w(\d))?(-|$)", name):
        return draws.resnet(depth=int(found[1]), stem=64 * int(found[2] or 1))
    found = re.search(r"-vit([sblhg])(\d+)(-|$)", name)
    assert found, name
    width, depth, _ = VITS[found[1]]
    patch, second = int(found[2]), name.startswith("dinov2")
    return draws.vit(width=width, depth=depth, patch=patch, grid=(518 if second else 224) // patch, scaled=second, gated=found[1] == "g")


def built(record: Backbone, body: Mapping[str, Any] | None = None) -> Any:
    settings = {**record.settings, **(body or {})}
    with torch.device("meta"):
        return assemble.backbone(record.model_copy(update={"weights": None, "settings": settings}), name="of the zoo")


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_a_checkpoint_of_its_true_size_fits_its_entry(name: str) -> None:
    record = TORCH[name]
    assert record.weights is not None
    layout = installed().get("layout", str(record.weights.layout))()
    net = built(record)
    assert shapes(layout.backbone(WRAPPED[str(record.weights.layout)](original(name)))) == shapes(net.state_dict())
    if vit := re.search(r"-vit([sblhg])\d", name):
        heads = 12 if vit[1] == "s" and name.startswith(TWELVE) else VITS[vit[1]][2]
        assert {block.attn.num_heads for block in net.net.blocks} == {heads}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_an_entry_of_another_library_is_of_its_true_size(name: str) -> None:
    assert shapes(original(name)) == shapes(built(OTHER[name]).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TIMM)
def test_an_entry_of_timm_takes_what_timm_publishes(name: str) -> None:
    import timm

    record = BY_TIMM[name]
    with torch.device("meta"):
        published = timm.create_model(str(record.settings["model"])).state_dict()
    assert shapes(installed().get("layout", "timm")().backbone(published)) == shapes(built(record).state_dict())


def test_entries_pad_and_normalise_as_the_originals_do() -> None:
    imagenet, swav = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, [0.228, 0.224, 0.225]
    expected = {
        "haiku": {"padding": "same", **imagenet},
        "simclr-tf": {"padding": "same-pool", "mean": 0, "std": 1},
        "swav": {**imagenet, "std": swav},
    }
    for name, record in {**TORCH, **OTHER}.items():
        assert record.weights is not None
        settings = {"padding": "torch", **record.settings}
        told = {"padding": "torch", **imagenet, **expected.get(str(record.weights.layout), {})}
        assert {key: settings.get(key) for key in told} == told, name


def read_by(head: Head) -> int:
    """How many numbers the original's linear layer reads."""
    if found := re.search(r"-r\d+(?:w(\d))?(-|$)", head.backbone):
        return 2048 * int(found[1] or 1)
    found = re.search(r"-vit([sblhg])\d", head.backbone)
    assert found, head.backbone
    assert head.weights is not None
    width, linear = VITS[found[1]][0], head.weights.layout
    tokens = {("dino-linear", "s"): 4, ("dino-linear", "b"): 2}.get((str(linear), found[1]), 1)
    if linear == "dinov2-linear":
        tokens = 5 if "linear4" in str(head.weights.url) else 2
    return tokens * width


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_head_reads_what_the_original_reads(name: str) -> None:
    head = PUBLISHED[name]
    assert built(ZOO.backbones[head.backbone], head.body).width == read_by(head)
    expected = {"dino-vits": "cls4", "dino-vitb": "cls-mean-pairs"}.get(head.backbone[:9])
    assert expected is None or head.body["readout"] == expected
