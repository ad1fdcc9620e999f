"""The embedded collection: a small real-image data set, small pretrained backbones, and their heads for three tasks."""

from __future__ import annotations

from pathlib import Path

from sslrob import hookimpl
from sslrob.hookspecs import Register


@hookimpl
def register_backbones(register: Register) -> None:
    register("mini-resnet", "sslrob_mini.resnet:ResNet")
    register("mini-vit", "sslrob_mini.vit:VisionTransformer")


@hookimpl
def zoo_files() -> list[Path]:
    folder = Path(__file__).parent
    return [folder / "zoo.yaml", folder / "weights" / "backbones.yaml", folder / "weights" / "heads" / "heads.yaml"]
