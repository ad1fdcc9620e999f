"""References to models outside the zoo, by scheme; each gives a record of the zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslrob_backbones.references import classifiers, files, hub, hugging_face, robustbench, timm

if TYPE_CHECKING:
    from sslrob.task import Victim as Built
    from sslrob.zoo import Backbone, Settings, Victim, Weights

BACKBONES = {"timm": timm.backbone, "hf": hugging_face.backbone, "hub": hub.backbone, "file": files.backbone}
VICTIMS = {"file": files.victim, "robustbench": robustbench.victim}
CLASSIFIERS = {"file": classifiers.build, "robustbench": robustbench.build}


def resolve(kind: str, text: str) -> Backbone | Victim | None:
    """The record that a reference means; None where its scheme is not of this kind.

    Args:
        kind: "backbone" or "victim".

    Raises:
        SslrobError: there is no such thing, it is not understood, or it may not be run.
    """
    scheme = text.partition(":")[0]
    if kind == "backbone":
        return BACKBONES[scheme](text) if scheme in BACKBONES else None
    return VICTIMS[scheme](text) if scheme in VICTIMS else None


def build(reference: str, weights: Weights | None, settings: Settings) -> Built | None:
    """The whole classifier that a reference means, with its weights; None where its scheme has none."""
    scheme = reference.partition(":")[0]
    return CLASSIFIERS[scheme](reference, weights, settings) if scheme in CLASSIFIERS else None
