"""Architectures, converters and references for the published checkpoints of self-supervised learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslrob import hookimpl
from sslrob_backbones.layouts import LAYOUTS, OTHER_FILES

if TYPE_CHECKING:
    from sslrob.hookspecs import Register
    from sslrob.task import Victim as Built
    from sslrob.zoo import Backbone, Settings, Victim, Weights

SCHEMES = ("timm", "hf", "hub", "file", "robustbench")


@hookimpl
def register_backbones(register: Register) -> None:
    register("resnet", "sslrob_backbones.resnet:ResNet")
    register("timm", "sslrob_backbones.timm:Timm")
    register("hub", "sslrob_backbones.hub:Hub")


@hookimpl
def register_layouts(register: Register) -> None:
    """Grouped by the kind of file: torch's first."""
    for name, target in {**LAYOUTS, **OTHER_FILES}.items():
        register(name, f"sslrob_backbones.layouts.{target}")


@hookimpl
def resolve_reference(kind: str, text: str) -> Backbone | Victim | None:
    """`timm:NAME`, `hf:ORG/NAME`, `hub:REPOSITORY:ENTRY`, `file:PATH`, and `robustbench:NAME` as a whole victim."""
    if not text.startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
        return None
    from sslrob_backbones import references

    return references.resolve(kind, text)


@hookimpl
def build_classifier(reference: str, weights: Weights | None, settings: Settings) -> Built | None:
    """Of `file:PATH` and `robustbench:NAME`."""
    if not reference.startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
        return None
    from sslrob_backbones import references

    return references.build(reference, weights, settings)
