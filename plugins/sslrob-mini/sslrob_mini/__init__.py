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
    weights = folder / "weights"
    hardened = sorted((weights / "hardened").glob("*/zoo.yaml"))  # each as `sslrob harden --out` left it
    return [folder / "zoo.yaml", weights / "backbones.yaml", weights / "heads" / "heads.yaml", *hardened]
