"""Architectures, converters and references for the published checkpoints of self-supervised learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslrob import hookimpl

if TYPE_CHECKING:
    from sslrob.hookspecs import Register


@hookimpl
def register_backbones(register: Register) -> None:
    register("resnet", "sslrob_backbones.resnet:ResNet")
    register("timm", "sslrob_backbones.timm:Timm")


@hookimpl
def register_layouts(register: Register) -> None:
    """Grouped by the kind of file."""
