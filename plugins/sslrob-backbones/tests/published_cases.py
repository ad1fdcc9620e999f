"""Every published file that is tested, with the settings that a zoo entry gives it and what the original makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plain
import plain_vit
import published
import published_efficientnet
import published_frameworks
import published_haiku
import published_tensorflow
import published_vit
import torch
from published_draws import WIDTH
from torch import Tensor
from torch.nn import functional as F

RESNET = {"depth": 14, "width": WIDTH}
VIT = {"embed_dim": published_vit.WIDTH, "depth": published_vit.DEPTH, "num_heads": 6}
SMALL = {"model": "vit_small_patch16_224.dino", "arguments": {**VIT, "img_size": 32, "patch_size": 8}}
COLOURS = {"mean": list(plain.IMAGENET[0]), "std": list(plain.IMAGENET[1])}
TWELVE = {"model": "vit_small_patch16_224", **COLOURS, "arguments": {**SMALL["arguments"], "num_heads": 12}}
MAE = {"model": "vit_base_patch16_224.mae", "arguments": SMALL["arguments"]}
DINOV2 = {"model": "vit_small_patch14_dinov2.lvd142m", "arguments": {**VIT, "img_size": 42}}
STRETCHED = {**DINOV2, "positions": "dino"}
REGISTERS = {"model": "vit_small_patch14_reg4_dinov2.lvd142m", "arguments": DINOV2["arguments"]}
GIANT = {"model": "vit_giant_patch14_dinov2.lvd142m", "arguments": DINOV2["arguments"]}
UNCHANGED = {"mean": 0.0, "std": 1.0}
READOUTS = {"interleaved": "cls-mean-pairs"}  # what the architecture here calls it


@dataclass(frozen=True)
class Case:
    """A published file, the settings that a zoo entry gives its backbone, and what the original network sees in images of `size`."""

    layout: str
    write: Callable[[Path], Any]
    plain: Callable[[Any, Tensor], plain.Seen]
    file: str = "checkpoint.pth"
    settings: Mapping[str, Any] = field(default_factory=lambda: RESNET)
    use: str = "resnet"
    size: tuple[int, int] = (64, 48)


def vit(
    layout: str,
    write: Callable[[Path], Any],
    how: str = "cls",
    settings: Mapping[str, Any] = SMALL,
    *,
    under: str = "",
    part: str = "",
    names: dict[str, str] = plain_vit.TIMM,
    size: tuple[int, int] | None = None,
) -> Case:
    """A vision transformer whose tensors start with `under`, in the `part` of what was written; `size`: other than it was trained on."""
    arguments = {"heads": settings["arguments"]["num_heads"], "prefix": under, "names": names, "how": how}
    readout = {} if how == "cls" else {"readout": READOUTS.get(how, how)}
    side = settings["arguments"]["img_size"]

    def seen(content: Any, images: Tensor) -> plain.Seen:
        return plain_vit.read(content[part] if part else content, images, **arguments)

    return Case(layout, write, seen, settings={**settings, **readout}, use="timm", size=size or (side, side))


def standard(prefix: str = "", part: str = "") -> Callable[[Any, Tensor], plain.Seen]:
    """torchvision's network, whose tensors start with `prefix`, in the `part` of what was written."""
    return lambda content, images: plain.resnet(content[part] if part else content, images, prefix)


def swav(content: Any, images: Tensor) -> plain.Seen:
    return plain.padded_resnet(content, images, "module.", plain.SWAV)


SWAV = {**RESNET, "std": list(plain.SWAV[1])}
BYOL = {**RESNET, "padding": "same"}
SIMCLR = {**RESNET, "padding": "same-pool", **UNCHANGED}
CASES = {
    "torchvision": Case("torchvision", lambda path: published.torchvision(path, fc=True), standard()),
    "torchvision-bare": Case("torchvision", lambda path: published.torchvision(path, fc=False), standard()),
    "vicreg": Case("torchvision", lambda path: published.torchvision(path, fc=False), plain.padded_resnet),
    "swav": Case("swav", lambda path: published.swav(path, wrapped=False), swav, settings=SWAV),
    "swav-wrapped": Case("swav", lambda path: published.swav(path, wrapped=True), swav, settings=SWAV),
    "swav-w2": Case("swav", lambda path: published.swav(path, wrapped=False, stem=16), swav, settings={**SWAV, "width": 2 * WIDTH}),
    "deepcluster-v2": Case("swav", lambda path: published.swav(path, wrapped=False, prototypes=3), swav, settings=SWAV),
    "moco-v1": Case("moco", lambda path: published.moco(path, mlp=False), standard("module.encoder_q.")),
    "moco-v2": Case("moco", lambda path: published.moco(path, mlp=True), standard("module.encoder_q.")),
    "moco-v3": Case("moco-v3", published.moco_v3, standard("module.base_encoder.")),
    "moco-v3-linear": Case("moco-v3", lambda path: published.linear(path, under="module.base_encoder."), standard("module.")),
    "moco-v3-vit": vit("moco-v3", published_vit.moco_v3, settings=TWELVE, under="module.base_encoder."),
    "moco-v3-vit-linear": vit("moco-v3", published_vit.moco_v3_linear, settings=TWELVE, under="module."),
    "simsiam": Case("simsiam", published.simsiam, standard("module.encoder.")),
    "simsiam-linear": Case("simsiam", lambda path: published.linear(path, under="module.encoder."), standard("module.")),
    "dino-resnet": Case("dino", lambda path: published_vit.dino(path, arch="resnet50"), standard("module.backbone.", "teacher")),
    "dino-resnet-bare": Case("dino", lambda path: published_vit.dino_bare(path, arch="resnet50"), standard()),
    "dino-vit": vit("dino", lambda path: published_vit.dino(path, arch="vit_small"), under="backbone.", part="teacher"),
    "dino-vit-bare": vit("dino", lambda path: published_vit.dino_bare(path, arch="vit_small")),
    "vissl": Case("vissl", lambda path: published.vissl(path, form="nest"), standard("_feature_blocks.")),
    "vissl-model": Case("vissl", lambda path: published.vissl(path, form="model_state_dict"), standard("_feature_blocks.")),
    "vissl-flat": Case("vissl", lambda path: published.vissl(path, form="flat"), standard("_feature_blocks.")),
    "vissl-supervised": Case("vissl", lambda path: published.vissl(path, form="nest", supervised=True), standard("_feature_blocks.")),
    "openmmlab": Case("openmmlab", lambda path: published_frameworks.openmmlab(path, hub=False), standard("backbone.")),
    "openmmlab-hub": Case("openmmlab", lambda path: published_frameworks.openmmlab(path, hub=True), standard("backbone.")),
    "openmmlab-linear": Case("openmmlab", published_frameworks.openmmlab_linear, standard("backbone.")),
    "openmmlab-vit": vit(
        "openmmlab", lambda path: published_vit.openmmlab(path, linear=False), settings=TWELVE, under="backbone.", names=plain_vit.MM
    ),
    "openmmlab-vit-linear": vit(
        "openmmlab", lambda path: published_vit.openmmlab(path, linear=True), settings=TWELVE, under="backbone.", names=plain_vit.MM
    ),
    **{
        f"lightly-{method}": Case(
            "lightly", lambda path, method=method: published_frameworks.lightly(path, method=method), standard("backbone.")
        )
        for method in ("byol", "dino", "mocov2", "swav")
    },
    "robust": Case("robust", published.robust, standard("module.model.")),
    "byol": Case("haiku", published_haiku.byol, plain.byol, settings=BYOL),
    "byol-101": Case(
        "haiku", lambda path: published_haiku.byol(path, depth=101, net="res_net101"), plain.byol, settings={**BYOL, "depth": 101}
    ),
    "byol-frozendict": Case(
        "haiku", lambda path: published_haiku.byol(path, mapping="frozendict", stem="initial_conv"), plain.byol, settings=BYOL
    ),
    **{
        f"simclr-v{version}": Case(
            "simclr-tf",
            lambda path, version=version: published_tensorflow.simclr(path, version=version),
            lambda variables, images: plain.simclr(variables, images, (1, 1, 1, 1)),
            "ResNet50_1x.zip",
            SIMCLR,
        )
        for version in (1, 2)
    },
    "ibot": vit("ibot", published_vit.ibot),
    "ibot-mean": vit("ibot", published_vit.ibot, "mean"),
    "msn": vit("msn", published_vit.msn, under="module.", part="target_encoder"),
    "mae": vit("mae", lambda path: published_vit.mae(path, full=False), settings=MAE),
    "mae-full": vit("mae", lambda path: published_vit.mae(path, full=True), settings=MAE),
    "mae-mean": vit("mae", lambda path: published_vit.mae(path, full=False), "mean", settings=MAE),
    "dinov2": vit("dinov2", published_vit.dinov2, settings=DINOV2),
    "dinov2-resized": vit("dinov2", published_vit.dinov2, settings=STRETCHED, size=(70, 28)),
    "dinov2-registers": vit("dinov2", lambda path: published_vit.dinov2(path, registers=4), settings=REGISTERS),
    "dinov2-registers-resized": vit("dinov2", lambda path: published_vit.dinov2(path, registers=4), settings=REGISTERS, size=(70, 28)),
    "dinov2-giant": vit("dinov2", lambda path: published_vit.dinov2(path, gated=True), settings=GIANT),
    "timm": Case(
        "timm",
        published_vit.timm,
        standard(),
        "model.safetensors",
        {"model": "resnet50.a1_in1k", **COLOURS, "arguments": {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}},
        "timm",
    ),
    **{
        f"efficientnet-{size}": Case(
            "efficientnet-pytorch",
            lambda path, size=size: published_efficientnet.efficientnet(path, lite=size == "lite0"),
            published_efficientnet.forward,
            settings={"model": f"tf_efficientnet_{size}", **COLOURS},
            use="timm",
        )
        for size in ("lite0", "b0")
    },
}


@dataclass(frozen=True)
class Head:
    """A published linear head, its layout, and the original's logits on what the original network's readout `how` gives."""

    case: str
    layout: str
    logits: Callable[[Any, Tensor], Tensor]
    write: Callable[[Path], Any] | None = None  # none: the head is in the backbone's file
    how: str = ""
    file: str = "linear.pth"


def by(name: str) -> Callable[[Any, Tensor], Tensor]:
    """A linear layer of torch's."""
    return lambda content, seen: F.linear(seen, *((content.get("state_dict", content))[f"{name}{part}"] for part in ("weight", "bias")))


def haiku_classifier(held: Any, seen: Tensor) -> Tensor:
    layer = held["online_params"]["classifier"]
    return seen @ torch.from_numpy(layer["w"]) + torch.from_numpy(layer["b"])


def dense(variables: Any, seen: Tensor) -> Tensor:
    weight, bias = (torch.from_numpy(variables[f"head_supervised/linear_layer/dense/{part}"]) for part in ("kernel", "bias"))
    return seen @ weight + bias


TOKENS = published_vit.WIDTH
HEADS = {
    "torchvision": Head("torchvision", "torchvision", by("fc.")),
    "swav": Head("swav", "dino-linear", by("module.linear."), published.swav_linear),
    "moco-v3": Head("moco-v3", "moco-v3", by("module.fc."), lambda path: published.linear(path, under="module.base_encoder.")),
    "moco-v3-vit": Head("moco-v3-vit", "moco-v3", by("module.head."), published_vit.moco_v3_linear),
    "simsiam": Head("simsiam", "simsiam", by("module.fc."), lambda path: published.linear(path, under="module.encoder.")),
    "dino-resnet": Head(
        "dino-resnet-bare", "dino-linear", by("module.linear."), lambda path: published_vit.dino_linear(path, width=published.OUT)
    ),
    "dino-vits": Head(
        "dino-vit-bare", "dino-linear", by("module.linear."), lambda path: published_vit.dino_linear(path, width=4 * TOKENS), "cls4"
    ),
    "dino-vitb": Head(
        "dino-vit-bare", "dino-linear", by("module.linear."), lambda path: published_vit.dino_linear(path, width=2 * TOKENS), "interleaved"
    ),
    "vissl": Head("vissl-supervised", "vissl", by("0.clf.0.")),
    "openmmlab": Head("openmmlab", "openmmlab", by("head.fc."), published_frameworks.openmmlab_linear),
    "openmmlab-vit": Head("openmmlab-vit", "openmmlab", by("head.layers.head."), lambda path: published_vit.openmmlab(path, linear=True)),
    "lightly": Head("lightly-byol", "lightly", by("online_classifier.classification_head.")),
    "robust": Head("robust", "robust", by("module.model.fc.")),
    "byol": Head("byol", "haiku", haiku_classifier),
    "simclr": Head("simclr-v1", "simclr-tf", dense),
    "dinov2": Head("dinov2", "dinov2-linear", by(""), lambda path: published_vit.dinov2_linear(path, layers=1), "cls+mean"),
    "dinov2-4": Head("dinov2", "dinov2-linear", by(""), lambda path: published_vit.dinov2_linear(path, layers=4), "cls4+mean"),
    "dinov2-registers": Head(
        "dinov2-registers", "dinov2-linear", by(""), lambda path: published_vit.dinov2_linear(path, layers=4), "cls4+mean"
    ),
    "timm": Head("timm", "timm", by("fc.")),
    "efficientnet": Head("efficientnet-lite0", "efficientnet-pytorch", by("_fc.")),
}

TRAPS: dict[str, tuple[str, dict[str, Any]]] = {  # what others got wrong, each of which shows in the features
    "byol-padded-as-torch": ("byol", {"padding": "torch"}),
    "byol-padded-as-simclr": ("byol", {"padding": "same-pool"}),
    "simclr-padded-as-byol": ("simclr-v1", {"padding": "same"}),
    "simclr-padded-as-torch": ("simclr-v1", {"padding": "torch"}),
    "swav-of-imagenets-colours": ("swav", {"std": COLOURS["std"]}),
    "moco-v3-of-six-heads": ("moco-v3-vit", {"arguments": SMALL["arguments"]}),
    "openmmlab-of-six-heads": ("openmmlab-vit", {"arguments": SMALL["arguments"]}),
    "dino-read-as-a-mean": ("dino-vit-bare", {"readout": "mean"}),
}
